"""Golden cases: numbers the published code computes. `RSDIFF_GOLDENS=<folder> pytest tests/goldens` runs another folder of them."""

import os
from pathlib import Path

import pytest
import torch

from .case import Case, find_cases

GOLDENS = Path(os.environ.get("RSDIFF_GOLDENS", Path(__file__).parent / "cases"))


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = find_cases(GOLDENS)
        metafunc.parametrize("case", cases, ids=[f"{case.folder}/{case.name}" for case in cases])


__all__ = ["Case"]
