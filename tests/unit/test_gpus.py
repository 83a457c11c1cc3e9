"""GPUs of the cells of a sweep on one machine: who gets which, told by the environment alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsdiff.app import gpus
from rsdiff.app.gpus import SHARED_GPUS, shares_of, visible_gpus
from rsdiff.app.records import prepare_launcher
from rsdiff.config import ConfigError
from rsdiff.config.sharing import CELLS_PER_GPU
from tests.conftest import REPOSITORY

TAKE = """
import os, sys
from rsdiff.app.gpus import take_gpus
take_gpus(sys.argv[1].split(","), float(sys.argv[2]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def test_cells_share_out_whole_gpus_or_parts_of_them() -> None:
    assert shares_of(["0", "1", "2", "3"], 1) == [["0"], ["1"], ["2"], ["3"]]
    assert shares_of(["4", "5", "6"], 2) == [["4", "5"]]
    assert shares_of(["0", "1"], 0.5) == [["0"], ["1"], ["0"], ["1"]]
    assert shares_of(["0"], 0) == []
    for wrong in (3, 1.5, 0.3, -1):
        with pytest.raises(ConfigError, match="gpus_per_cell"):
            shares_of(["0", "1"], wrong)


def test_launchers_of_one_machine_share_out_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED_GPUS, "old")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    for launcher in ("joblib_launcher.JoblibLauncher", "submitit_launcher.LocalLauncher"):
        prepare_launcher(f"hydra_plugins.{launcher}")
        assert os.environ[SHARED_GPUS] == "2,5"
    prepare_launcher("core_plugins.basic_launcher.BasicLauncher")
    assert SHARED_GPUS not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    prepare_launcher("hydra_plugins.joblib_launcher.JoblibLauncher")
    assert SHARED_GPUS not in os.environ


def test_processes_at_once_take_different_gpus_and_leave_them_at_their_end(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY / "src"), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": ""}

    def start(gpus: str, per_cell: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TAKE, gpus, per_cell]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    first, second = start("3,7", "1"), start("3,7", "1")
    assert {said(first), said(second)} == {"3", "7"}
    third = start("3,7", "1")
    assert third.stderr is not None
    assert "waiting for a GPU" in third.stderr.readline()
    first.communicate("")
    left = said(third)
    assert left in ("3", "7")
    for process in (second, third):
        process.communicate("")
    none = start("3,7", "0")
    assert said(none) == ""
    none.communicate("")


def test_a_cell_knows_how_many_share_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_taken", lambda names, per_cell: (["3"], []))
    for name in ("CUDA_VISIBLE_DEVICES", CELLS_PER_GPU):
        monkeypatch.setenv(name, "")
    for per_cell, cells in ((0.25, "4"), (0.5, "2"), (1, "1"), (2, "1"), (0, "1")):
        gpus.take_gpus(["3"], per_cell)
        assert os.environ[CELLS_PER_GPU] == cells
