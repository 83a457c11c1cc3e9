"""Restoring the tiles of a scene in rounds, a batch per process, with all reading, storing and blending in a thread of its own.

While a batch is restored, the thread stores and blends what was restored before it and reads what comes after it: at any time one batch
that was read ahead and one chunk of tiles that is not stored yet lie in memory beside those being restored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from rsdiff.inference.file_thread import FileThread
from rsdiff.inference.memory import is_out_of_memory
from rsdiff.inference.scene_blocks import BlockMaker
from rsdiff.inference.scene_job import Progress, SceneJob, Team
from rsdiff.inference.scene_tiles import Restored, TileInput, TileRestorer
from rsdiff.inference.scratch import Scratch
from rsdiff.inference.tiling import Grid

Inputs = Mapping[int, TileInput | None]
"""What was read, by tile; None for tiles without a valid pixel."""


class TileTooLargeError(Exception):
    """A tile did not fit into the memory of one of the processes."""


@dataclass
class Rounds:
    """The tiles and blocks of a scene that is restored in tiles of one size.

    bands     of the restored tiles
    together  tiles that a method is shown at once; halved where the memory is too small for them
    """

    job: SceneJob
    team: Team
    grid: Grid
    scratch: Scratch
    blocks: BlockMaker
    tiles: TileRestorer
    bands: int
    together: int
    needed_by: dict[int, list[int]] = field(default_factory=dict, init=False)
    present: set[int] = field(default_factory=set, init=False)
    missing: set[int] = field(default_factory=set, init=False)
    storing: Future[None] | None = field(default=None, init=False)

    def restore(self, progress: Progress) -> None:
        """Restore and blend everything that is missing; raises TileTooLargeError."""
        size, team = self.job.options.batch, self.team
        done = self.scratch.done()
        self._count_needs(done)
        self.present = {tile for tile in self.needed_by if self.scratch.has_tile(tile)}
        self.missing = self.needed_by.keys() - self.present
        batches = sorted({tile // size for tile in self.missing})
        if self.job.order is not None:
            batches = [batches[position] for position in self.job.order(len(batches))]
        team.any(False)  # nobody writes before all have looked
        finished = self._pixels(done)
        if team.rank == 0:
            finished += self._blend_ready(done, self.present)
        rounds = [batches[first : first + team.count] for first in range(0, len(batches), team.count)]
        with FileThread() as files:
            self._restore_rounds(rounds, files, done, finished, progress)

    def _restore_rounds(
        self, rounds: Sequence[Sequence[int]], files: FileThread, done: NDArray[np.bool_], finished: int, progress: Progress
    ) -> None:
        total, blending = self.grid.size[0] * self.grid.size[1], None
        mine = [[self._members(batch) for batch in batches[self.team.rank : self.team.rank + 1]] for batches in rounds]
        ahead = self._read_ahead(files, mine[0]) if mine else []
        for number, batches in enumerate(rounds):
            inputs, ahead = ahead, self._read_ahead(files, mine[number + 1]) if number + 1 < len(mine) else []
            if self.team.any(self._too_large(mine[number], inputs, files)):
                raise TileTooLargeError
            if self.team.rank > 0:
                continue
            if blending is not None:
                finished += blending.result()
                progress(finished, total)
            restored = {tile for batch in batches for tile in self._members(batch)} & self.missing
            blending = files.begin(partial(self._blend_ready, done, restored))
        self._wait_for_stored()
        if blending is not None:
            progress(finished + blending.result(), total)

    def _members(self, batch: int) -> range:
        """Return the tiles of a batch: always the same ones, so that a resumed run restores them in the same company."""
        size = self.job.options.batch
        return range(batch * size, min((batch + 1) * size, self.grid.tiles))

    def _read_ahead(self, files: FileThread, batches: Sequence[Sequence[int]]) -> list[Future[Inputs]]:
        return [files.begin(partial(self._read, tiles)) for tiles in batches]

    def _read(self, tiles: Sequence[int]) -> Inputs:
        return {tile: self.tiles.read(tile) for tile in tiles}

    def _too_large(self, batches: Sequence[Sequence[int]], inputs: Sequence[Future[Inputs]], files: FileThread) -> bool:
        """Restore the given batches; return True if the memory was too small."""
        for tiles, read in zip(batches, inputs, strict=True):
            while True:
                try:
                    self._restore_batch(tiles, read.result(), files)
                    break
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                if self.job.device.type == "cuda":
                    torch.cuda.empty_cache()
                if self.together == 1:
                    return True
                self.together //= 2
        if self.team.count > 1:
            self._wait_for_stored()  # the first process blends the tiles of all as soon as all have said so
        return False

    def _restore_batch(self, tiles: Sequence[int], inputs: Inputs, files: FileThread) -> None:
        """Restore tiles together and have the missing ones stored; those without a valid pixel are stored as empty."""
        kept = {tile: one for tile in tiles if (one := inputs[tile]) is not None}
        self._store(files, {tile: () for tile in tiles if tile not in kept})
        for first in range(0, len(kept), self.together):
            chosen = list(kept)[first : first + self.together]
            shown = [kept[tile] for tile in chosen]
            samples = [self.tiles.restored(chosen, shown, sample) for sample in range(self.job.options.samples)]
            self._store(files, {tile: [sample[position] for sample in samples] for position, tile in enumerate(chosen)})

    def _store(self, files: FileThread, images: Mapping[int, Sequence[Restored]]) -> None:
        """Have the samples of missing tiles stored, none of an empty tile; what was to be stored before is stored when this returns."""
        self._wait_for_stored()
        self.storing = files.begin(partial(self._write_tiles, {tile: images[tile] for tile in images if tile in self.missing}))

    def _wait_for_stored(self) -> None:
        if self.storing is not None:
            self.storing.result()

    def _write_tiles(self, images: Mapping[int, Sequence[Restored]]) -> None:
        for tile, samples in images.items():
            self.scratch.write_tile(tile, np.stack(samples) if samples else None)

    def _count_needs(self, done: NDArray[np.bool_]) -> None:
        """Note which unfinished blocks need each tile."""
        for block in np.flatnonzero(~done).tolist():
            for tile in self.grid.tiles_of(block):
                self.needed_by.setdefault(tile, []).append(block)

    def _pixels(self, blocks: NDArray[np.bool_]) -> int:
        return sum(height * width for _, _, height, width in (self.grid.extent(block) for block in np.flatnonzero(blocks).tolist()))

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
        shape = (self.job.options.samples, self.bands, self.grid.rows.target_tile, self.grid.columns.target_tile)
        return [self.scratch.read_tile(tile, shape) for tile in tiles]
