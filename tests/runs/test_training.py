"""Whole trainings as a user types them: finished, killed and repeated, on two processes, evaluated from the checkpoint alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import REPOSITORY

SMALL = [
    "model=sr3_quick",
    "model.width=8",
    "model.multipliers=[1,2]",
    "model.norm_groups=4",
    "model.dropout=0.1",  # PyTorch's own draws must be resumable too
    "dataset=synthetic",
    "dataset.size=32",
    "dataset.train_images=8",
    "dataset.test_images=3",
    "dataset.second_date=false",
    "sampler=ddim",
    "sampler.steps=2",
    "trainer.steps=12",
    "trainer.batch=4",
    "trainer.patch=16",
    "trainer.validate_every_steps=4",
    "trainer.validation_images=1",
    "trainer.save_every_steps=2",
    "trainer.log_every_steps=1",
    "trainer.workers=1",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(REPOSITORY / "run.py"), *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*arguments: str) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def run_folder(outputs: Path, task: str = "train") -> Path:
    (status,) = (outputs / task).glob("*/*/status.json")
    return status.parent


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("whole")
    finish(*SMALL, f"outputs={outputs}")
    return run_folder(outputs)


@pytest.mark.xdist_group("training")
def test_a_run_leaves_a_report_and_the_same_command_says_it_is_finished(uninterrupted: Path) -> None:
    assert "<html" in (uninterrupted / "report.html").read_text()
    assert json.loads((uninterrupted / "status.json").read_text())["state"] == "finished"
    rows = (uninterrupted / "evaluation" / "records.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    assert "bicubic_psnr" in rows[0]
    before = (uninterrupted / "history.jsonl").read_bytes()
    said = finish(*SMALL, f"outputs={uninterrupted.parents[2]}", "trainer.workers=0")
    assert "already finished" in said
    assert (uninterrupted / "history.jsonl").read_bytes() == before


@pytest.mark.xdist_group("training")
def test_killed_and_repeated_run_equals_uninterrupted_run(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(*SMALL, f"outputs={tmp_path}")
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("train/*/*/checkpoints/step_00000004/card.json")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    folder = run_folder(tmp_path)
    assert not (folder / "checkpoints" / "step_00000012").exists()
    finish(*SMALL, f"outputs={tmp_path}")
    last, reference = (where / "checkpoints" / "step_00000012" for where in (folder, uninterrupted))
    for file in ("weights.safetensors", "ema_0.safetensors"):
        assert (last / file).read_bytes() == (reference / file).read_bytes()
    assert (folder / "history.jsonl").read_bytes() == (uninterrupted / "history.jsonl").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in uninterrupted.iterdir())


@pytest.mark.xdist_group("training")
def test_two_processes_train_as_one_in_one_folder(uninterrupted: Path, tmp_path: Path) -> None:
    arguments = [argument for argument in SMALL if argument != "model.dropout=0.1"]  # each process drops other units
    finish(*arguments, f"outputs={tmp_path / 'one'}")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    launch += ["--dynamo_backend=no", "--main_process_port=0", str(REPOSITORY / "run.py"), *arguments, f"outputs={tmp_path / 'two'}"]
    ended = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    one, two = run_folder(tmp_path / "one"), run_folder(tmp_path / "two")
    assert one.name == two.name  # the signature does not depend on the number of processes
    weights = [load_file(folder / "checkpoints" / "step_00000012" / "weights.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-4  # float32 sums in another order, over 12 steps of Adam
    losses = [[json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()] for folder in (one, two)]
    totals = [[line["restorer/total"] for line in lines if "restorer/total" in line] for lines in losses]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    names = [[row.split(",")[0] for row in (folder / "evaluation" / "records.csv").read_text().splitlines()] for folder in (one, two)]
    assert names[0] == names[1]


@pytest.mark.xdist_group("training")
def test_a_checkpoint_alone_is_enough_to_evaluate(uninterrupted: Path, tmp_path: Path) -> None:
    finish("task=evaluate", f"checkpoint={uninterrupted}", f"outputs={tmp_path}")
    columns = ("name", "psnr", "bicubic_psnr")
    assert read_columns(run_folder(tmp_path, "evaluate"), columns) == read_columns(uninterrupted, columns)


def read_columns(folder: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    import csv

    with (folder / "evaluation" / "records.csv").open() as stream:
        return [tuple(row[column] for column in columns) for row in csv.DictReader(stream)]


@pytest.mark.xdist_group("training")
def test_a_state_that_gives_no_finite_loss_is_never_saved_as_good(tmp_path: Path) -> None:
    process = start(*SMALL, f"outputs={tmp_path}", "trainer.optimiser.lr=1e30", "trainer.ema.rule=off")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "not finite" in err.splitlines()[-1]
    assert "restorer" in err
    assert "begins anew" in err.splitlines()[-1]
    assert not list(tmp_path.glob("train/*/*/checkpoints/step_*"))


@pytest.mark.xdist_group("training")
def test_a_stop_signal_saves_and_the_same_command_continues(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(*SMALL, f"outputs={tmp_path}")
    while not list(tmp_path.glob("train/*/*/checkpoints/step_00000002/card.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 75, err
    assert "continues from there" in err
    finish(*SMALL, f"outputs={tmp_path}")
    mine, reference = (where / "checkpoints/step_00000012/weights.safetensors" for where in (run_folder(tmp_path), uninterrupted))
    assert mine.read_bytes() == reference.read_bytes()


@pytest.mark.xdist_group("training")
def test_a_sweep_is_several_wandb_runs_and_one_table(tmp_path: Path) -> None:
    finish("-m", *SMALL, "scale=2,4", "degradation=bicubic,iso", "trainer.steps=1", "logger=wandb", f"outputs={tmp_path}")
    folders = [status.parent for status in (tmp_path / "train").glob("*/*/status.json")]
    assert len(folders) == 4
    ids = {path.name.split("-")[-1] for folder in folders for path in folder.glob("wandb/offline-run-*")}
    assert ids == {folder.name for folder in folders}
    (table,) = (tmp_path / "sweeps").glob("*/summary.md")
    assert table.read_text().count("finished") == 4
