"""Restoring whole scenes: tiles that do not show, in memory that does not depend on the scene, continued after a kill.

The scene is cut into overlapping tiles (`tiling`). Tiles are restored in fixed batches, dealt out to the processes in turn, and stored
(`scratch`); the main process blends every block of the output whose tiles are there, stores it, and drops tiles that no block needs any
more. When all blocks are finished the raster is written from them, block by block: the same bytes whoever restored what, and when.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
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
from rsdiff.inference.memory import LARGEST_TARGET, SHARE, best_tile, free_memory, is_out_of_memory, measured_growth
from rsdiff.inference.reach import REACH_SIDE, measured_reach
from rsdiff.inference.scene_blocks import BlockMaker
from rsdiff.inference.scene_input import STRICT, AlignedRaster, NormalisedScene, SceneReader
from rsdiff.inference.scene_job import Progress, SceneJob, SceneResult, Team
from rsdiff.inference.scene_output import BLOCK, OutputForm, SceneWriter, output_form, require_writable_name, sibling, spread_form
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
            except _TileTooLargeError:
                tile = run.smaller_tile(tile)


class _TileTooLargeError(Exception):
    """A tile did not fit into the memory of one of the processes."""


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
        """Restore the scene with tiles of one size; raises _TileTooLargeError."""
        grid, *inner = self.layout(tile)
        work = _Work(self, grid, inner[0], inner[1], Scratch(self.job.scratch, self.plan(tile), grid.blocks))
        if self.team.rank == 0:
            work.scratch.open()
        self.team.any(False)
        work.restore_tiles(progress)
        score = float("nan")
        outputs = tuple(self.job.output if name == "restored" else sibling(self.job.output, name) for name in self.forms)
        if self.team.rank == 0:
            score = work.write(dict(zip(self.forms, outputs, strict=True)))
            work.scratch.remove()
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


class _Work:
    """The tiles and blocks of a run with tiles of one size."""

    def __init__(self, run: _Run, grid: Grid, rows: Axis, columns: Axis, scratch: Scratch) -> None:
        self.run, self.grid, self.rows, self.columns, self.scratch = run, grid, rows, columns, scratch
        self.needed_by: dict[int, list[int]] = {}
        self.present: set[int] = set()
        self.missing: set[int] = set()
        self.blocks = BlockMaker(run.reader, grid, run.scale, run.normaliser, run.bands, run.written_bands, run.forms, run.half_width)
        self.tiles = TileRestorer(run.job, run.scene, run.aligned, run.codes, run.is_random, run.scale, grid, rows, columns)

    def restore_tiles(self, progress: Progress) -> None:
        """Restore and blend everything that is missing, a batch per process and round."""
        size, team = self.run.options.batch, self.run.team
        done = self.scratch.done()
        self._count_needs(done)
        self.present = {tile for tile in self.needed_by if self.scratch.has_tile(tile)}
        self.missing = self.needed_by.keys() - self.present
        batches = sorted({tile // size for tile in self.missing})
        if self.run.job.order is not None:
            batches = [batches[position] for position in self.run.job.order(len(batches))]
        team.any(False)  # nobody writes before all have looked
        finished = self._pixels(done)
        if team.rank == 0:
            finished += self._blend_ready(done, self.present)
        for first in range(0, len(batches), team.count):
            if team.any(self._too_large(batches[first + team.rank : first + team.rank + 1])):
                raise _TileTooLargeError
            if team.rank == 0:
                restored = {tile for batch in batches[first : first + team.count] for tile in self._members(batch)} & self.missing
                finished += self._blend_ready(done, restored)
                progress(finished, self.grid.size[0] * self.grid.size[1])

    def _members(self, batch: int) -> range:
        """Return the tiles of a batch: always the same ones, so that a resumed run restores them in the same company."""
        size = self.run.options.batch
        return range(batch * size, min((batch + 1) * size, self.grid.tiles))

    def _too_large(self, batches: Sequence[int]) -> bool:
        """Restore the given batches; return True if the memory was too small."""
        for batch in batches:
            while True:
                try:
                    self._restore_batch(self._members(batch))
                    break
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                if self.run.job.device.type == "cuda":
                    torch.cuda.empty_cache()
                if self.run.together == 1:
                    return True
                self.run.together //= 2
        return False

    def _count_needs(self, done: NDArray[np.bool_]) -> None:
        """Note which unfinished blocks need each tile."""
        for block in np.flatnonzero(~done).tolist():
            for tile in self.grid.tiles_of(block):
                self.needed_by.setdefault(tile, []).append(block)

    def _pixels(self, blocks: NDArray[np.bool_]) -> int:
        return sum(height * width for _, _, height, width in (self.grid.extent(block) for block in np.flatnonzero(blocks).tolist()))

    def _restore_batch(self, tiles: Sequence[int]) -> None:
        """Restore tiles together and store the missing ones; those without a valid pixel are stored as empty."""
        inputs = {tile: self._tile_input(tile) for tile in tiles}
        for tile in tiles:
            if not inputs[tile][1] and tile in self.missing:
                self.scratch.write_tile(tile, None)
        kept = [tile for tile in tiles if inputs[tile][1]]
        for first in range(0, len(kept), self.run.together):
            chosen = kept[first : first + self.run.together]
            images = torch.from_numpy(np.stack([inputs[tile][0] for tile in chosen]))
            samples = [self.tiles.restored(chosen, images, sample) for sample in range(self.run.options.samples)]
            for position, tile in enumerate(chosen):
                if tile in self.missing:
                    self.scratch.write_tile(tile, np.stack([sample[position] for sample in samples]))

    def _tile_input(self, tile: int) -> tuple[Restored, bool]:
        row, column = self.grid.place(tile)
        rows, columns = self.grid.rows, self.grid.columns
        return self.run.scene.window(rows.start(row), columns.start(column), rows.tile, columns.tile)

    def _blend_ready(self, done: NDArray[np.bool_], restored: Collection[int]) -> int:
        """Finish every block that the tiles just restored complete, drop tiles that are not needed any more, return the pixels finished."""
        pixels = 0
        self.present |= set(restored)
        for block in sorted({block for tile in restored for block in self.needed_by[tile]}):
            tiles = self.grid.tiles_of(block)
            if not self.present.issuperset(tiles):
                continue
            self.scratch.write_block(block, self.blocks.finished(block, partial(self._read_tiles, tiles)))
            done[block] = True
            _, _, height, width = self.grid.extent(block)
            pixels += height * width
            for tile in tiles:
                self.needed_by[tile].remove(block)
                if not self.needed_by[tile]:
                    self.scratch.drop_tile(tile)
        return pixels

    def _read_tiles(self, tiles: Sequence[int]) -> list[Restored]:
        shape = (self.run.options.samples, self.run.bands, self.grid.rows.target_tile, self.grid.columns.target_tile)
        return [self.scratch.read_tile(tile, shape) for tile in tiles]

    def write(self, outputs: dict[str, Path]) -> float:
        """Write the rasters from the finished blocks and return the seam score of the first."""
        run = self.run
        score = SeamScore(self.grid.rows.borders(), self.grid.columns.borders(), self.run.scale.numerator)
        for name, path in outputs.items():
            form = run.forms[name]
            tags = {
                "RSDIFF_CONTENT": name,
                "RSDIFF_SCALE": str(run.scale),
                "RSDIFF_SEED": str(run.job.seed),
                "RSDIFF_MODEL": run.job.identity,
                **({"RSDIFF_WEIGHTS": run.job.weights} if run.job.weights else {}),
            }
            if name == "interval":
                tags["RSDIFF_LEVEL"] = f"{run.options.level:g}"
            if run.values.use.outside:
                tags["RSDIFF_OUTSIDE"] = run.outside_told()
            writer = SceneWriter(path, run.reader, self.grid, run.scale, form, run.options, tags)
            writer.write(self._blocks(name, form, score if name == "restored" else None))
        return score.value()

    def _blocks(self, name: str, form: OutputForm, score: SeamScore | None) -> Iterator[tuple[int, NDArray[Any]]]:
        shape = (form.stored_bands, BLOCK, BLOCK)
        for block in range(self.grid.blocks):
            image = self.scratch.read_block(name, block, shape, form.dtype)
            if score is not None:
                top, left, height, width = self.grid.extent(block)
                score.add(image[: self.run.written_bands, :height, :width], top, left, form.nodata)
            yield block, image
