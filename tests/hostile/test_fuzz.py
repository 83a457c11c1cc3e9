"""One fuzz target per reader: valid files with bytes changed, cut or repeated are read or refused in one sentence.

RSDIFF_FUZZ_EXAMPLES files per reader (default: a few, for CI; `make test-faults` takes many). Each runs in a child of its own with a limit
of time and memory, because a reader in C would take the tests down with it.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from rsdiff.foreign import read_checkpoint
from rsdiff.runs.status import read_status
from rsdiff.tasks.prepare import prepare
from tests.hostile.corpus import write_tiff
from tests.hostile.sandbox import attempt
from tests.hostile.test_corpus import image, packed, require_harmless, scene
from tests.unit.test_packed import silent, small_scenes

EXAMPLES = int(os.environ.get("RSDIFF_FUZZ_EXAMPLES", "4"))


def torch_file(zipped: bool) -> bytes:
    stream = io.BytesIO()
    content = {"state_dict": {"w": torch.ones(4, 3), "b": torch.zeros(2, dtype=torch.int64)}, "epoch": 3}
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(stream, form)
    return stream.getvalue()


def written(write: Callable[[Path], object], suffix: str, folder: Path) -> bytes:
    path = folder / f"valid{suffix}"
    write(path)
    return path.read_bytes()


def cube(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", data=np.ones((3, 16, 16), np.uint16), chunks=(3, 8, 8), compression="gzip")


def write_tiles(path: Path) -> None:
    write_tiff(path, tiled=True, blockxsize=16, blockysize=16)


def pack(path: Path) -> None:
    prepare(small_scenes(), path, "stop", silent)


CUBE = np.ones((3, 16, 16), np.uint16)
TARGETS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], Any]]] = {
    "torch zip": (".pt", lambda folder: torch_file(True), read_checkpoint),
    "torch legacy": (".pth", lambda folder: torch_file(False), read_checkpoint),
    "pickle": (".pkl", lambda folder: pickle.dumps({"w": CUBE, "n": [1, 2.5, "x", None]}), read_checkpoint),
    "safetensors": (".safetensors", lambda folder: save({"w": torch.ones(4, 3)}), read_checkpoint),
    "packed data": (".h5", lambda folder: written(pack, ".h5", folder), packed),
    "GeoTIFF": (".tif", lambda folder: written(lambda path: write_tiff(path, compress="deflate"), ".tif", folder), image),
    "scene": (".tif", lambda folder: written(write_tiles, ".tif", folder), scene),
    "PNG": (".png", lambda folder: picture("png"), image),
    "JPEG": (".jpg", lambda folder: picture("jpeg"), image),
    "WebP": (".webp", lambda folder: picture("webp"), image),
    "BMP": (".bmp", lambda folder: picture("bmp"), image),
    "HDF5 cube": (".h5", lambda folder: written(cube, ".h5", folder), image),
    "NumPy": (".npy", lambda folder: written(lambda path: np.save(path, CUBE), ".npy", folder), image),
    "MATLAB": (".mat", lambda folder: written(lambda path: scipy.io.savemat(path, {"cube": CUBE}), ".mat", folder), image),
    "status": (".json", lambda folder: b'{"state": "finished", "summary": {"psnr": 30.1}}', lambda path: read_status(path.parent)),
}
CHANGE = st.tuples(st.sampled_from(["set", "cut", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=8))
CHANGES = st.lists(CHANGE, min_size=1, max_size=6)


def changed(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Return `content` with each change made at a relative place: bytes set, all behind it cut, or what is behind it repeated."""
    for kind, share, value in changes:
        place = int(share * len(content))
        match kind:
            case "set":
                content = content[:place] + value + content[place + len(value) :]
            case "cut":
                content = content[:place]
            case "repeat":
                content = content[:place] + content[place : place + 64 * len(value)] * 2 + content[place:]
    return content


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(target: str, tmp_path: Path) -> None:
    suffix, make, read = TARGETS[target]
    valid = make(tmp_path)
    path = tmp_path / ("status.json" if suffix == ".json" else f"damaged{suffix}")

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(CHANGES)
    @example([])
    def check(changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(changed(valid, changes))
        outcome = attempt(read, path)
        require_harmless(outcome, path, tmp_path / "trap")
        assert changes or outcome.kind == "read", outcome  # a target that refuses everything would find nothing

    check()
