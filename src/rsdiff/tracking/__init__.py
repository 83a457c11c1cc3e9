"""Where a run reports to: its own folder always, Weights & Biases where asked, the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import Kinds, on_demand

if TYPE_CHECKING:
    from rsdiff.tracking.json_lines import JsonLinesConfig as JsonLinesConfig
    from rsdiff.tracking.json_lines import read_history as read_history
    from rsdiff.tracking.tracker import (
        Cell as Cell,
    )
    from rsdiff.tracking.tracker import (
        LoggerConfig as LoggerConfig,
    )
    from rsdiff.tracking.tracker import (
        RunIdentity as RunIdentity,
    )
    from rsdiff.tracking.tracker import (
        Tracker as Tracker,
    )
    from rsdiff.tracking.tracker import (
        Trackers as Trackers,
    )
    from rsdiff.tracking.wandb import WandbConfig as WandbConfig

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
