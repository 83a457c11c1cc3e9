"""Weights & Biases beside the run's own history. It must never cost a run: no prompts, a failing service is reported once and left alone.

Without a key the run is recorded offline in its own folder; `wandb sync --include-online <folder>/wandb/*run-*` sends it later, as it sends
what a service that failed in mid-run did not take: W&B writes its record into the folder whether it is online or not. Only tables need the
service at the moment they are logged. A resumed run keeps its id, which is the run's signature. W&B drops what is logged again for steps it
already has; those values are the same by construction.
"""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rsdiff.config import config
from rsdiff.config.quiet import show
from rsdiff.tracking.json_lines import JsonLinesConfig
from rsdiff.tracking.tracker import Cell, End, Recorder, RunIdentity, Trackers, columns_of

if TYPE_CHECKING:
    from torch import Tensor

HOST = "api.wandb.ai"
AGENT_SWEEP, AGENT_RUN = "WANDB_SWEEP_ID", "WANDB_RUN_ID"
"""What `wandb agent` sets: its sweep knows a run by the id that the agent gave it."""


@config
class WandbConfig:
    """Records the run in its own folder and with Weights & Biases."""

    result_neutral: ClassVar[frozenset[str]] = frozenset(
        {"mode", "project", "entity", "group", "name", "notes", "job_type", "tags", "images", "artifacts", "timeout_s", "progress"}
    )

    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online where a key is found (WANDB_API_KEY or `wandb login`), else offline; WANDB_MODE wins over auto."""
    project: str | None = None
    """W&B project; None means WANDB_PROJECT, else rsdiff."""
    entity: str | None = None
    """W&B user or team; None means WANDB_ENTITY, else the key's own."""
    group: str | None = None
    """Name that runs are gathered under; None means WANDB_RUN_GROUP, else the sweep, or the task of a single run."""
    name: str | None = None
    """Name of the run; None means WANDB_NAME, else model, data set and the beginning of the signature."""
    notes: str | None = None
    """A remark on the run; None means WANDB_NOTES, else nothing."""
    job_type: str | None = None
    """Kind of the run; None means WANDB_JOB_TYPE, else its task."""
    tags: tuple[str, ...] = ()
    """Words added to those of WANDB_TAGS and those that name the choices (model=..., dataset=...)."""
    images: bool = True
    """Whether pictures are sent."""
    artifacts: bool = False
    """Whether the checkpoint that the results are of is sent, without the state that training continues from."""
    timeout_s: float = 60.0
    """Longest wait in seconds for the service when the run begins, else it is recorded offline; at the end five times as long."""
    progress: Literal["auto", "off"] = "auto"
    """auto: a bar on a terminal, else a line now and then; off: nothing."""

    def build(self, run: RunIdentity) -> Trackers:
        """Return the tracker of `run`."""
        own = JsonLinesConfig(progress=self.progress).build(run)
        return Trackers([*own.parts, WandbTracker(self, run)])

    def absent(self, run: RunIdentity) -> WandbTracker | None:
        """See LoggerConfig. What W&B has of a run lies in its folder, too."""
        return None if (run.folder / "wandb").exists() else WandbTracker(self, run)

    def chosen_mode(self) -> Literal["online", "offline", "disabled"]:
        """Return how to record: see `mode`. Online is refused without a key, because W&B would ask for one."""
        wish = self.mode if self.mode != "auto" else os.environ.get("WANDB_MODE", "online")
        if wish == "disabled":
            return "disabled"
        return "online" if wish != "offline" and has_key() else "offline"


