"""Typed configs, compose-time checks, the errors that are written for users."""

from rsdiff.config.errors import ConfigError, PlaceError, UserError
from rsdiff.config.ours import Ours, OursOption, marks_of, options_of_ours
from rsdiff.config.typed import config, config_from_mapping, default_values, plain_values

__all__ = [
    "ConfigError",
    "Ours",
    "OursOption",
    "PlaceError",
    "UserError",
    "config",
    "config_from_mapping",
    "default_values",
    "marks_of",
    "options_of_ours",
    "plain_values",
]
