"""Composable experiments in remote-sensing super-resolution."""

__version__ = "0.1.0"
