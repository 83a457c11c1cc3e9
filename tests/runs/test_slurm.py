"""A sweep on a real Slurm, with cells that are preempted and requeued while they train."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Command
from tests.runs.test_training import ENVIRONMENT, SMALL
from tests.slurm import Cluster, why_not

LONG = [*SMALL, "trainer.steps=40", "trainer.validate_every_steps=0", "trainer.workers=0"]
LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.signal_delay_s=10"]

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.xdist_group("slurm"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=6) as running:
        yield running


def sweep(outputs: Path, seeds: int, *more: str) -> list[str]:
    values = ",".join(map(str, range(seeds)))
    return ["-m", *LONG, f"seed={values}", f"outputs={outputs}", *more]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def place_of(outputs: Path, cell: int) -> tuple[int, str] | None:
    """Process and Slurm job that train a cell and have saved a checkpoint, from the sweep's own record."""
    for path in outputs.glob(f"sweeps/*/run_{cell:05d}.json"):
        record = json.loads(path.read_text())
        if record["state"] == "running" and list((path.parent / record["folder"]).glob("checkpoints/step_*/card.json")):
            pid, job = re.fullmatch(r".* pid (\d+), Slurm job (\S+)", record["place"]).groups()  # type: ignore[union-attr]
            return int(pid), job
    return None


def wait_for_place(outputs: Path, cell: int, process: subprocess.Popen[str]) -> tuple[int, str]:
    wait_for(lambda: place_of(outputs, cell) is not None, process)
    place = place_of(outputs, cell)
    assert place is not None
    return place


def weights(outputs: Path) -> dict[str, bytes]:
    found = outputs.glob("train/*/*/checkpoints/step_00000040/weights.safetensors")
    return {path.parents[2].name: path.read_bytes() for path in found}


def check_sweep_with_interruptions(
    cluster: Cluster, run_command: Command, folder: Path, cells: int, interrupted: dict[int, list[str]]
) -> None:
    """Submit a sweep, interrupt some cells in mid-run, and compare with the same sweep done in one process without Slurm."""
    environment = {**ENVIRONMENT, **cluster.environment, "SUBMITIT_PREEMPT_SIGNAL": "USR2"}
    whole, cut = folder / "whole", folder / "cut"
    command = [sys.executable, str(REPOSITORY / "run.py"), *sweep(cut, cells, *LAUNCHER)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for cell, command in interrupted.items():
            _, job = wait_for_place(cut, cell, process)
            cluster.call(*command, job)
            wait_for(lambda job=job: "PENDING" in cluster.call("squeue", "--noheader", "--format=%T", "--jobs", job), process)  # type: ignore[misc]
            cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+5")  # instead of in two minutes
        out, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert f"{cells} of {cells} runs finished" in out
    assert run_command(*sweep(whole, cells)).code == 0
    assert len(weights(whole)) == cells
    assert weights(cut) == weights(whole)
    for cell in interrupted:
        (record,) = cut.glob(f"sweeps/*/run_{cell:05d}.json")
        run = record.parent / json.loads(record.read_text())["folder"]
        assert len((run / "provenance.jsonl").read_text().splitlines()) == 2, f"cell {cell} was not interrupted"
    said = run_command("task=status", f"outputs={cut}").out
    print(out, said, sep="\n")
    assert f"{cells} runs, {cells} finished" in said
    assert "Slurm job" in said


def test_a_preempted_cell_is_requeued_and_ends_as_if_undisturbed(cluster: Cluster, run_command: Command, tmp_path: Path) -> None:
    check_sweep_with_interruptions(cluster, run_command, tmp_path, 2, {0: ["scancel", "--signal=USR2"]})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_that_submits_ends_when_cells_are_gone_for_good(cluster: Cluster, tmp_path: Path) -> None:
    """Without accounts Slurm forgets what became of a job."""
    outputs = tmp_path / "out"
    command = [sys.executable, str(REPOSITORY / "run.py"), *sweep(outputs, 3, *LAUNCHER)]
    options = {"env": {**ENVIRONMENT, **cluster.environment}, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **options)
    try:
        cluster.call("scancel", wait_for_place(outputs, 0, process)[1])
        os.kill(wait_for_place(outputs, 1, process)[0], signal.SIGKILL)
        out, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    print(out)
    assert process.returncode == 1, out
    assert "error: a run left Slurm's queue without a result" in out
    assert ") interrupted: stopped after step" in out
    assert ") killed: its process ended without a message" in out
    assert "1 of 3 runs finished" in out
    again = subprocess.run(command, **options, timeout=400, check=False)
    assert again.returncode == 0, again.stdout
    assert "3 of 3 runs finished" in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_six_with_preempted_requeued_and_killed_cells(cluster: Cluster, run_command: Command, tmp_path: Path) -> None:
    ways = {0: ["scancel", "--signal=USR2"], 2: ["scontrol", "requeue"], 5: ["scancel", "--signal=USR2"]}
    check_sweep_with_interruptions(cluster, run_command, tmp_path, 6, ways)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plugin_that_the_command_names_is_in_the_jobs_too(cluster: Cluster, tmp_path: Path) -> None:
    """The jobs know of it by the environment that Slurm hands on: no package is installed."""
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "examples" / "plugin")])
    chosen = ["plugins=[mysr]", "model=mysr", "degradation=haze", "metrics.metrics=[median_error]", "model.width=8,12"]
    tiny = ["trainer.steps=2", "trainer.batch=2", "trainer.patch=32", "trainer.workers=0", "dataset.size=64"]
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), "-m", *chosen, *tiny, f"outputs={tmp_path}", *LAUNCHER],
        env={**ENVIRONMENT, **cluster.environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended
    records = [json.loads(record.read_text()) for record in tmp_path.glob("sweeps/*/run_*.json")]
    assert ["Slurm job" in record["place"] for record in records] == [True, True]
    assert all(record["summary"]["median_error"] > 0 for record in records)
