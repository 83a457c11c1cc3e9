"""A kill or a broken disk at any moment, then the same command again: results equal those of an undisturbed run, nothing is left over.

RSDIFF_FAULT_TRIES faults in all (default: a few, for CI); `make test-faults` takes many. A third of them are SIGKILLs by the clock, a third
SIGKILLs right before a file is opened for writing, renamed or deleted, and a third let such an operation and all that follow fail, because
the disk is full or read-only. RSDIFF_FAULT_SEED draws other moments. Every scenario ends by printing its count.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.faults.conftest import Commands
from tests.runs.test_training import SMALL
from tests.scene_methods import landscape, write_raster

TRIES = int(os.environ.get("RSDIFF_FAULT_TRIES", "3"))
SEED = int(os.environ.get("RSDIFF_FAULT_SEED", "0"))

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(7200)]


@dataclass(frozen=True)
class Scenario:
    """A command whose results do not depend on how often it was killed.

    prepare  puts what the command reads into a folder
    """

    arguments: tuple[str, ...]
    prepare: Callable[[Path], None]


def no_input(folder: Path) -> None:
    pass


def raster(folder: Path) -> None:
    (folder / "in").mkdir()
    write_raster(folder / "in" / "a.tif", landscape(3, 60, 70))
    write_raster(folder / "in" / "b.tif", landscape(3, 30, 20))


def images(folder: Path) -> None:
    (folder / "in").mkdir()
    generator = np.random.default_rng(0)
    for k in range(40):
        Image.fromarray(generator.integers(0, 256, (32, 40, 3), np.uint8)).save(folder / "in" / f"{k:02d}.png")


SHORT = [*SMALL[1:4], "dataset.size=32", "trainer.steps=4", "trainer.patch=16", "trainer.save_every_steps=2", "trainer.workers=0"]
ROWS = f"[{{name: Bicubic, model: bicubic}}, {{name: SR3, model: sr3, train: ['model=sr3'], quick: {SHORT}}}]"
"""A table of two rows: one without training, one whose evaluation waits for a training."""
SCENARIOS = {
    "train": Scenario((*SMALL, "trainer.workers=0", "outputs=out"), no_input),
    "restore": Scenario(
        ("task=restore", "model=bicubic", "scale=4", "input=in", "output=made", "task.tile=16", "task.overlap=4", "outputs=out"), raster
    ),
    "prepare": Scenario(("task=prepare", "dataset=folder", "source=in", "output=made/packed.h5", "outputs=out"), images),
    "tables": Scenario(
        (
            "sweeps=tables/diffbsr_ucm",
            "task.table.metrics=standard",
            "task.table.shown=[psnr,ssim]",
            f"task.table.rows={ROWS}",
            "outputs=out",
        ),
        no_input,
    ),
    "train with a loader process": Scenario((*SMALL, "trainer.workers=1", "seed=1", "outputs=out"), no_input),
}
TELLS_OF_ATTEMPTS = frozenset({"provenance.jsonl", "status.json", "run.log"})
"""Files that say when and how often a run was worked on."""
TIMED = frozenset({"records.parquet", "results.md", "report.html", "results.csv", "table.md", "table.html", "table.tex"})
"""Files that hold measured seconds; the same figures are compared in records.csv and table.csv."""
TIMES = ("seconds", "seconds_per_image")


def results(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with what must be equal of its content."""
    found: dict[str, bytes] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name in TELLS_OF_ATTEMPTS | TIMED:
            found[name] = b""
        elif path.name in ("records.csv", "table.csv"):
            with path.open() as stream:
                found[name] = str(
                    [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]
                ).encode()
        elif path.name == "training_state.pt":  # equal tensors have several forms in a pickle
            found[name] = plain(torch.load(path, weights_only=True)).encode()
        elif (path.parent.name == "evaluation" and path.suffix == ".json") or "rows" in path.parts:
            found[name] = b""  # rows as they were made, with their times
        elif path.match("sweeps/*/run_*.json"):
            found[name] = str([json.loads(path.read_text())[key] for key in ("number", "overrides", "folder")]).encode()
        else:
            found[name] = path.read_bytes()
    return found


def plain(state: Any) -> str:
    """Return nested dictionaries and lists of tensors and numbers as a text that is equal exactly when they are."""
    if isinstance(state, torch.Tensor):
        return f"{state.dtype}{tuple(state.shape)}{hashlib.sha256(state.numpy().tobytes()).hexdigest()}"
    if isinstance(state, dict):
        return "{" + ",".join(f"{key}:{plain(value)}" for key, value in sorted(state.items(), key=lambda item: str(item[0]))) + "}"
    return "[" + ",".join(map(plain, state)) + "]" if isinstance(state, list | tuple) else repr(state)


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_moment_and_repeated_equals_undisturbed(name: str, commands: Commands, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    tries = (TRIES + len(SCENARIOS) - 1 - list(SCENARIOS).index(name)) // len(SCENARIOS)
    if not tries:
        pytest.skip(f"RSDIFF_FAULT_TRIES={TRIES} leaves none for this scenario; `make test-faults` has more")
    generator = random.Random(f"{SEED} {name}")
    template, folder = tmp_path / "template", tmp_path / "run"
    template.mkdir()
    scenario.prepare(template)
    shutil.copytree(template, folder)
    undisturbed = commands(*scenario.arguments, folder=folder)
    assert undisturbed.code == 0, undisturbed.said
    expected = results(folder)
    shutil.rmtree(folder)
    kills = 0
    while kills < tries:
        shutil.copytree(template, folder)
        story = []
        while True:
            fault: dict[str, Any] = {}
            if kills < tries and (not story or generator.random() < 0.4):
                moment = generator.randint(1, undisturbed.operations)
                if kills % 3 == 2:
                    fault = {"kill_after_s": generator.uniform(0.2, 1) * undisturbed.seconds}
                elif kills % 3 == 0:
                    fault = {"kill_at_operation": moment}
                else:
                    fault = {"break": {"errno": generator.choice([errno.ENOSPC, errno.EROFS]), "name": "", "at_operation": moment}}
            ended = commands(*scenario.arguments, folder=folder, **fault)
            story.append((fault, ended.code))
            if ended.code == 0:
                break
            if "break" in fault:
                assert ended.code == 1, (story, ended.said)
                assert ended.said.splitlines()[-1].startswith("error: "), (story, ended.said)
                assert any(words in ended.said for words in ("is full", "read-only", "cannot be written")), (story, ended.said)
            else:
                assert ended.code == -9, (story, ended.said)
            kills += 1
        found = results(folder)
        assert sorted(found) == sorted(expected), story
        different = [path for path in expected if found[path] != expected[path]]
        assert not different, (different, story)
        shutil.rmtree(folder)
    print(f"{name}: {kills} faults, 0 lost", flush=True)
