"""Which run a command means: what it is, not where its data or outputs lie; and every sentence that advises is followed."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command, Ended
from tests.runs.test_training import start

TINY = ["model=rrdb_tiny", "dataset=folder", "trainer.batch=2", "trainer.patch=32", "trainer.workers=0", "metrics.metrics=[psnr]"]
TINY += ["trainer.validation_images=1", "dataset.test_limit=1", "trainer.save_every_steps=1", "trainer.validate_every_steps=0"]
TINY += ["trainer.learning_rate.shape=constant", "trainer.steps=4", "metrics.panels=0", "logger.progress=off"]
STOP = "trainer.time_limit_minutes=1e-9"
"""Stops after one step, as a time limit does, and changes no result."""


def image(path: Path, seed: int, size: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(path)


def images(folder: Path, count: int = 8) -> Path:
    for number in range(count):
        image(folder / f"{number:03d}.png", number)
    return folder


def runs_of(outputs: Path, task: str = "train") -> list[Path]:
    return sorted((path.parent for path in (outputs / task).glob("*/*/status.json")), key=lambda path: path.stat().st_ctime)


def weights(run: Path, step: int) -> bytes:
    return (run / "checkpoints" / f"step_{step:08d}" / "weights.safetensors").read_bytes()


def advised(ended: Ended, pattern: str) -> str:
    """Return what the sentence on the terminal says to type."""
    found = re.search(pattern, ended.out + ended.err)
    assert found, ended.out + ended.err
    return found[0].rstrip(".,;")


def test_a_stopped_training_goes_on_from_copied_data_in_moved_outputs_bit_for_bit(run_command: Command, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    assert run_command(*TINY, f"dataset.root={data}", "outputs=whole").code == 0
    ended = run_command(*TINY, f"dataset.root={data}", "outputs=first", STOP)
    assert ended.code == 75
    assert "error" not in ended.err
    copied = tmp_path / "node" / "scratch"
    shutil.copytree(data, copied)
    for path in copied.iterdir():
        os.utime(path, (1, 1))
    shutil.rmtree(data)
    (tmp_path / "first").rename(tmp_path / "moved")
    ended = run_command(*TINY, f"dataset.root={copied}", "outputs=moved")
    assert ended.code == 0, ended.err
    (whole,), (mine,) = runs_of(tmp_path / "whole"), runs_of(tmp_path / "moved")
    assert weights(mine, 4) == weights(whole, 4)
    assert mine.name == whole.name
    # a folder of a version that recorded no identity and had other signatures
    for name in ("identity.json", "images.json"):
        (mine / name).unlink()
    mine = mine.rename(mine.with_name("0123456789"))
    (tmp_path / "moved").rename(tmp_path / "again")
    assert "already finished" in run_command(*TINY, f"dataset.root={copied}", "outputs=again").out
    ended = run_command(*TINY, "dataset.root=node/scratch", "outputs=again")
    assert "already finished" in ended.out
    assert not list(tmp_path.glob("again/train/*/*/metrics.csv"))
    assert "given to logger=csv" in run_command(*TINY, "dataset.root=node/scratch", "outputs=again", "logger=csv").out
    assert list(tmp_path.glob("again/train/*/*/metrics.csv"))
    assert Path(advised(ended, r"again/\S+report\.html")).exists()
    log = (tmp_path / "again" / mine.relative_to(tmp_path / "moved") / "run.log").read_text()
    assert "stopped after step 1 of 4" in log
    assert "report " in log


@pytest.mark.slow
def test_a_killed_training_goes_on_from_copied_and_touched_data_in_moved_outputs(run_command: Command, tmp_path: Path) -> None:
    data, copied = images(tmp_path / "data"), tmp_path / "node" / "data"
    command = [*TINY, "trainer.steps=60", "trainer.save_every_steps=5"]
    assert run_command(*command, f"dataset.root={data}", "outputs=whole").code == 0
    process = start(*command, f"dataset.root={data}", f"outputs={tmp_path / 'first'}")
    while not list(tmp_path.glob("first/train/*/*/checkpoints/step_00000020/card.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    (killed,) = runs_of(tmp_path / "first")
    assert not (killed / "checkpoints" / "step_00000060").exists()
    shutil.copytree(data, copied)
    shutil.rmtree(data)
    for path in copied.iterdir():
        path.touch()
    (tmp_path / "first").rename(tmp_path / "moved")
    ended = run_command(*command, f"dataset.root={copied}", "outputs=moved")
    assert ended.code == 0, ended.err
    (whole,), (mine,) = runs_of(tmp_path / "whole"), runs_of(tmp_path / "moved")
    assert weights(mine, 60) == weights(whole, 60)
    assert len((mine / "provenance.jsonl").read_text().splitlines()) == 2


def test_a_figure_is_never_of_other_images_than_there_are(run_command: Command, tmp_path: Path) -> None:
    hr, sr = images(tmp_path / "own" / "hr", 3), tmp_path / "own" / "sr"
    for number in range(3):
        image(sr / f"{number:03d}.png", 100 + number)
    command = ["task=evaluate", "model=bicubic", "scale=1", "dataset=paired", "dataset.root=own", "dataset.hr_folder=hr"]
    command += ["dataset.lr_folder=sr", "dataset.split=all", "metrics.metrics=[psnr]", "metrics.panels=0", "outputs=o"]
    assert run_command(*command).code == 0
    assert "already finished" in run_command(*command).out
    shutil.copy(hr / "001.png", sr / "001.png")
    ended = run_command(*command)
    assert "1 of 3 changed (first: 001)" in ended.out
    for folder in (hr, sr):
        (folder / "000.png").unlink()
    ended = run_command(*command)
    assert "1 of 3 removed (first: 000)" in ended.out
    assert [json.loads((run / "status.json").read_text())["summary"]["images"] for run in runs_of(tmp_path / "o", "evaluate")] == [3, 3, 2]


def test_other_training_images_are_another_run_and_other_test_images_another_score(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data" / "train", 6)
    images(tmp_path / "data" / "test", 2)
    command = [*TINY, "dataset.root=data", "dataset.test_limit=null", "outputs=o"]
    assert run_command(*command).code == 0
    (first,) = runs_of(tmp_path / "o")
    stamp = (first / "checkpoints" / "step_00000004" / "weights.safetensors").stat().st_mtime_ns
    image(tmp_path / "data" / "test" / "000.png", 50)
    ended = run_command(*command)
    assert "1 of 2 changed (first: test/000)" in ended.out
    assert "its training is kept" in ended.out
    assert (first / "checkpoints" / "step_00000004" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert (first / "evaluation-1" / "records.csv").read_text() != (first / "evaluation" / "records.csv").read_text()
    assert "already finished" in run_command(*command).out
    image(tmp_path / "data" / "train" / "new.png", 60)
    ended = run_command(*command)
    assert "1 added (first: train/new): a new run is made beside it" in ended.out
    assert len(runs_of(tmp_path / "o")) == 2


@pytest.mark.parametrize("remedy", ["removed", "skipped", pytest.param("repaired", marks=pytest.mark.slow)])
def test_a_damaged_image_costs_no_step_whatever_is_done_about_it(run_command: Command, tmp_path: Path, remedy: str) -> None:
    data = images(tmp_path / "data", 10)
    whole = (data / "004.png").read_bytes()
    (data / "004.png").write_bytes(whole[: len(whole) // 2])
    command = [*TINY, "dataset.root=data", "outputs=o", "trainer.batch=1", "trainer.steps=12", "dataset.split=all", "seed=3"]
    command.append(f"trainer.workers={int(remedy == 'repaired')}")  # a loader process hands its error over whole
    ended = run_command(*command)
    assert ended.code == 1
    assert "004.png" in ended.err
    assert "Traceback" not in ended.err
    (run,) = runs_of(tmp_path / "o")
    assert json.loads((run / "status.json").read_text())["unreadable"] == ["004"]
    assert list((run / "checkpoints").glob("step_*")), "the image is not the first one, so that there is something to lose"
    if remedy == "removed":
        (data / "004.png").unlink()
    elif remedy == "skipped":
        command.append("dataset.odd=skip")
    else:
        (data / "004.png").write_bytes(whole)
    ended = run_command(*command)
    assert ended.code == 0, ended.err
    assert runs_of(tmp_path / "o") == [run]
    if remedy == "removed":  # and put back later
        (data / "004.png").write_bytes(whole)
        assert run_command(*command).code == 0


def test_a_finished_training_is_extended_when_asked_and_told_of_when_not(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data")
    command = [*TINY, "dataset.root=data", "trainer.save_every_steps=2"]
    assert run_command(*command, "outputs=o").code == 0
    (first,) = runs_of(tmp_path / "o")
    ended = run_command(*command, "trainer.steps=6", "outputs=o", STOP)
    assert "differs only in trainer.steps (4 there, 6 here)" in ended.out
    extend = advised(ended, r"trainer\.extend=\w+")
    assert extend == f"trainer.extend={first.name}"
    ended = run_command(*command, "trainer.steps=6", "outputs=o", extend)
    assert "this is another run, from the beginning" not in ended.out
    assert ended.code == 0, ended.err
    assert "from its step 4 to 6" in ended.out
    assert run_command(*command, "trainer.steps=6", "outputs=whole").code == 0
    (whole,) = runs_of(tmp_path / "whole")
    assert weights(runs_of(tmp_path / "o")[-1], 6) == weights(whole, 6)
    assert "already finished" in run_command(*command, "trainer.steps=6", "outputs=o", f"trainer.extend={first}").out


def test_weights_of_another_scale_are_taken_in_part_when_asked(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data")
    assert run_command(*TINY, "dataset.root=data", "outputs=o").code == 0
    (first,) = runs_of(tmp_path / "o")
    command = [*TINY, "dataset.root=data", "outputs=o", "scale=2", f"checkpoint={first}"]
    ended = run_command(*command)
    assert ended.code == 1
    ended = run_command(*command, advised(ended, r"trainer\.partial=true"))
    assert ended.code == 0, ended.err
    assert re.search(r"taken from \S+: \d+ of \d+ tensors", ended.out)
    assert "drawn anew: " in ended.out


def test_a_setting_that_nothing_reads_is_refused_with_one_that_works(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data")
    command = [*TINY, "dataset.root=data", "outputs=o"]
    for typed, word in [
        ("trainer.learning_rate.floor=0.1", "trainer.learning_rate.shape=cosine"),
        ("trainer.best_metric=psrn", "psnr"),
        ("trainer.best_metric=lpips_alex", "trainer.best_metric=null"),
        ("trainer.extend_schedule=restart", "trainer.extend"),
        ("trainer.steps=true", "number"),
        ("scale=nan", "number"),
        ("scale=0", "scale"),
        ("trainer.keep_checkpoints=-1", "keep_checkpoints"),
    ]:
        extra = ["trainer.validate_every_steps=2"] if "best_metric" in typed else []
        ended = run_command(*command, *extra, typed)
        assert ended.code == 2, typed
        assert word in ended.err
    assert not (tmp_path / "o").exists()
