"""The sample, data sets, packing, generated scenes, normalisation."""

DATASETS: dict[str, type] = {}
"""Every kind of data set a config file may name, and the class of its options."""
