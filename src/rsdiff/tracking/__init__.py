"""Where a run reports to: its own folder always, Weights & Biases where asked, the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import Kinds, on_demand

if TYPE_CHECKING:
    from rsdiff.tracking.json_lines import JsonLinesConfig, read_history
    from rsdiff.tracking.tracker import Cell, LoggerConfig, RunIdentity, Tracker, Trackers
    from rsdiff.tracking.wandb import WandbConfig

LOGGERS = Kinds(
    {
        "jsonl": "rsdiff.tracking.json_lines:JsonLinesConfig",
        "wandb": "rsdiff.tracking.wandb:WandbConfig",
        "csv": "rsdiff.tracking.csv_file:CsvConfig",
        "tensorboard": "rsdiff.tracking.tensorboard:TensorboardConfig",
        "several": "rsdiff.tracking.several:SeveralConfig",
    }
)
"""Config class of every logger by `kind`."""

_MODULES = {
    "Cell": "tracker",
    "JsonLinesConfig": "json_lines",
    "LoggerConfig": "tracker",
    "RunIdentity": "tracker",
    "Tracker": "tracker",
    "Trackers": "tracker",
    "WandbConfig": "wandb",
    "read_history": "json_lines",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "LOGGERS",
    "Cell",
    "JsonLinesConfig",
    "LoggerConfig",
    "RunIdentity",
    "Tracker",
    "Trackers",
    "WandbConfig",
    "read_history",
]
