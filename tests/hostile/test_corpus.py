"""Every file of the corpus against every reader it can reach: nothing executes, nothing leaks, nothing hangs, memory stays bounded.

The bound: what a reader takes beyond the process's own memory stays below three times the larger of 256 MiB and 4096 times the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from rsdiff.data.packed import PackedSource
from rsdiff.data.plausible import LARGEST_RATIO, SMALL_BYTES
from rsdiff.data.rasters import bad_bands, raster_info, read_raster, without_warnings
from rsdiff.inference.scene_input import SceneReader
from rsdiff.tasks.run_folder import read_status
from rsdiff.training.checkpoints import read_checkpoint as read_own_checkpoint
from rsdiff.weights import read_checkpoint
from tests.hostile.corpus import IMAGES, JSONS, PACKED, SECRET, WEIGHTS, YAMLS, Maker
from tests.hostile.sandbox import Outcome, attempt

SECONDS = 20


def image(path: Path) -> None:
    with without_warnings():
        raster_info(path)
        bad_bands(path)
        values = read_raster(path).values
    assert SECRET[:16] not in values.tobytes(), "the file made the reader show another one"


def scene(path: Path) -> None:
    with without_warnings(), SceneReader(path) as reader:
        values, _ = reader.read(0, 0, min(64, reader.height), min(64, reader.width))
        reader.thumbnail(0, 0, reader.height, reader.width, (16, 16))
    assert SECRET[:16] not in values.tobytes(), "the file made the reader show another one"


def packed(path: Path) -> None:
    PackedSource(path, "train", 4.0).read(0)


READERS: dict[str, tuple[dict[str, Maker], Callable[[Path], Any]]] = {
    "import": (WEIGHTS, read_checkpoint),
    "packed": (PACKED | {name: maker for name, maker in IMAGES.items() if name.endswith(".h5")}, packed),
    "folder": (IMAGES | PACKED, image),
    "restore": (IMAGES | PACKED, scene),
}
CASES = [(reader, name) for reader, (makers, _) in READERS.items() for name in makers]


def require_harmless(outcome: Outcome, trap: Path, stored: int) -> None:
    """Fail unless a file was read or refused in one sentence, in time and in bounded memory, and executed nothing."""
    assert not trap.exists(), "the file executed something"
    assert outcome.kind in ("read", "refused"), outcome
    assert outcome.seconds < SECONDS, outcome
    assert outcome.grown_mib * 2**20 < 3 * max(SMALL_BYTES, LARGEST_RATIO * stored), outcome
    if outcome.kind == "refused":
        assert "\n" not in outcome.message
        assert outcome.message.endswith("."), outcome


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A trap that must not be sprung, and a secret (text, and the same as HDF5) that must not be read."""
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["cube"] = np.frombuffer(SECRET[:768], np.uint8).reshape(3, 16, 16)
    return tmp_path / "trap", secret


@pytest.mark.parametrize(("reader", "name"), CASES)
def test_a_hostile_file_is_read_or_refused_in_one_sentence(reader: str, name: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    makers, read = READERS[reader]
    folder = tmp_path / "given"
    folder.mkdir()
    path = folder / name
    makers[name](path, *places)
    require_harmless(attempt(lambda: read(path), SECONDS), places[0], path.stat().st_size)


@pytest.mark.parametrize("name", JSONS)
def test_hostile_json_beside_weights_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "step_00000001"
    folder.mkdir()
    save_file({"w": torch.ones(1)}, folder / "weights.safetensors")
    (folder / "card.json").write_bytes(JSONS[name])
    outcome = attempt(lambda: read_own_checkpoint(folder))
    require_harmless(outcome, tmp_path / "trap", len(JSONS[name]))
    assert outcome.kind == "refused"
    (tmp_path / "status.json").write_bytes(JSONS[name])
    require_harmless(attempt(lambda: read_status(tmp_path)), tmp_path / "trap", len(JSONS[name]))


def test_a_hostile_training_state_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "step_00000001"
    folder.mkdir()
    save_file({"w": torch.ones(1)}, folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps({"format": 1, "config": {}, "problem": {}}))
    for name in [name for name in WEIGHTS if name.endswith((".pt", ".pth"))]:
        WEIGHTS[name](folder / "training_state.pt", tmp_path / "trap", tmp_path)
        outcome = attempt(lambda: read_own_checkpoint(folder, with_training_state=True))
        require_harmless(outcome, tmp_path / "trap", (folder / "training_state.pt").stat().st_size)


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_makes_no_objects(name: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(YAMLS[name].replace("TRAP", str(tmp_path / "trap")))
    attempt(lambda: OmegaConf.to_container(OmegaConf.load(path), resolve=True))
    assert not (tmp_path / "trap").exists()


def test_the_corpus_is_as_large_as_the_documentation_says() -> None:
    count = len(CASES) + 2 * len(JSONS) + len(YAMLS) + sum(name.endswith((".pt", ".pth")) for name in WEIGHTS)
    files = len({*WEIGHTS, *PACKED, *IMAGES}) + len(JSONS) + len(YAMLS)
    stated = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    assert f"{files} files" in stated
    assert f"{count} attempts" in stated
