"""Options of a run that belong to no group, and what every task declares.

A task declares the groups it reads (`uses`): only those are checked, only those enter the run's signature, and reading another one is an
error of ours that the tests find. To type a group, or a top-level setting (`takes`), that it does not read is refused.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from rsdiff.config import UserError, config


@config
class RunOptions:
    """Top-level settings, shared by every group."""

    scale: float = 4.0
    """Enlargement: target pixels per input pixel along each side."""
    seed: int = 0
    """Seed of all random choices."""
    checkpoint: str | None = None
    """A run folder or its signature, a checkpoint folder or a weights file: to evaluate, restore with or start training from."""
    input: str | tuple[str, ...] | None = None
    """What task=restore reads: a raster, a folder, a pattern such as scenes/*.tif, a .txt file with a path per line, or a list."""
    output: str | None = None
    """What task=restore, prepare or import writes."""
    source: str | None = None
    """The raw download that task=prepare packs, or the authors' weights file that task=import converts."""
    sr: str | tuple[str, ...] | None = None
    """What task=score judges: a folder of restored images or an image; several ([A, B]) are compared with each other."""
    hr: str | None = None
    """The references of task=score: a folder of images or an image."""
    outputs: str = "outputs"
    """Folder of all run folders."""
    optimise: str | None = None
    """Metric of a run that a sweeper such as hydra/sweeper=optuna optimises (psnr); None takes the first one."""
    gpus_per_cell: float = 1.0
    """GPUs per run of a sweep with hydra/launcher=joblib or local: 2 gives each run two GPUs, 0.5 puts two runs on a GPU, 0 uses none."""
    stop_on_failure: bool = False
    """Stop a sweep at its first failed run; otherwise the other runs go on."""
    plugins: tuple[str, ...] = ()
    """Python modules with methods, datasets or degradations of your own, besides installed plugins; see docs/extending.md."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise UserError(f"scale={self.scale:g} was given; give a number above 0, such as 4.")
        for name in ("checkpoint", "input", "output", "source", "sr", "hr", "outputs"):
            if getattr(self, name) == "":
                raise UserError(f"{name}= is empty; give a path, or leave {name}= out.")


TAKEN_BY_SOME = frozenset({"checkpoint", "input", "output", "source", "sr", "hr", "scale", "seed"})
"""Top-level settings that some tasks read; the others are the application's, whatever the task."""


class TaskOptions:
    """What every task declares.

    module     the module whose `run(settings, folder, tracker)` does the work; imported when the task runs, not for --help
    uses       groups the task reads
    needs      top-level settings that must be given
    takes      further ones of TAKEN_BY_SOME that it reads; to type others is refused
    pairs_data whether the model meets the data of `dataset` and `degradation`, so that they must fit together
    starts     whether `checkpoint` is where a training starts, and the run of another model may be found for it
    only_looks whether the task only looks at other runs: its `run(settings)` has no run folder and leaves nothing
    continues  whether `checkpoint` brings its own settings (model, data, degradation, sampler) for what the user did not choose
    is_calibrated whether it uses the calibrations that lie beside the checkpoint, where it takes several samples
    located_lists options that name checkpoints where they are lists; the checkpoints' content is part of the identity
    reads      splits of the data set that it reads
    tests_alone whether it tests without training, so that all images of a folder test that says nothing of test images
    starts_others whether it starts runs by the launcher of its command
    repeats    whether a finished run is done again, because it collects what other runs made
    """

    module: ClassVar[str]
    uses: ClassVar[frozenset[str]]
    needs: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed"})
    pairs_data: ClassVar[bool] = False
    continues: ClassVar[bool] = False
    starts: ClassVar[bool] = False
    only_looks: ClassVar[bool] = False
    is_calibrated: ClassVar[bool] = False
    located_lists: ClassVar[frozenset[str]] = frozenset()
    tests_alone: ClassVar[bool] = False
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ()
    repeats: ClassVar[bool] = False
    starts_others: ClassVar[bool] = False

    @property
    def beside(self) -> tuple[str, ...]:
        """The checkpoints that restore samples beside those of `checkpoint`, as they were typed."""
        given = getattr(self, "ensemble", ())
        return given if isinstance(given, tuple) else ()

    def require_sample_of_each(self, samples: int) -> None:
        """Raise UserError where checkpoints are named beside `checkpoint` and one restoration of every image is wanted."""
        if self.beside and samples < 2:
            count = len(self.beside)
            raise UserError(
                f"ensemble names {count} checkpoint{'s' * (count > 1)} and samples={samples} was given; set task.samples={count + 1}: "
                "one of each, and one of checkpoint=."
            )

    def function(self) -> Callable[..., Any]:
        """Return the task's `run(settings, folder, tracker) -> TaskResult`."""
        run: Callable[..., Any] = importlib.import_module(self.module).run
        return run
