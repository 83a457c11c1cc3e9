"""Where a run reports to: its own folder always, Weights & Biases where asked, the terminal."""

from rsdiff.tracking.json_lines import JsonLinesConfig, read_history
from rsdiff.tracking.tracker import Cell, LoggerConfig, RunIdentity, Tracker, Trackers

LOGGERS: dict[str, type] = {"jsonl": JsonLinesConfig}
"""Config class of every logger by `kind`."""

__all__ = ["LOGGERS", "Cell", "JsonLinesConfig", "LoggerConfig", "RunIdentity", "Tracker", "Trackers", "read_history"]
