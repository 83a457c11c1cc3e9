"""One module per golden folder; each registers a runner for every kind of case in that folder."""

import importlib
import pkgutil


def load() -> None:
    """Import every runner module of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
