"""The repository of toy components that tests of whole commands use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toy
from tests.conftest import REPOSITORY, Command, Ended


@pytest.fixture
def toys(tmp_path: Path, run_command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that does `python run.py <arguments>` in a repository of toy components."""
    toy.register(monkeypatch)
    root = toy.write_repository(tmp_path / "repository", REPOSITORY / "conf" / "config.yaml")

    def command(*arguments: str) -> Ended:
        return run_command(*arguments, repository=root)

    return command
