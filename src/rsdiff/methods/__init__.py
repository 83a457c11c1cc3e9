"""Methods: networks, objective and restoration put together, one module each."""

from rsdiff.methods.bicubic import BicubicMethodConfig
from rsdiff.methods.sr3 import SR3Config

METHODS: dict[str, type] = {
    "bicubic": BicubicMethodConfig,
    "sr3": SR3Config,
}
"""Config class of every method by `kind`."""

__all__ = ["METHODS", "BicubicMethodConfig", "SR3Config"]