class WandbTracker(Recorder):
    """One W&B run. Every call is tried; what fails is reported on stderr once per kind of record and left out from then on.

    A failing call may cost half a minute (W&B's own patience), hence once.
    """

    def __init__(self, config: WandbConfig, run: RunIdentity) -> None:
        self.config = config
        self._identity = run
        self._run: Any = None
        self._last_step = 0
        self._left_out: set[str] = set()
        self._resend = f"`wandb sync --include-online {run.folder}/wandb/*run-*` sends what W&B has not got"
        mode = config.chosen_mode()
        if config.mode == "online" and mode != "online":
            show("W&B has no key (set WANDB_API_KEY or type `wandb login`); this run is recorded offline.", sys.stderr)
        _try(lambda: self._start(run, mode), "is not reached", "the run is recorded offline" if mode == "online" else "the run goes on")
        if self._run is None and mode == "online":
            # The local service still holds the id of the attempt that failed.
            _try(lambda: _wandb().teardown(), "could not be stopped", "the run goes on")
            _try(lambda: self._start(run, "offline"), "cannot record offline either", "the run goes on")

    def rewind(self, step: int) -> None:
        self._last_step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._last_step = max(step, self._last_step)
        self._record("numbers", lambda run: run.log(dict(values), step=step))

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        self._record("numbers", lambda run: run.log({"images_per_second": images_per_second}, step=step))

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        if not self.config.images:
            return
        self._last_step = max(step, self._last_step)
        pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        self._record("pictures", lambda run: run.log({f"images/{name}": _wandb().Image(pixels)}, step=self._last_step))

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Record a table; the values of a table of one row also become the run's summary, which W&B compares runs by."""
        columns = columns_of(rows)
        data = [[row.get(column) for column in columns] for row in rows]
        self._record("tables", lambda run: run.log({f"tables/{name}": _wandb().Table(columns=columns, data=data)}, step=self._last_step))
        if len(rows) == 1:
            self._record("numbers", lambda run: run.summary.update(dict(rows[0])))

    def model(self, checkpoint: Path) -> None:
        if self.config.artifacts:
            self._record("artifacts", lambda run: run.log_artifact(_artifact(checkpoint, self._identity)))

    def finish(self, end: End) -> None:
        run, self._run = self._run, None
        if run is not None:
            _try(lambda: run.finish(exit_code=0 if end == "finished" else 1), "did not take the whole record", self._resend)

    def _start(self, run: RunIdentity, mode: Literal["online", "offline", "disabled"]) -> None:
        wandb = _wandb()
        self._run = wandb.init(
            project=self.config.project or os.environ.get("WANDB_PROJECT", "rsdiff"),
            entity=self.config.entity or os.environ.get("WANDB_ENTITY"),
            group=self.config.group or os.environ.get("WANDB_RUN_GROUP", run.group),
            name=self.config.name or os.environ.get("WANDB_NAME", f"{run.name}-{run.signature[:4]}"),
            notes=self.config.notes or os.environ.get("WANDB_NOTES"),
            job_type=self.config.job_type or os.environ.get("WANDB_JOB_TYPE", task_of(run)),
            id=os.environ[AGENT_RUN] if AGENT_SWEEP in os.environ and AGENT_RUN in os.environ else run.signature,
            tags=[*run.tags, *(tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag), *self.config.tags],
            dir=str(run.folder),
            config=dict(run.settings),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                quiet=True,
                console="off",
                init_timeout=self.config.timeout_s,
                finish_timeout=5 * self.config.timeout_s,
                finish_timeout_raises=True,
            ),
        )

    def _record(self, kind: Literal["numbers", "pictures", "tables", "artifacts"], action: Callable[[Any], object]) -> None:
        """Do `action` with the W&B run, unless this kind of record failed before."""
        if self._run is None or kind in self._left_out:
            return
        run = self._run
        if not _try(lambda: action(run), f"failed and gets no {kind} from here on", "the run goes on, and keeps them in its folder"):
            self._left_out.add(kind)


def _try(action: Callable[[], object], what: str, then: str) -> bool:
    """Do `action` and return whether it succeeded; if not, print a line: whatever the service does, the run goes on."""
    try:
        action()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        show(f"W&B {what} ({type(error).__name__}: {reason}); {then}.", sys.stderr)
        return False
    return True


def task_of(run: RunIdentity) -> str:
    """Return the task of a run, by its settings."""
    return str(run.settings.get("task", {}).get("kind", run.group))


def _artifact(checkpoint: Path, run: RunIdentity) -> Any:
    """Return a checkpoint as W&B keeps models, without the optimisers' state, which is twice as large and of no use elsewhere."""
    made = _wandb().Artifact(name=f"{run.name}-{run.signature}", type="model", metadata={"signature": run.signature})
    for path in sorted(checkpoint.glob("*")):
        if path.suffix in (".safetensors", ".json"):
            made.add_file(str(path))
    return made


def has_key() -> bool:
    """Whether W&B will find a key without asking: in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _wandb() -> Any:
    import wandb  # a second of import time, only for those who choose it

    return wandb
