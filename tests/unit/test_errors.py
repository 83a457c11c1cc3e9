"""Sentences written for users have a class of their own; everything else is a fault of the software and says so."""

from __future__ import annotations

import ast
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import rsdiff
from rsdiff.config import PlaceError, UserError
from rsdiff.config.errors import Interrupted, during
from rsdiff.runs.errors import is_fault, note_run, one_sentence, print_error
from rsdiff.training.checkpoints import write_checkpoint

SOURCES = sorted(Path(rsdiff.__file__).parent.rglob("*.py"))


def raised(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield f"{node.exc.func.id}({len(node.exc.args)})"


def test_no_sentence_for_users_is_raised_as_a_plain_value_error_or_error_of_the_system() -> None:
    """The system's errors have a number and its text; with a sentence alone they would be told as a fault of the software."""
    system = ("OSError", "IOError", "FileNotFoundError", "FileExistsError", "PermissionError", "NotADirectoryError", "IsADirectoryError")
    plain = [
        (str(path), what) for path in SOURCES for what in raised(path) if what in {"ValueError(1)", *(f"{name}(1)" for name in system)}
    ]
    assert not plain, "raise rsdiff.config.UserError or PlaceError instead"


def arithmetic_fault() -> Exception:
    try:
        np.zeros(3) + np.zeros(4)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "is_ours"),
    [
        (arithmetic_fault(), True),
        (KeyError("logger"), True),
        (UserError("steps is 0; it must be at least 1."), False),
        (PlaceError("status.json cannot be read; delete it."), False),
        (OSError(errno.ENOSPC, "No space left"), False),
        (Interrupted("stopped after step 3 of 9; the same command continues from there.", None), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
    ],
)
def test_a_fault_of_the_software_says_so_and_names_a_log(
    error: Exception, is_ours: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_run(error, "0123456789", tmp_path / "run.log")
    print_error(error)
    said = capsys.readouterr().err
    assert is_fault(error) == is_ours
    assert ("a fault of rsdiff" in said) == is_ours
    assert (str(tmp_path / "run.log") in said) == is_ours
    assert said.startswith("stopped" if isinstance(error, Interrupted) else "error: ")


def test_what_memory_is_needed_for_decides_the_advice() -> None:
    def advice(part: str | None) -> str:
        error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
        try:
            if part is None:
                raise error
            with during(part):
                raise error
        except RuntimeError as caught:
            note_run(caught, "0123456789", Path("run.log"))
            return one_sentence(caught)

    assert "trainer.accumulate=auto" in advice(None)
    assert "trainer.extend=0123456789 trainer.validate_every_steps=0" in advice("validation")
    assert "test images" in advice("evaluation")


def test_a_fault_outside_a_run_leaves_its_traceback_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(arithmetic_fault())
    said = capsys.readouterr().err
    log = Path(said.split("Its traceback is in ")[1].split(";")[0])
    assert "broadcast" in log.read_text()
    log.unlink()


def test_a_checkpoint_larger_than_files_may_be_is_no_fault(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="File too large") as refused:
            write_checkpoint(tmp_path, 1, {"weight": torch.zeros(1000)}, [], {}, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ulimit -f" in one_sentence(refused.value)
    assert not list(tmp_path.glob("**/*.safetensors"))
