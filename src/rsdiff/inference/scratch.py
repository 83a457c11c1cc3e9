"""What a scene leaves on the disk while it is restored: tiles until they are blended, and the finished blocks. Survives a kill.

plan.json    tile sizes and what else must be the same for the files to be used again
tiles/<n>    restored tile n, (samples, C, H, W) float32 in npy format, or an empty file for a tile without any valid pixel
<name>.raw   finished blocks one after the other, each (C, block, block) in the type of the output
done         one byte per block, 1 when it is complete in every raw file
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """The scratch folder of one scene.

    plan  if the folder was made for another plan, its content is deleted by `open`
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], blocks: int) -> None:
        self.folder = folder
        self.plan = dict(plan)
        self.blocks = blocks

    @staticmethod
    def read_plan(folder: Path) -> dict[str, Any]:
        """Return the plan that `folder` was made for, or an empty one."""
        try:
            plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        except (OSError, ValueError):
            return {}
        return plan

    def open(self) -> None:
        """Make the folder ready; call it on one process before the others use it."""
        if self.read_plan(self.folder) != self.plan:
            self.remove()
            (self.folder / "tiles").mkdir(parents=True)
            temporary = self.folder / "plan.json.partial"
            temporary.write_text(json.dumps(self.plan))
            temporary.rename(self.folder / "plan.json")
        for leftover in (self.folder / "tiles").glob("*.partial"):
            leftover.unlink()

    def remove(self) -> None:
        """Delete the folder, its plan first: a kill in between leaves no plan whose files are gone."""
        try:
            (self.folder / "plan.json").unlink(missing_ok=True)
        except OSError:  # a disk that lets nothing be deleted: then all of it stays, and stays usable
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def tile_path(self, tile: int) -> Path:
        return self.folder / "tiles" / f"{tile:08d}"

    def has_tile(self, tile: int) -> bool:
        """Say whether the tile was restored."""
        return self.tile_path(tile).exists()

    def write_tile(self, tile: int, image: NDArray[np.float32] | None) -> None:
        """Store a restored tile, whole or not at all; None for one without any valid pixel."""
        temporary = self.tile_path(tile).with_suffix(".partial")
        with temporary.open("wb") as file:
            if image is not None:
                np.save(file, image)
        temporary.rename(self.tile_path(tile))

    def read_tile(self, tile: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a tile; zeros of `shape` for one without any valid pixel."""
        path = self.tile_path(tile)
        if path.stat().st_size == 0:
            return np.zeros(shape, np.float32)
        image: NDArray[np.float32] = np.load(path)
        return image

    def drop_tile(self, tile: int) -> None:
        """Delete a tile that no block needs any more."""
        self.tile_path(tile).unlink(missing_ok=True)

    def done(self) -> NDArray[np.bool_]:
        """Return which blocks are finished."""
        path = self.folder / "done"
        flags = np.zeros(self.blocks, np.bool_)
        if path.exists():
            stored = np.frombuffer(path.read_bytes(), np.uint8)
            flags[: len(stored)] = stored > 0
        return flags

    def write_block(self, block: int, images: Mapping[str, NDArray[Any]]) -> None:
        """Store a finished block of every output (all of one shape per name), flushed before it is marked as done."""
        for name, image in images.items():
            with _open_for_update(self.folder / f"{name}.raw") as file:
                file.seek(block * image.nbytes)
                file.write(np.ascontiguousarray(image).data)
                file.flush()
                os.fdatasync(file.fileno())
        with _open_for_update(self.folder / "done") as file:
            file.seek(block)
            file.write(b"\1")

    def read_block(self, name: str, block: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a finished block."""
        size = int(np.prod(shape)) * dtype.itemsize
        with (self.folder / f"{name}.raw").open("rb") as file:
            file.seek(block * size)
            return np.frombuffer(file.read(size), dtype).reshape(shape)


def _open_for_update(path: Path) -> Any:
    """Open a binary file for writing at any place, keeping what it holds."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
