"""Methods: networks, objective and restoration put together, one module each."""

METHODS: dict[str, type] = {}
"""Config class of every method by `kind`."""
