"""What restoring a scene is given and gives back, and the processes that share it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from rsdiff.data.normalisation import Normaliser
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.draws import in_turn
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.methods.base import Method, Problem
from rsdiff.metrics.calibration import Calibration


class Team(Protocol):
    """The processes that share a scene."""

    rank: int
    count: int

    def any(self, mine: bool) -> bool:
        """Return whether any process says so; all wait for all."""
        ...

    def smallest(self, mine: int) -> int:
        """Return the smallest number that any process says; all wait for all."""
        ...


class Alone:
    """A team of one."""

    rank = 0
    count = 1

    def any(self, mine: bool) -> bool:
        return mine

    def smallest(self, mine: int) -> int:
        return mine


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """What restores scenes.

    trained     normaliser of the data the method was trained on, or None
    needs       fields of the batch that the method needs
    identity    names method, weights and sampler: scratch files of another identity are not used
    weights     says which weights, for the tags of the rasters
    wavelengths of the bands that the method adds, where it was trained to
    beside      methods that restore further samples in turn with `method`
    calibration says how wide intervals are, for several samples; None where nothing does
    """

    method: Method
    problem: Problem
    scale: float
    sampler: SamplerConfig
    trained: Normaliser | None
    needs: frozenset[str]
    seed: int
    device: torch.device
    identity: str = ""
    weights: str = ""
    wavelengths: tuple[float, ...] = ()
    beside: tuple[Method, ...] = ()
    calibration: Calibration | None = None

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods, which take turns to restore samples."""
        return (self.method, *self.beside)

    def job(self, source: Path, output: Path, scratch: Path, options: SceneOptions) -> SceneJob:
        """Return the restoration of one scene; bands that are added get the wavelengths that the method was trained for."""
        if self.problem.bands != self.problem.lr_bands and not options.wavelengths:
            options = replace(options, wavelengths=self.wavelengths)
        return SceneJob(**vars(self), input=source, output=output, scratch=scratch, options=options)


@dataclass(frozen=True, kw_only=True)
class SceneJob(Restorer):
    """One scene to restore.

    scratch  folder for what must survive a kill
    order    batches in the order in which they are restored, None for row by row; the result does not depend on it
    """

    input: Path
    output: Path
    scratch: Path
    options: SceneOptions
    order: Callable[[int], Sequence[int]] | None = None

    @property
    def in_turn(self) -> tuple[Method, ...]:
        """What restores the samples in turn: see rsdiff.inference.draws.in_turn."""
        return in_turn(self.methods, self.options.samples)


@dataclass(frozen=True)
class SceneResult:
    """What became of a scene.

    input_size, size  (height, width) before and after
    tile, tiles       side of a tile in input pixels, number of tiles (groups of tiles where they are fused)
    outputs           the rasters written
    seam_score        see rsdiff.metrics.seams; NaN where there is no border
    value_range       stored values, per band or common, that are shown as black and white: those that the method saw as 0 and as 1, or,
                      where it only interpolates, the lowest and highest of the scene
    outside           number of valid values of the input outside that range
    outside_told      what became of them, in words
    """

    input_size: tuple[int, int]
    size: tuple[int, int]
    tile: int
    tiles: int
    outputs: tuple[Path, ...]
    seam_score: float
    value_range: tuple[tuple[float, ...], tuple[float, ...]]
    outside: int = 0
    outside_told: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {**asdict(self), "outputs": [str(path) for path in self.outputs]}

    @staticmethod
    def from_json(path: Path) -> SceneResult | None:
        """Return the result that was noted at `path`, or None where there is none."""
        if not path.exists():
            return None
        values = json.loads(path.read_text())
        sizes = {name: tuple(values[name]) for name in ("input_size", "size")}
        low, high = values["value_range"]
        outputs = tuple(Path(output) for output in values["outputs"])
        return SceneResult(**{**values, **sizes, "outputs": outputs, "value_range": (tuple(low), tuple(high))})


Progress = Callable[[int, int], None]
"""(pixels of the target that are done, all pixels)"""
