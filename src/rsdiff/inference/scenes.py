"""Restoring whole scenes: tiles that do not show, in memory that does not depend on the scene, continued after a kill.

The scene is cut into overlapping tiles (`tiling`). Tiles are restored in fixed batches, dealt out to the processes in turn, and stored
(`scratch`); the main process blends every block of the output whose tiles are there, stores it, and drops tiles that no block needs any
more (`scene_rounds`). When all blocks are finished the raster is written from them, block by block: the same bytes whoever restored what,
and when.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.paths import typed_path
from rsdiff.config.quiet import show
from rsdiff.data.opening import local_file, without_warnings
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import TileNoise
from rsdiff.inference.compilation import compile_regions
from rsdiff.inference.draws import require_variants
from rsdiff.inference.images import restore, shortened
from rsdiff.inference.memory import LARGEST_TARGET, SHARE, best_tile, free_memory, measured_growth
from rsdiff.inference.reach import REACH_SIDE, measured_reach
from rsdiff.inference.scene_blocks import BlockMaker
from rsdiff.inference.scene_input import STRICT, AlignedRaster, NormalisedScene, SceneReader
from rsdiff.inference.scene_job import Progress, SceneJob, SceneResult, Team
from rsdiff.inference.scene_output import BLOCK, SceneWriter, output_form, require_writable_name, sibling, spread_form
from rsdiff.inference.scene_rounds import Rounds, TileTooLargeError
from rsdiff.inference.scene_tiles import SMALLEST_TILE, TileRestorer, scene_code
from rsdiff.inference.scene_values import scene_values
from rsdiff.inference.scratch import Scratch
from rsdiff.inference.tiling import Axis, Grid, even_side, exact_scale, rounded_up, tile_multiple
from rsdiff.metrics.seams import SeamScore

Restored = NDArray[np.float32]


def restore_scene(job: SceneJob, team: Team, progress: Progress) -> SceneResult:
    """Restore a scene and write its rasters; every process of the team calls it. Raises UserError or OSError in one sentence."""
    with rasterio.Env(**STRICT), without_warnings(), ExitStack() as stack:
        run = _Run(job, team, stack)
        tile = run.first_tile()
        run.compile()
        while True:
            try:
                return run.restore(tile, progress)
            except TileTooLargeError:
                tile = run.smaller_tile(tile)


class _Run:
    """A scene that is being restored."""

    def __init__(self, job: SceneJob, team: Team, stack: ExitStack) -> None:
        self.job, self.team, self.options = job, team, job.options
        self.scale = exact_scale(job.scale)
        self.multiple = math.lcm(*(tile_multiple(one.pixel_multiple(), self.scale, one.target_multiple()) for one in job.methods))
        self.reader = stack.enter_context(SceneReader(job.input, job.options.view()))
        self.bands = job.problem.bands
        self._require_bands()
        self.values = scene_values(self.reader, self.options, job.trained, self.bands)
        self.normaliser = self.values.normaliser
        self.scene = NormalisedScene(self.reader, self.normaliser)
        self.size = (round(self.reader.height * self.scale), round(self.reader.width * self.scale))
        for option, name in (("reference", "ref"), ("change_mask", "change_mask")):
            if getattr(self.options, option) is not None and name not in job.needs:
                raise UserError(f"this model uses no raster beside the scene; leave task.{option} out, or choose one such as refdiff.")
        self.aligned: dict[str, AlignedRaster] = {name: self._align(name, stack) for name in ("ref", "change_mask") if name in job.needs}
        self.written_bands = 1 if self.reader.is_repeated else self.bands
        self.forms = {"restored": output_form(self.reader, self.options, self.written_bands, job.output)}
        if self.options.samples > 1:
            self.forms["spread"] = spread_form(self.written_bands)
            if job.calibration is not None:
                self.reach = job.calibration.reach(self.options.level)
                self.forms["interval"] = spread_form(self.written_bands)
        require_writable_name(job.output, self.forms["restored"], self.options.format)
        # A CPU gains nothing from larger batches, and convolutions round differently in them.
        self.together = 1 if job.device.type == "cpu" else self.options.batch
        self.codes = [
            scene_code(one, job, self.scene, self.scale, self.multiple) if self.options.share_codes else None for one in job.methods
        ]
        self.is_random = self.options.samples <= len(job.in_turn) or self._draws_noise()
        if not self.is_random:
            require_variants(self.options.samples, len(job.methods))
        self.overlap = self._measured_overlap() if self.options.overlap == "auto" else self.options.overlap

    def _require_bands(self) -> None:
        given, needed = len(self.reader.bands), self.job.problem.lr_bands
        if given != needed:
            alpha = "" if self.reader.alpha is None else f" (band {self.reader.alpha} says it is an alpha band)"
            remedy = f"choose as many, for example task.bands={list(range(1, needed + 1))}"
            if needed == 3 and given < 3:
                remedy = "set task.convert=rgb, which shows the model the band three times"
            elif given < needed:
                remedy = "give a raster of as many bands"
            raise UserError(f"{self.job.input} gives {given} band{'s' * (given > 1)}{alpha} and the model restores {needed}; {remedy}.")
        if self.options.wavelengths and len(self.options.wavelengths) != self.bands:
            raise UserError(f"task.wavelengths has {len(self.options.wavelengths)} values for {self.bands} bands; give one per band.")

    def _align(self, name: str, stack: ExitStack) -> AlignedRaster:
        option = "reference" if name == "ref" else name
        path = getattr(self.options, option)
        if path is None:
            raise UserError(f"this model needs task.{option}, a raster that covers the scene; add task.{option}=FILE.")
        resampling = Resampling.cubic if name == "ref" else Resampling.nearest
        raster = AlignedRaster(typed_path(path), self.reader, self.scale, self.size, resampling)
        stack.callback(raster.close)
        wanted = self.bands if name == "ref" else 1
        if len(raster.bands) != wanted:
            raise UserError(f"{path} has {len(raster.bands)} bands and task.{option} needs {wanted}; give a raster of that many bands.")
        return raster

    def outside_told(self) -> str:
        """Return what became of values outside the range, in words."""
        done = "carried around the model by bicubic" if self.bands == len(self.reader.bands) else "limited to it"
        return f"{self.values.use.told(self.normaliser)}, {done}"

    # Tile sizes

    @property
    def smallest(self) -> int:
        return rounded_up(SMALLEST_TILE, self.multiple)

    def overlap_of(self, tile: int) -> int:
        """Return the overlap for a tile side: the wanted one, or half a small tile."""
        wanted = self.overlap
        return min(rounded_up(wanted, self.multiple), tile // 2 // self.multiple * self.multiple) if wanted else 0

    def first_tile(self) -> int:
        """Return the tile side to begin with: the user's, that of the run that is continued, or what fits into every process's memory."""
        if self.options.tile:
            return max(self.smallest, rounded_up(self.options.tile, self.multiple))
        earlier = Scratch.read_plan(self.job.scratch)
        if earlier and earlier == self.plan(int(earlier.get("tile", 0))):
            return self.team.smallest(int(earlier["tile"]))
        sides = range(self.smallest, max(self.smallest, int(LARGEST_TARGET / self.scale)) + 1, self.multiple)
        needs, works = measured_growth(self._probe_all, (self.smallest, 2 * self.smallest))
        allowed = SHARE * free_memory(self.job.device) / (self.together * self.options.fuse**2)
        return self.team.smallest(best_tile(sides, allowed, needs, works, self.overlap_of))

    def compile(self) -> None:
        """Compile what restores a tile, where that is wanted; a second scene finds it compiled."""
        if self.options.compile:
            found = ""
            for turn, one in enumerate(self.job.methods):
                found = compile_regions(one, self.options.compile, partial(self._probe, self.smallest, turn=turn), self.job.device)
            if self.team.rank == 0:
                show(f"task.compile={str(self.options.compile).lower()}: {found}")

    @property
    def unit(self) -> float | NDArray[np.float64]:
        """Stored values that make up [0, 1], common or per band (C, 1, 1)."""
        span = np.subtract(self.normaliser.high, self.normaliser.low)
        return float(span.mean()) if len(span) == 1 or self.reader.is_repeated else span[:, None, None]

    def half_width(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return half the width of the calibrated intervals for the spread of the samples, both in stored units."""
        assert self.job.calibration is not None
        return self.reach * self.job.calibration.deviation(spread, self.unit)

    def _measured_overlap(self) -> int:
        """Return twice the distance that the model looks; all processes find the same."""
        side, bands = rounded_up(REACH_SIDE, self.multiple), self.job.problem.lr_bands

        def reach(turn: int) -> int:
            return measured_reach(lambda lr: self._probe(side, value=lr, turn=turn), (bands, side, side), self.scale, self.job.device)

        found = self.team.smallest(max(reach(turn) for turn in range(len(self.job.methods))))
        if self.team.rank == 0:
            show(f"task.overlap=auto: {2 * found} pixels, since one changes the result up to {found} around itself")
        return 2 * found

    def _draws_noise(self) -> bool:
        """Say whether two restorations of one tile differ."""
        first, second = (self._probe(self.smallest, ("probe", number), 0.5) for number in range(2))
        return not torch.equal(first, second)

    def _probe_all(self, side: int) -> None:
        """Restore one tile with every method: the memory that the largest takes is what counts."""
        for turn in range(len(self.job.methods)):
            self._probe(side, turn=turn)

    def _probe(self, side: int, key: tuple[int | str, ...] = ("probe",), value: float | Tensor = 0.0, turn: int = 0) -> Tensor:
        """Restore one tile of a value or an image by the method whose turn it is, in as few steps as a sampler can take."""
        short = shortened(self.job.sampler)
        size = int(side * self.scale)
        images = {"lr": torch.zeros(1, self.job.problem.lr_bands, side, side, device=self.job.device) + value}
        for name in self.aligned:
            images[name] = torch.zeros(1, self.bands if name == "ref" else 1, size, size, device=self.job.device)
        batch = Batch([SampleMeta("probe")], (size, size), (side, side), code=self.codes[turn], **images)  # type: ignore[arg-type]
        with torch.no_grad():
            return restore(self.job.methods[turn], batch, short, TileNoise(key, [(0, 0)], (size, size)), self.options.precision)

    def smaller_tile(self, tile: int) -> int:
        """Return half of a tile side that was too large; raises UserError where none is smaller."""
        half = max(self.smallest, tile // 2 // self.multiple * self.multiple)
        if half == tile:
            raise UserError(
                f"the memory is too small for tiles of {tile} pixels, the smallest; set task.batch=1, task.fuse=1 or use another device."
            )
        return half

    def plan(self, tile: int) -> dict[str, Any]:
        """Return what files in the scratch folder depend on."""
        state = local_file(self.job.input).stat()
        return {
            "tile": tile,
            "overlap": self.overlap,
            "fuse": self.options.fuse,
            "samples": self.options.samples,
            "precision": self.options.precision,
            **({"interval": [self.options.level, self.job.calibration.to_json()]} if self.job.calibration else {}),
            "seed": self.job.seed,
            "scale": str(self.scale),
            "input": [str(self.job.input), state.st_size, state.st_mtime_ns],
            "view": repr(self.reader.view),
            "normaliser": self.normaliser.to_json(),
            "identity": self.job.identity,
        }

    def layout(self, tile: int) -> tuple[Grid, Axis, Axis]:
        """Return the grid of the scene and, per axis, how the tiles of a fused group lie in it."""
        overlap = self.overlap_of(tile)
        axes = []
        for length in (self.reader.height, self.reader.width):
            side = min(tile, max(self.smallest, rounded_up(length, self.multiple)))
            shared = min(overlap, side // 2 // self.multiple * self.multiple)
            side = max(even_side(length, side, shared, self.multiple), self.smallest)
            count = min(self.options.fuse, Axis(length, side, shared, self.scale).count)
            group = side + (count - 1) * (side - shared)
            axes.append((Axis(length, group, shared, self.scale), Axis(group, side, shared, self.scale)))
        return Grid(axes[0][0], axes[1][0], BLOCK), axes[0][1], axes[1][1]

    # Work

    def restore(self, tile: int, progress: Progress) -> SceneResult:
        """Restore the scene with tiles of one size; raises TileTooLargeError."""
        grid, *inner = self.layout(tile)
        scratch = Scratch(self.job.scratch, self.plan(tile), grid.blocks)
        if self.team.rank == 0:
            scratch.open()
        self.team.any(False)
        self._restore_tiles(grid, inner, scratch, progress)
        score = float("nan")
        outputs = tuple(self.job.output if name == "restored" else sibling(self.job.output, name) for name in self.forms)
        if self.team.rank == 0:
            score = self._write(grid, scratch, dict(zip(self.forms, outputs, strict=True)))
            scratch.remove()
        self.team.any(False)
        return SceneResult(
            (self.reader.height, self.reader.width),
            grid.size,
            inner[0].tile,
            grid.tiles,
            outputs,
            score,
            (self.values.shown.low, self.values.shown.high),
            self.values.use.outside,
            self.outside_told() if self.values.use.outside else "",
        )

    def _restore_tiles(self, grid: Grid, inner: Sequence[Axis], scratch: Scratch, progress: Progress) -> None:
        blocks = BlockMaker(self.reader, grid, self.scale, self.normaliser, self.bands, self.written_bands, self.forms, self.half_width)
        tiles = TileRestorer(self.job, self.scene, self.aligned, self.codes, self.is_random, self.scale, grid, inner[0], inner[1])
        rounds = Rounds(self.job, self.team, grid, scratch, blocks, tiles, self.bands, self.together)
        try:
            rounds.restore(progress)
        finally:
            self.together = rounds.together

    def _write(self, grid: Grid, scratch: Scratch, outputs: dict[str, Path]) -> float:
        """Write the rasters from the finished blocks and return the seam score of the first."""
        score = SeamScore(grid.rows.borders(), grid.columns.borders(), self.scale.numerator)
        for name, path in outputs.items():
            form = self.forms[name]
            tags = {
                "RSDIFF_CONTENT": name,
                "RSDIFF_SCALE": str(self.scale),
                "RSDIFF_SEED": str(self.job.seed),
                "RSDIFF_MODEL": self.job.identity,
                **({"RSDIFF_WEIGHTS": self.job.weights} if self.job.weights else {}),
            }
            if name == "interval":
                tags["RSDIFF_LEVEL"] = f"{self.options.level:g}"
            if self.values.use.outside:
                tags["RSDIFF_OUTSIDE"] = self.outside_told()
            writer = SceneWriter(path, self.reader, grid, self.scale, form, self.options, tags)
            writer.write(self._blocks(grid, scratch, name, score if name == "restored" else None))
        return score.value()

    def _blocks(self, grid: Grid, scratch: Scratch, name: str, score: SeamScore | None) -> Iterator[tuple[int, NDArray[Any]]]:
        form = self.forms[name]
        shape = (form.stored_bands, BLOCK, BLOCK)
        for block in range(grid.blocks):
            image = scratch.read_block(name, block, shape, form.dtype)
            if score is not None:
                top, left, height, width = grid.extent(block)
                score.add(image[: self.written_bands, :height, :width], top, left, form.nodata)
            yield block, image
