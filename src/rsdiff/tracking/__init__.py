"""Where a run reports to: its own folder always, Weights & Biases where asked, the terminal."""

from rsdiff.tracking.json_lines import JsonLinesConfig, read_history
from rsdiff.tracking.tracker import Cell, LoggerConfig, RunIdentity, Tracker, Trackers
from rsdiff.tracking.wandb import WandbConfig

LOGGERS: dict[str, type] = {"jsonl": JsonLinesConfig, "wandb": WandbConfig}
"""Config class of every logger by `kind`."""

__all__ = ["LOGGERS", "Cell", "JsonLinesConfig", "LoggerConfig", "RunIdentity", "Tracker", "Trackers", "WandbConfig", "read_history"]
