"""A whole scene, file to file: ours, a stand-in of RealESRGANer's tiling, and the network alone, with the same weights and tiles.

Ours and the network alone keep freed memory, as every run of rsdiff does; the stand-in has glibc as it is.

The stand-in is written from its description: the scene in memory, tiles that do not overlap, each given `PAD` pixels of its surroundings to
the network and cut to its own part of the result, no blending; everything is rounded to 8 bits and written as PNG.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsdiff.inference.speed import EXACT, Arithmetic
from rsdiff.methods.base import Method, Problem
from rsdiff.training.allocation import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory
from tests.benchmarks.ratios import Table
from tests.runs.pairs import fresh
from tests.scene_methods import SCALE, job, landscape, pixels, restored

SIDE, TILE, PAD = 256, 136, 10
"""Pixels of the scene and of a tile, and those around a tile that the stand-in shows the network."""
ADAPTED = 32 * 2**20
"""Bytes beyond which glibc maps a buffer once it has adapted itself to large ones (DEFAULT_MMAP_THRESHOLD_MAX)."""


@pytest.fixture(scope="module")
def network() -> Method:
    return fresh("rrdb_tiny", Problem(SCALE, 3, 3)).eval()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    cv2.imwrite(str(path), landscape(3, SIDE, SIDE).transpose(1, 2, 0)[..., ::-1])
    return path


@torch.no_grad()
def by_tiles(method: Method, lr: torch.Tensor) -> torch.Tensor:
    """Return the result (1, C, H, W) for lr (1, C, h, w), tile by tile."""
    h, w = lr.shape[-2:]
    made = torch.empty(1, 3, h * SCALE, w * SCALE)
    for top, left in spots(h, w):
        bottom, right = min(top + TILE, h), min(left + TILE, w)
        first = max(top - PAD, 0), max(left - PAD, 0)
        part = method.network(lr[..., first[0] : min(bottom + PAD, h), first[1] : min(right + PAD, w)])  # type: ignore[operator]
        rows = slice((top - first[0]) * SCALE, (bottom - first[0]) * SCALE)
        columns = slice((left - first[1]) * SCALE, (right - first[1]) * SCALE)
        made[..., top * SCALE : bottom * SCALE, left * SCALE : right * SCALE] = part[..., rows, columns]
    return made


def spots(h: int, w: int) -> Iterator[tuple[int, int]]:
    yield from ((top, left) for top in range(0, h, TILE) for left in range(0, w, TILE))


def file_to_file(method: Method, source: Path, target: Path) -> None:
    values = torch.from_numpy(cv2.imread(str(source))[..., ::-1].transpose(2, 0, 1).copy())[None] / 255
    made = (by_tiles(method, values).clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
    cv2.imwrite(str(target), np.ascontiguousarray(made[..., ::-1]))


@contextmanager
def adapted_allocator() -> Iterator[None]:
    """Allocate as glibc does once it has adapted itself to large buffers, which is all that other programs have."""
    if set_thresholds(ADAPTED):
        try:
            yield
        finally:
            keep_freed_memory()
    else:
        yield


def set_thresholds(size: int) -> bool:
    """Say whether this system has glibc's thresholds, and set them to `size` and twice that."""
    library = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, size) and library.mallopt(M_TRIM_THRESHOLD, 2 * size))


@pytest.fixture
def kept_memory() -> Iterator[None]:
    """Allocate as runs of rsdiff do, see `keep_freed_memory`."""
    keep_freed_memory()
    yield
    set_thresholds(ADAPTED)


@pytest.mark.usefixtures("kept_memory")
@pytest.mark.parametrize("arithmetic", [EXACT, Arithmetic(channels_last=True)], ids=["exact", "channels_last"])
def test_a_scene_beside_other_tiling_and_the_network_alone(
    table: Table, network: Method, scene: Path, tmp_path: Path, arithmetic: Arithmetic
) -> None:
    theirs = tmp_path / "theirs.png"
    options = {"tile": TILE, "overlap": 16, "preview": False, "format": "png", "channels_last": arithmetic.channels_last}
    work = job(tmp_path, scene, network, name="ours.png", **options)
    layout = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
    lr = torch.rand(1, 3, SIDE, SIDE)

    def ours() -> None:
        arithmetic.prepare(network)
        restored(work)

    def stand_in() -> None:
        EXACT.prepare(network)
        with adapted_allocator():
            file_to_file(network, scene, theirs)

    @torch.no_grad()
    def alone() -> None:
        EXACT.prepare(network)
        network.network(lr)  # type: ignore[operator]

    @torch.no_grad()
    def same_tiles() -> None:
        arithmetic.prepare(network)
        for top, left in spots(SIDE, SIDE):
            top, left = min(top, SIDE - TILE), min(left, SIDE - TILE)
            network.network(lr[..., top : top + TILE, left : left + TILE].contiguous(memory_format=layout))  # type: ignore[operator]

    ours()
    stand_in()
    inside = slice(TILE * SCALE // 4, TILE * SCALE // 2)  # away from the scene's edge and the tiles' borders
    away = int(difference(work.output, theirs)[:, inside, inside].max())
    assert away <= 1
    what = f"scene {SIDE} to {SIDE * SCALE}, tiles of {TILE}, {'channels_last' if arithmetic.channels_last else 'exact'}"
    table.compare(what, "a stand-in of RealESRGANer", ours, stand_in, f"{away} of 255", pairs=3)
    table.compare(what, "the network on the whole scene in memory, exact", ours, alone, pairs=3)
    table.compare("..., the network on the same tiles in memory", "a stand-in of RealESRGANer", same_tiles, stand_in, pairs=3)
    EXACT.prepare(network)


def difference(first: Path, second: Path) -> NDArray[np.int64]:
    """Return |first - second| of two pictures (C, H, W)."""
    return np.abs(pixels(first).astype(int) - pixels(second).astype(int))
