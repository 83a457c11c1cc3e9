"""Several processes of one run: they compute what one computes, continue what any number began, and never wait for the dead."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.faults.conftest import Commands
from tests.runs.test_training import SMALL

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(900)]

ARGUMENTS = [
    *(argument for argument in SMALL if argument != "model.dropout=0.1"),  # each process drops other units
    "dataset.train_images=10",  # no multiple of the batch: an epoch ends in mid-step
    "dataset.test_images=5",  # nor of the processes: some evaluate one image more
    "trainer.validation_images=3",
    "trainer.workers=0",
    "outputs=out",
]


def folder_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def run_folder(folder: Path) -> Path:
    (status,) = folder.glob("out/train/*/*/status.json")
    return status.parent


def figures(folder: Path) -> tuple[list[float], list[str], list[float]]:
    """Return the losses of every step, the names of the evaluated images and their PSNR."""
    run = run_folder(folder)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    with (run / "evaluation" / "records.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    losses = [line["restorer/total"] for line in lines if "restorer/total" in line]
    return losses, [row["name"] for row in rows], [float(row["psnr"]) for row in rows]


def farthest(folder: Path, other: Path) -> float:
    """Return the largest difference between the final weights of two runs."""
    first, second = (load_file(run_folder(place) / "checkpoints/step_00000012/weights.safetensors") for place in (folder, other))
    return max(float((value - second[name]).abs().max()) for name, value in first.items())


@pytest.mark.slow
def test_one_two_and_four_processes_compute_the_same(commands: Commands, tmp_path: Path) -> None:
    reference = folder_of(tmp_path, "1")
    assert commands(*ARGUMENTS, folder=reference).code == 0
    losses, names, psnr = figures(reference)
    assert len(names) == 5
    for count in (2, 4):
        folder = folder_of(tmp_path, str(count))
        ended = commands(*ARGUMENTS, folder=folder, processes=count)
        assert ended.codes == [0] * count, ended.said
        # float32 sums in another order, over 12 steps of Adam
        mine = figures(folder)
        loss = max(abs(a / b - 1) for a, b in zip(mine[0], losses, strict=True))
        decibels = max(abs(a - b) for a, b in zip(mine[2], psnr, strict=True))
        apart = farthest(folder, reference)
        print(f"{count} processes: losses differ by {loss:.1e} (relative), weights by {apart:.1e}, PSNR by {decibels:.1e} dB")
        assert mine[0] == pytest.approx(losses, rel=1e-4)
        assert farthest(folder, reference) < 1e-4
        assert mine[1] == names
        assert mine[2] == pytest.approx(psnr, abs=1e-2)


def test_a_dead_process_ends_the_others_and_any_number_continues(commands: Commands, tmp_path: Path) -> None:
    reference = folder_of(tmp_path, "whole")
    assert commands(*ARGUMENTS, folder=reference).code == 0
    folder = folder_of(tmp_path, "killed")
    fault = {"rank": 1, "step": 7, "do": "signal", "to": "SIGKILL"}
    ended = commands(*ARGUMENTS, folder=folder, processes=2, at_step=fault)
    assert ended.codes == [1, -9], ended.said
    sentence = next(line for line in ended.said.splitlines() if line.startswith("error (rank 0)"))
    assert "another process of this run ended" in sentence
    assert "the same command" in sentence
    assert ended.seconds < 60
    assert commands(*ARGUMENTS, folder=folder).code == 0  # one process continues what two began
    assert farthest(folder, reference) < 1e-4
    assert figures(folder)[0] == pytest.approx(figures(reference)[0], rel=1e-4)


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others_after_the_timeout(commands: Commands, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "hung")
    fault = {"rank": 1, "step": 3, "do": "signal", "to": "SIGSTOP"}
    environment = {"RSDIFF_PROCESS_TIMEOUT_MINUTES": "0.2"}
    ended = commands(*ARGUMENTS, folder=folder, processes=2, at_step=fault, environment=environment)
    assert ended.codes[0] == 1, ended.said
    assert "did not answer for 0.2 minutes (RSDIFF_PROCESS_TIMEOUT_MINUTES)" in ended.said
