"""Typed configs, compose-time checks, run signatures."""

from rsdiff.config.typed import ConfigError, config, config_from_mapping, default_values, plain_values

__all__ = ["ConfigError", "config", "config_from_mapping", "default_values", "plain_values"]
