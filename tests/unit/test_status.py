"""task=status tells the state of every run of a sweep and runs those again that failed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from rsdiff.runs import sweep
from tests.conftest import Command

CELLS = ["task=evaluate", "model=bicubic", "dataset=synthetic", "dataset.size=32", "dataset.test_images=1", "metrics.metrics=[psnr]"]


def record(outputs: Path, number: int) -> Path:
    (path,) = outputs.glob(f"sweeps/*/run_{number:05d}.json")
    return path


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def run_of(record: Path) -> Path:
    """Return the folder of the run that a record is of, which it notes as seen from the sweep's folder."""
    return record.parent / json.loads(record.read_text())["folder"]


def test_every_state_of_a_cell_is_told_and_none_hides_another(run_command: Command, tmp_path: Path) -> None:
    outputs = tmp_path / "out"
    ended = run_command("-m", *CELLS, "dataset.bands=3,4,5,6", f"outputs={outputs}")
    assert ended.code == 0, ended.err
    runs = [run_of(record(outputs, number)) for number in range(4)]
    change(record(outputs, 0), state="running")  # and its process is gone
    change(runs[0] / "status.json", state="running")
    record(outputs, 1).unlink()
    change(record(outputs, 2), state="failed", error="the disk is full.", log="/somewhere/2.err")
    said = run_command("task=status", f"outputs={outputs}").out
    assert "4 runs, 1 finished, 1 waiting, 1 failed, 1 killed" in said
    assert "run 2 failed: the disk is full. Log: /somewhere/2.err" in said
    assert "run 0 killed: its process ended without a message" in said
    assert "task.retry_failed=true" in said
    (runs[0] / "owner.json").write_text(json.dumps({"host": os.uname().nodename, "pid": os.getpid(), "since": "now"}))
    assert "1 running" in run_command("task=status", f"outputs={outputs}").out


def test_failed_cells_are_run_again_and_the_others_left_alone(run_command: Command, tmp_path: Path) -> None:
    outputs = tmp_path / "out"
    assert run_command("-m", *CELLS, "dataset.bands=3,4", f"outputs={outputs}").code == 0
    (kept, failed) = (run_of(record(outputs, number)) for number in (0, 1))
    before = record(outputs, 0).read_bytes(), (kept / "provenance.jsonl").read_bytes()
    change(record(outputs, 1), state="failed", error="something.")
    change(failed / "status.json", state="failed", error="something.")
    ended = run_command("task=status", "task.retry_failed=true", f"outputs={outputs}")
    assert ended.code == 0, ended.err
    assert "2 runs, 2 finished" in ended.out
    assert (record(outputs, 0).read_bytes(), (kept / "provenance.jsonl").read_bytes()) == before
    assert len((failed / "provenance.jsonl").read_text().splitlines()) == 2


def test_nothing_stays_of_a_sweep_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    folder = sweep.start(tmp_path / "sweep", [["seed=1"]])
    others = {f".run_00001.json.{host}.{os.getpid()}.partial", f".run_00002.json.elsewhere.{ended.pid}.partial"}
    for name in {f".{sweep.PLAN}.{host}.{ended.pid}.partial", f".run_00000.json.{host}.{ended.pid}.partial", *others}:
        (folder / name).write_text("{")
    sweep.start(folder, [["seed=1"]])
    assert {path.name for path in folder.iterdir()} == {sweep.PLAN, *others}


def test_without_a_sweep_the_user_is_told_what_to_type(run_command: Command, tmp_path: Path) -> None:
    ended = run_command("task=status", f"outputs={tmp_path}")
    assert ended.code == 1
    assert ended.err == f"error: {tmp_path}/sweeps holds no sweep; begin one with python run.py -m SETTING=A,B, or give outputs=FOLDER.\n"
    assert "leave it out for the one started last" in run_command("task=status", "task.sweep=abc", f"outputs={tmp_path}").err


def test_a_finished_run_whose_report_was_deleted_is_made_again(run_command: Command, tmp_path: Path) -> None:
    arguments = [*CELLS, f"outputs={tmp_path}"]
    assert run_command(*arguments).code == 0
    assert "already finished" in run_command(*arguments).out
    (report,) = tmp_path.glob("evaluate/*/*/report.html")
    report.unlink()
    ended = run_command(*arguments)
    assert ended.code == 0, ended.err
    assert f"{report} is gone; it is made again." in ended.out
    assert report.exists()
