"""Several sweeps of one command, one after another."""

from __future__ import annotations

import os

import pytest
from joblib import Parallel, delayed

from rsdiff.app.launching import end_idle_workers


def test_workers_of_a_sweep_have_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("RSDIFF_SWEEP", name)
        end_idle_workers()
        assert Parallel(n_jobs=2)(delayed(os.getenv)("RSDIFF_SWEEP") for _ in range(2)) == [name, name]
    end_idle_workers()
