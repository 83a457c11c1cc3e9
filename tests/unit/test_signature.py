"""The run signature depends on what can change a result and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from rsdiff.config import config
from rsdiff.runs.signature import SIGNATURE_LENGTH, run_signature


@config
class Inner:
    rate: float = 1.0
    workers: int = 0

    result_neutral: ClassVar[frozenset[str]] = frozenset({"workers"})


@config
class Outer:
    width: int = 8
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)


def test_neutral_options_do_not_enter_at_any_depth() -> None:
    assert run_signature({"a": Outer()}) == run_signature({"a": Outer(inner=Inner(workers=5))})


def test_every_other_option_enters() -> None:
    variants = [Outer(), Outer(width=9), Outer(inner=Inner(rate=2.0)), Outer(sizes=(2, 1))]
    signatures = {run_signature({"a": variant}) for variant in variants}
    assert len(signatures) == len(variants)
    assert {len(signature) for signature in signatures} == {SIGNATURE_LENGTH}


def test_the_order_of_the_settings_does_not_matter() -> None:
    assert run_signature({"a": 1, "b": 2.5}) == run_signature({"b": 2.5, "a": 1})


def test_a_file_enters_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    before = run_signature({"checkpoint": file})
    assert before == run_signature({"checkpoint": tmp_path / "." / "weights"})
    file.write_bytes(b"another")
    assert before != run_signature({"checkpoint": file})


def test_a_neutral_name_that_is_no_option_is_our_mistake() -> None:
    @config
    class Wrong:
        result_neutral: ClassVar[frozenset[str]] = frozenset({"wrokers"})

        workers: int = 0

    with pytest.raises(AssertionError, match="wrokers"):
        run_signature({"a": Wrong()})
