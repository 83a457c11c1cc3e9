"""TensorBoard event files in the run's folder: `tensorboard --logdir outputs` shows all runs side by side."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.data.frames import markdown_of
from rsdiff.tracking.json_lines import JsonLinesConfig, read_history
from rsdiff.tracking.tracker import Cell, End, Recorder, RunIdentity, Trackers, columns_of

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "tensorboard"


@config
class TensorboardConfig:
    """Records the run for TensorBoard, beside the history that every run keeps."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"progress", "images"})

    images: bool = True
    """Whether pictures are recorded."""
    progress: Literal["auto", "off"] = "auto"
    """auto: a bar on a terminal, else a line now and then; off: nothing."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("logger=tensorboard needs its package; type pip install 'rsdiff[tensorboard]', or choose logger=csv.")

    def build(self, run: RunIdentity) -> Trackers:
        """Return the tracker of `run`."""
        return Trackers([*JsonLinesConfig(progress=self.progress).build(run).parts, EventFiles(self, run)])

    def absent(self, run: RunIdentity) -> EventFiles | None:
        """See LoggerConfig."""
        return None if (run.folder / FOLDER).exists() else EventFiles(self, run)


class EventFiles(Recorder):
    """Writes events. A run that is continued writes its history anew, so that no step is there twice."""

    def __init__(self, config: TensorboardConfig, run: RunIdentity) -> None:
        self.config = config
        self.run = run
        self._writer: Any = None
        self._last_step = 0

    def rewind(self, step: int) -> None:
        self._close()
        shutil.rmtree(self.run.folder / FOLDER, ignore_errors=True)
        self._last_step = step
        for record in read_history(self.run.folder):
            if record["step"] <= step:
                self.log(int(record["step"]), {name: value for name, value in record.items() if name != "step"})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._last_step = max(step, self._last_step)
        for name, value in values.items():
            self._opened().add_scalar(name, value, step)

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        if self.config.images:
            self._opened().add_image(name, image.detach().float().clamp(0, 1).cpu(), max(step, self._last_step))

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        columns = columns_of(rows)
        cells = [[str(row.get(column, "")) for column in columns] for row in rows]
        self._opened().add_text(name, markdown_of(columns, cells), self._last_step)

    def finish(self, end: End) -> None:
        self._close()

    def _opened(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # seconds of import time, only for those who choose it

            self._writer = SummaryWriter(str(self.run.folder / FOLDER))
            self._writer.add_text("settings", f"```json\n{json.dumps(self.run.settings, indent=1, default=str)}\n```", 0)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
