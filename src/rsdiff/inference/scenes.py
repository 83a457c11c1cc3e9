"""Restoring whole scenes: tiles that do not show, in memory that does not depend on the scene, continued after a kill.

The scene is cut into overlapping tiles (`tiling`). Tiles are restored in fixed batches, dealt out to the processes in turn, and stored
(`scratch`); the main process blends every block of the output whose tiles are there, stores it, and drops tiles that no block needs any
more. When all blocks are finished the raster is written from them, block by block: the same bytes whoever restored what, and when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
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
from rsdiff.data.normalisation import type_range
from rsdiff.data.opening import local_file, without_warnings
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.source import mask_values
from rsdiff.degradations.resizing import resize
from rsdiff.diffusion.fusion import FusedTileNoise
from rsdiff.diffusion.noise import TileNoise
from rsdiff.inference.compilation import compile_regions
from rsdiff.inference.draws import require_variants, variant
from rsdiff.inference.images import restore, shortened
from rsdiff.inference.memory import LARGEST_TARGET, SHARE, best_tile, free_memory, is_out_of_memory, measured_growth
from rsdiff.inference.scene_input import STRICT, AlignedRaster, NormalisedScene, SceneReader, filled
from rsdiff.inference.scene_job import Progress, SceneJob, SceneResult, Team
from rsdiff.inference.scene_output import BLOCK, OutputForm, SceneWriter, output_form, require_writable_name, sibling, spread_form
from rsdiff.inference.scene_values import scene_values
from rsdiff.inference.scratch import Scratch
from rsdiff.inference.tiling import Axis, Grid, even_side, exact_scale, rounded_up, tile_multiple
from rsdiff.metrics.seams import SeamScore

SMALLEST_TILE = 16
"""Input pixels; a scene that is smaller is continued by reflection."""
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
        self.multiple = tile_multiple(job.method.pixel_multiple(), self.scale, job.method.target_multiple())
        self.reader = stack.enter_context(SceneReader(job.input, job.options.view()))
        self.bands = job.problem.bands
        self._require_bands()
        self.values = scene_values(self.reader, self.options, job.trained, self.bands)
        self.normaliser = self.values.normaliser
        self.scene = NormalisedScene(self.reader, self.normaliser)
        self.size = (round(self.reader.height * self.scale), round(self.reader.width * self.scale))
        self.aligned = {name: self._align(name, stack) for name in ("ref", "change_mask") if name in job.needs}
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
        self.code = self._scene_code() if self.options.share_codes else None
        self.is_random = self.options.samples < 2 or self._draws_noise()
        if not self.is_random:
            require_variants(self.options.samples)

    def _require_bands(self) -> None:
        given, needed = len(self.reader.bands), self.job.problem.lr_bands
        if given != needed:
            alpha = "" if self.reader.alpha is None else f" (band {self.reader.alpha} says it is an alpha band)"
            remedy = f"choose them with task.bands, for example task.bands={list(range(1, needed + 1))}"
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

    def _scene_code(self) -> Tensor | None:
        """Return the mean (1, ...) of the method's global estimates over windows spread over the scene, or None."""
        codes = []
        for values, valid in self.reader.samples():
            if not valid.any():
                continue
            image = filled(self.normaliser.scaled(values), valid, self.scene.fill).clip(0, 1)
            side = [rounded_up(max(length, SMALLEST_TILE), self.multiple) for length in image.shape[1:]]
            image = np.pad(image, ((0, 0), (0, side[0] - image.shape[1]), (0, side[1] - image.shape[2])), mode="symmetric")
            lr = torch.from_numpy(image)[None].to(self.job.device)
            target = (int(side[0] * self.scale), int(side[1] * self.scale))
            code = self.job.method.degradation_code(Batch([SampleMeta(self.job.input.stem)], target, (side[0], side[1]), lr=lr))
            if code is None:
                return None
            codes.append(code)
        return torch.stack(codes).mean(0) if codes else None

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
        wanted = self.options.overlap
        return min(rounded_up(wanted, self.multiple), tile // 2 // self.multiple * self.multiple) if wanted else 0

    def first_tile(self) -> int:
        """Return the tile side to begin with: the user's, that of the run that is continued, or what fits into every process's memory."""
        if self.options.tile:
            return max(self.smallest, rounded_up(self.options.tile, self.multiple))
        earlier = Scratch.read_plan(self.job.scratch)
        if earlier and earlier == self.plan(int(earlier.get("tile", 0))):
            return self.team.smallest(int(earlier["tile"]))
        sides = range(self.smallest, max(self.smallest, int(LARGEST_TARGET / self.scale)) + 1, self.multiple)
        needs, works = measured_growth(self._probe, (self.smallest, 2 * self.smallest))
        allowed = SHARE * free_memory(self.job.device) / (self.together * self.options.fuse**2)
        return self.team.smallest(best_tile(sides, allowed, needs, works, self.overlap_of))

    def compile(self) -> None:
        """Compile what restores a tile, where that is wanted; a second scene finds it compiled."""
        if self.options.compile:
            found = compile_regions(self.job.method, self.options.compile, lambda: self._probe(self.smallest), self.job.device)
            if self.team.rank == 0:
                print(f"task.compile={str(self.options.compile).lower()}: {found}", flush=True)

    @property
    def unit(self) -> float | NDArray[np.float64]:
        """Stored values that make up [0, 1], common or per band (C, 1, 1)."""
        span = np.subtract(self.normaliser.high, self.normaliser.low)
        return float(span.mean()) if len(span) == 1 or self.reader.is_repeated else span[:, None, None]

    def _draws_noise(self) -> bool:
        """Say whether two restorations of one tile differ."""
        first, second = (self._probe(self.smallest, ("probe", number), 0.5) for number in range(2))
        return not torch.equal(first, second)

    def _probe(self, side: int, key: tuple[int | str, ...] = ("probe",), value: float = 0.0) -> Tensor:
        """Restore one tile of a value, in as few steps as a sampler can take."""
        short = shortened(self.job.sampler)
        size = int(side * self.scale)
        images = {"lr": torch.full((1, self.job.problem.lr_bands, side, side), value, device=self.job.device)}
        for name in self.aligned:
            images[name] = torch.zeros(1, self.bands if name == "ref" else 1, size, size, device=self.job.device)
        batch = Batch([SampleMeta("probe")], (size, size), (side, side), code=self.code, **images)  # type: ignore[arg-type]
        with torch.no_grad():
            return restore(self.job.method, batch, short, TileNoise(key, [(0, 0)], (size, size)), self.options.precision)

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
            "overlap": self.options.overlap,
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
            samples = [self._restore(chosen, images, sample) for sample in range(self.run.options.samples)]
            for position, tile in enumerate(chosen):
                if tile in self.missing:
                    self.scratch.write_tile(tile, np.stack([sample[position] for sample in samples]))

    def _tile_input(self, tile: int) -> tuple[Restored, bool]:
        row, column = self.grid.place(tile)
        rows, columns = self.grid.rows, self.grid.columns
        return self.run.scene.window(rows.start(row), columns.start(column), rows.tile, columns.tile)

    def _restore(self, tiles: Sequence[int], images: Tensor, sample: int) -> Restored:
        """Return restored tiles (n, C, H, W); a fused group of tiles is restored as that many and blended."""
        job, rows, columns = self.run.job, self.rows, self.columns
        images, outside = split_at_range(images)
        inside = [(row, column) for row in range(rows.count) for column in range(columns.count)]
        places = [self.grid.place(tile) for tile in tiles]
        origins = [
            (self.grid.rows.target_start(r) + rows.target_start(i), self.grid.columns.target_start(c) + columns.target_start(j))
            for r, c in places
            for i, j in inside
        ]
        parts = [
            image[:, rows.start(i) : rows.start(i) + rows.tile, columns.start(j) : columns.start(j) + columns.tile]
            for image in images
            for i, j in inside
        ]
        size = (rows.target_tile, columns.target_tile)
        batch = Batch([SampleMeta(job.input.stem)] * len(parts), size, (rows.tile, columns.tile), lr=torch.stack(parts))
        batch = replace(batch, **self._aligned_windows(origins, size))  # type: ignore[arg-type]
        if self.run.code is not None:
            batch = replace(batch, code=self.run.code.expand(len(parts), *self.run.code.shape[1:]))
        key = (job.seed, "restore", job.input.stem, sample)
        # Noise belongs to a place in the file: a window of a scene gets what the whole scene has there.
        first = int(self.run.reader.top * self.run.scale), int(self.run.reader.left * self.run.scale)
        origins = [(row + first[0], column + first[1]) for row, column in origins]
        noise = TileNoise(key, origins, size)
        if len(inside) > 1:
            noise = FusedTileNoise(key, origins, size, len(inside), int(rows.overlap * rows.scale))
        with torch.no_grad():
            work, precision = batch.to(job.device), self.run.options.precision
            if self.run.options.channels_last:
                work = work.with_memory_format(torch.channels_last)
            if self.run.is_random:
                made = restore(job.method, work, job.sampler, noise, precision)
            else:
                made = variant(work, sample, lambda turned: restore(job.method, turned, job.sampler, noise, precision))
            restored = made.cpu().numpy()
        if len(inside) > 1:
            group = Grid(rows, columns, max(rows.target_length, columns.target_length))
            groups = restored.reshape(len(tiles), len(inside), *restored.shape[1:])
            restored = np.stack([group.blend(0, list(members)) for members in groups])
        return restored if outside is None or outside.shape[1] != restored.shape[1] else restored + enlarged(outside, restored.shape[-2:])

    def _aligned_windows(self, origins: Sequence[tuple[int, int]], size: tuple[int, int]) -> dict[str, Tensor]:
        """Return reference and change mask of the tiles, each (n, C, H, W)."""
        windows: dict[str, Tensor] = {}
        for name, raster in self.run.aligned.items():
            parts = [raster.window(*origin, *size) for origin in origins]
            if name == "ref":
                parts_in_range = [self._reference(raster, values, valid) for values, valid in parts]
            else:
                parts_in_range = [np.where(valid, mask_values(values), np.float32(0)) for values, valid in parts]
            windows[name] = torch.from_numpy(np.stack(parts_in_range))
        return windows

    def _reference(self, raster: AlignedRaster, values: NDArray[Any], valid: NDArray[np.bool_]) -> Restored:
        normaliser = type_range(raster.dtype) if self.run.options.scaling == "dtype" else self.run.normaliser
        fill = self.run.scene.fill if len(self.run.scene.fill) == len(values) else np.full(len(values), 0.5, np.float32)
        image = normaliser.normalise(values)
        return image if valid.all() else filled(image, valid, fill)

    def _blend_ready(self, done: NDArray[np.bool_], restored: Collection[int]) -> int:
        """Finish every block that the tiles just restored complete, drop tiles that are not needed any more, return the pixels finished."""
        pixels = 0
        self.present |= set(restored)
        for block in sorted({block for tile in restored for block in self.needed_by[tile]}):
            tiles = self.grid.tiles_of(block)
            if not self.present.issuperset(tiles):
                continue
            self.scratch.write_block(block, self._finished_block(block, tiles))
            done[block] = True
            _, _, height, width = self.grid.extent(block)
            pixels += height * width
            for tile in tiles:
                self.needed_by[tile].remove(block)
                if not self.needed_by[tile]:
                    self.scratch.drop_tile(tile)
        return pixels

    def _finished_block(self, block: int, tiles: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return the block of every output, in its type, padded to (stored_bands, BLOCK, BLOCK)."""
        run = self.run
        shape = (run.options.samples, run.bands, self.grid.rows.target_tile, self.grid.columns.target_tile)
        blended = self.grid.blend(block, [self.scratch.read_tile(tile, shape) for tile in tiles])
        drawn = np.stack([run.normaliser.restore(sample) for sample in blended])  # (samples, C, h, w) in stored units
        if run.reader.is_repeated:
            drawn = drawn.mean(axis=1, keepdims=True)
        valid, alpha = self._valid(block)
        form = run.forms["restored"]
        values = form.convert(drawn.mean(axis=0), valid)
        if form.has_alpha:
            opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
            own = alpha if run.reader.alpha is not None else valid.all(axis=0, keepdims=True) * opaque
            values = np.concatenate([values, own.astype(values.dtype)])
        if form.has_mask:
            values = np.concatenate([values, valid.all(axis=0, keepdims=True).astype(values.dtype)])
        images = {"restored": _padded(values)}
        if "spread" in run.forms:
            spread = drawn.std(axis=0, ddof=1)
            images["spread"] = _padded(run.forms["spread"].convert(spread, valid))
            if run.job.calibration is not None:
                half = run.reach * run.job.calibration.deviation(spread, run.unit)
                images["interval"] = _padded(run.forms["interval"].convert(half, valid))
        return images

    def _valid(self, block: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Return which pixels (C, h, w) of a block are valid, and its alpha band (1, h, w), if any: those of the input pixel."""
        reader, scale = self.run.reader, self.run.scale
        top, left, height, width = self.grid.extent(block)
        rows, columns = _sources(top, height, scale, reader.height), _sources(left, width, scale, reader.width)
        window = (int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
        where = np.ix_(rows - rows[0], columns - columns[0])
        bands = self.run.written_bands
        valid: NDArray[np.bool_] = np.ones((bands, height, width), np.bool_)
        if reader.marks_missing:
            of_input: NDArray[np.bool_] = reader.read(*window)[1]
            if len(of_input) != bands:
                of_input = np.asarray(of_input.all(axis=0, keepdims=True))
            np.logical_and(valid, np.stack([band[where] for band in of_input]), out=valid)
        alpha = reader.alpha_values(*window)[0][where][None] if reader.alpha is not None else np.empty((0, height, width))
        return valid, alpha

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


def split_at_range(images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return images limited to [0, 1], and what they lack then: the part outside, which no network sees, or None where there is none."""
    inside = images.clamp(0, 1)
    outside = images - inside
    return inside, outside if bool(outside.any()) else None


def enlarged(outside: Tensor, size: Sequence[int]) -> Restored:
    """Return what lies outside the range at the target's `size`, by bicubic: added to a restoration, it gives the values back."""
    return resize(outside, (size[0], size[1]), "matlab").numpy()


def _sources(first: int, count: int, scale: Fraction, length: int) -> NDArray[np.int64]:
    """Return the input pixel under the centre of each of `count` target pixels from `first` on."""
    positions = ((2 * np.arange(first, first + count) + 1) * scale.denominator) // (2 * scale.numerator)
    return np.minimum(positions, length - 1)


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    """Return a block (C, h, w) at its full size."""
    return np.pad(values, ((0, 0), (0, BLOCK - values.shape[1]), (0, BLOCK - values.shape[2])))
