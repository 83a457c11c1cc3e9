"""How evaluation and restoration compute: in batches, by workers, channels-last, compiled, in bf16; the same images come out."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rsdiff.data.loading import read_ahead
from rsdiff.data.source import DataError
from rsdiff.data.transfer import done_behind
from tests.conftest import Command
from tests.runs.test_training import SMALL


def scores(outputs: Path) -> dict[str, float]:
    (records,) = outputs.glob("evaluate/*/*/evaluation/records.csv")
    with records.open() as stream:
        return {row["name"]: float(row["psnr"]) for row in csv.DictReader(stream)}


def test_an_evaluation_gives_the_same_however_it_computes(run_command: Command, tmp_path: Path) -> None:
    arguments = [*SMALL, "trainer.workers=0", "trainer.steps=2", "metrics.metrics=[psnr]"]
    trained = run_command(*arguments, f"outputs={tmp_path / 'train'}")
    assert trained.code == 0, trained.err
    (run,) = tmp_path.glob("train/train/*/*")
    plain = run_command("task=evaluate", f"checkpoint={run}", f"outputs={tmp_path / 'plain'}")
    assert plain.code == 0, plain.err
    options = ["task.batch=2", "task.workers=1", "task.channels_last=true", "task.tf32=true", "task.precision=bf16"]
    other = run_command("task=evaluate", f"checkpoint={run}", f"outputs={tmp_path / 'other'}", *options)
    assert other.code == 0, other.err
    expected, found = scores(tmp_path / "plain"), scores(tmp_path / "other")
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=0.5)  # bf16
    graphs = run_command("task=evaluate", f"checkpoint={run}", f"outputs={tmp_path / 'graphs'}", "task.compile=graphs")
    assert graphs.code != 0
    assert "compile=graphs records CUDA graphs and the device is cpu; use compile=true." in graphs.err


class Numbers:
    """Stands for test images; the fourth cannot be read."""

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise DataError("number 3 cannot be read")
        return 10 * index


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_read_ahead_in_order_and_errors_come_through(workers: int) -> None:
    reading = read_ahead(Numbers(), [4, 0, 2, 1, 3], workers)  # type: ignore[arg-type]
    assert [next(reading) for _ in range(4)] == [40, 0, 20, 10]
    with pytest.raises(DataError, match="number 3 cannot be read"):
        next(reading)


def test_what_is_done_behind_overlaps_with_what_is_made_and_keeps_its_order() -> None:
    later = threading.Event()

    def made() -> Iterator[int]:
        yield 0
        later.set()  # made while the first is still being worked on
        yield from (1, 2, 3)
        raise DataError("number 4 cannot be made")

    def work(number: int) -> int:
        assert later.wait(20)
        return 10 * number

    found: list[int] = []
    with pytest.raises(DataError, match="number 4"):
        found.extend(done_behind(work, made(), True, torch.device("cpu")))
    assert found == [0, 10]

    def fails(number: int) -> int:
        if number == 1:
            raise DataError("number 1 cannot be scored")
        return number

    for overlaps in (False, True):
        with pytest.raises(DataError, match="number 1 cannot be scored"):
            list(done_behind(fails, range(5), overlaps, torch.device("cpu")))
