"""Examples in docstrings are true, and whoever looks up a public name of `import rsdiff` finds one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import rsdiff
from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src"


def modules_with_examples() -> list[str]:
    found = [path for path in (SOURCE / "rsdiff").rglob("*.py") if ">>> " in path.read_text()]
    return sorted(".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in found)


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_of_docstrings_are_true(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted > 0


def test_every_public_function_has_an_example() -> None:
    functions = [getattr(rsdiff, name) for name in rsdiff.__all__ if inspect.isfunction(getattr(rsdiff, name))]
    assert len(functions) >= 5
    for function in (*functions, rsdiff.Model.restore, rsdiff.degradations.degrade_array):
        assert ">>> " in (function.__doc__ or ""), function
