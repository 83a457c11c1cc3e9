"""Typed configs, compose-time checks, run signatures."""

from rsdiff.config.ours import Ours, OursOption, marks_of, options_of_ours
from rsdiff.config.typed import ConfigError, config, config_from_mapping, default_values, plain_values

__all__ = [
    "ConfigError",
    "Ours",
    "OursOption",
    "config",
    "config_from_mapping",
    "default_values",
    "marks_of",
    "options_of_ours",
    "plain_values",
]
