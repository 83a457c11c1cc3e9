"""Several loggers at once: logger=several 'logger.names=[csv,tensorboard,wandb]', each with its own options below its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.tracking.csv_file import CsvConfig
from rsdiff.tracking.json_lines import JsonLinesConfig
from rsdiff.tracking.tensorboard import TensorboardConfig
from rsdiff.tracking.tracker import RunIdentity, Tracker, Trackers
from rsdiff.tracking.wandb import WandbConfig

Name = Literal["csv", "tensorboard", "wandb"]


@config
class SeveralConfig:
    """Records the run with every logger of a list, beside the history that every run keeps."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"names", "images", "wandb", "progress"})

    names: tuple[Name, ...] = ("csv", "tensorboard")
    """Loggers that each get all records: [csv,tensorboard]."""
    images: bool = True
    """Whether pictures go to TensorBoard."""
    wandb: WandbConfig = WandbConfig()
    """Options of Weights & Biases."""
    progress: Literal["auto", "off"] = "auto"
    """auto: a bar on a terminal, else a line now and then; off: nothing."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise UserError(f"names={list(self.names)} was given; name one or more of csv, tensorboard and wandb, each once.")
        self._configs()

    def build(self, run: RunIdentity) -> Trackers:
        """Return the tracker of `run`."""
        own = JsonLinesConfig(progress=self.progress).build(run).parts
        parts = [part for chosen in self._configs() for part in chosen.build(run).parts[1:]]  # but for its own history
        return Trackers([*own, *parts])

    def absent(self, run: RunIdentity) -> Tracker | None:
        """See LoggerConfig."""
        found = [tracker for chosen in self._configs() if (tracker := chosen.absent(run)) is not None]
        return Trackers(found) if found else None

    def _configs(self) -> list[Any]:
        return [self._config(name) for name in self.names]

    def _config(self, name: Name) -> Any:
        match name:
            case "csv":
                return CsvConfig(progress="off")
            case "tensorboard":
                return TensorboardConfig(images=self.images, progress="off")
            case "wandb":
                return replace(self.wandb, progress="off")
