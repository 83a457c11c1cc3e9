"""The worked example of docs/extending.md runs as it stands there: its files are written, its commands typed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsdiff.app.groups import FAMILIES, GROUPS
from rsdiff.app.plugins import NAMED, _folder_of
from tests.conftest import REPOSITORY, Command
from tests.runs.test_network_choice import BRIEF, run_of

TEXT = (REPOSITORY / "docs" / "extending.md").read_text().partition("## A worked example")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out of the tables of this process what plugins put in."""
    monkeypatch.setenv(NAMED, "")
    tables = [*GROUPS.values(), *FAMILIES.values()]
    before = [set(table) for table in tables]
    yield
    for table, names in zip(tables, before, strict=True):
        for name in set(table) - names:
            del table[name]  # type: ignore[attr-defined]
    _folder_of.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_the_example_of_the_documentation_runs(run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, first = tmp_path / "own", None
    for kind, text in BLOCKS:
        if kind in ("python", "yaml"):
            path = own / text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.syspath_prepend(own)
    assert len(COMMANDS) == 4
    try:
        for number, words in enumerate(COMMANDS):
            outputs = tmp_path / str(number)
            given = [word.replace("FIRST", str(first)) for word in words]
            ended = run_command(*given, *BRIEF, "scale=2", f"outputs={outputs}")
            assert ended.code == 0, (words, ended.err)
            first = first or run_of(outputs)
    finally:
        sys.modules.pop("mine", None)
