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

from rsdiff.data.opening import without_warnings
from rsdiff.data.packed import PackedSource
from rsdiff.data.plausible import LARGEST_RATIO, SMALL_BYTES
from rsdiff.data.rasters import bad_bands, raster_info, read_raster
from rsdiff.foreign import read_checkpoint
from rsdiff.inference.scene_input import SceneReader
from rsdiff.runs.status import read_status
from rsdiff.training.checkpoints import read_checkpoint as read_own_checkpoint
from tests.hostile.corpus import IMAGES, JSONS, PACKED, SECRET, WEIGHTS, YAMLS, Maker
from tests.hostile.sandbox import Outcome, attempt, attempt_all

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


def require_harmless(outcome: Outcome, path: Path, trap: Path) -> None:
    """Fail unless a file was read or refused in one sentence, in time and in bounded memory, and executed nothing."""
    stored = path.stat().st_size
    assert not trap.exists(), (path.name, "the file executed something")
    assert outcome.kind in ("read", "refused"), (path.name, outcome)
    assert outcome.seconds < SECONDS, (path.name, outcome)
    assert outcome.grown_mib * 2**20 < 3 * max(SMALL_BYTES, LARGEST_RATIO * stored), (path.name, outcome)
    if outcome.kind == "refused":
        assert "\n" not in outcome.message, (path.name, outcome)
        assert outcome.message.endswith("."), (path.name, outcome)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A trap that must not be sprung, and a secret (text, and the same as HDF5) that must not be read."""
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["cube"] = np.frombuffer(SECRET[:768], np.uint8).reshape(3, 16, 16)
    return tmp_path / "trap", secret


@pytest.mark.parametrize("reader", READERS)
def test_hostile_files_are_read_or_refused_in_one_sentence(reader: str, places: tuple[Path, Path], tmp_path: Path) -> None:
    makers, read = READERS[reader]
    paths = [tmp_path / str(number) / name for number, name in enumerate(makers)]
    for path in paths:
        path.parent.mkdir()
        makers[path.name](path, *places)
    outcomes = attempt_all(read, paths, SECONDS)
    for path, outcome in zip(paths, outcomes, strict=True):
        require_harmless(outcome, path, places[0])
    refused = sum(outcome.kind == "refused" for outcome in outcomes)
    slowest, largest = max(outcome.seconds for outcome in outcomes), max(outcome.grown_mib for outcome in outcomes)
    print(f"{reader}: {len(paths)} files, {refused} refused, {len(paths) - refused} read; at most {slowest:.1f} s, {largest:.0f} MiB")
    assert 2 * refused > len(paths)


def test_hostile_json_and_states_beside_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    cards, statuses, states = [], [], []
    for number, content in enumerate(JSONS.values()):
        cards.append(checkpoint_folder(tmp_path / f"card{number}") / "card.json")
        cards[-1].write_bytes(content)
        statuses.append(tmp_path / f"status{number}" / "status.json")
        statuses[-1].parent.mkdir()
        statuses[-1].write_bytes(content)
    for number, name in enumerate(name for name in WEIGHTS if name.endswith((".pt", ".pth"))):
        states.append(checkpoint_folder(tmp_path / f"state{number}") / "training_state.pt")
        WEIGHTS[name](states[-1], tmp_path / "trap", tmp_path)
    outcomes = attempt_all(lambda path: read_own_checkpoint(path.parent), cards)
    assert {outcome.kind for outcome in outcomes} == {"refused"}
    outcomes += attempt_all(lambda path: read_status(path.parent), statuses)
    outcomes += attempt_all(lambda path: read_own_checkpoint(path.parent, with_training_state=True), states)
    for path, outcome in zip([*cards, *statuses, *states], outcomes, strict=True):
        require_harmless(outcome, path, tmp_path / "trap")


def checkpoint_folder(folder: Path) -> Path:
    """A checkpoint of no model in particular."""
    folder.mkdir()
    save_file({"w": torch.ones(1)}, folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps({"format": 1, "config": {}, "problem": {}}))
    return folder


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_makes_no_objects(name: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(YAMLS[name].replace("TRAP", str(tmp_path / "trap")))
    attempt(lambda path: OmegaConf.to_container(OmegaConf.load(path), resolve=True), path)
    assert not (tmp_path / "trap").exists()


def test_the_corpus_is_as_large_as_the_documentation_says() -> None:
    count = sum(len(makers) for makers, _ in READERS.values()) + 2 * len(JSONS) + len(YAMLS)
    count += sum(name.endswith((".pt", ".pth")) for name in WEIGHTS)
    files = len({*WEIGHTS, *PACKED, *IMAGES}) + len(JSONS) + len(YAMLS)
    stated = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    assert f"{files} files" in stated
    assert f"{count} attempts" in stated
