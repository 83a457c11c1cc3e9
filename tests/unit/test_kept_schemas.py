"""What an earlier command kept of the config classes counts for the very sources that it ran, and for no others."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import rsdiff
from rsdiff.app.kept_schemas import kept_or_made

PLACE = "rsdiff.methods.some:Config"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, bool]]:
    """Ask for the schema of a class with the given default, in a new process; return it and whether the class was imported."""
    monkeypatch.setenv("RSDIFF_CACHE", str(tmp_path / "cache"))

    def ask(default: float, place: str | None = PLACE, began: float = 60.0) -> tuple[Any, bool]:
        source = tmp_path / f"default_{default}" / "__init__.py"
        source.parent.mkdir(exist_ok=True)
        if not source.exists():
            source.write_text(f"default = {default}")
        monkeypatch.setattr(rsdiff, "__file__", str(source))
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: time.time() + began)
        made: list[float] = []
        schema = kept_or_made(place, lambda: made.append(default) or {"node": {"width": default}})  # type: ignore[func-returns-value]
        return schema["node"]["width"], bool(made)

    return ask


def test_a_schema_is_kept_for_the_sources_it_was_made_of(asked: Callable[..., tuple[Any, bool]]) -> None:
    assert asked(1.0) == (1.0, True)
    assert asked(1.0) == (1.0, False)
    assert asked(2.0) == (2.0, True), "another default is another version"
    assert asked(1.0) == (1.0, False)
    assert [asked(float(version)) for version in range(3, 9)] == [(float(version), True) for version in range(3, 9)]
    assert asked(1.0) == (1.0, True), "old versions are deleted"


def test_a_process_that_began_before_a_change_keeps_nothing(asked: Callable[..., tuple[Any, bool]]) -> None:
    assert asked(1.0, began=0.0) == (1.0, True)
    assert asked(1.0) == (1.0, True)
    assert asked(1.0) == (1.0, False)


def test_classes_of_plugins_and_those_that_are_there_already_are_asked_themselves(asked: Callable[..., tuple[Any, bool]]) -> None:
    for place in ("my_package:Config", None):
        assert [asked(1.0, place) for _ in range(2)] == [(1.0, True)] * 2


def test_what_json_would_change_and_a_folder_that_cannot_be_written_are_no_error(
    asked: Callable[..., tuple[Any, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(float("inf")) == (float("inf"), True)
    assert asked(float("inf")) == (float("inf"), False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDIFF_CACHE", str(tmp_path / "file"))
    assert [asked(1.0) for _ in range(2)] == [(1.0, True)] * 2
