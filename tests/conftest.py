"""Fixtures for tests that type what a user types, in this process."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up what tests counted with record_property, such as the pairs of the matrix, over all processes."""
    counted = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                counted.update({name: int(str(count)) for name, count in report.user_properties})
    for name, count in sorted(counted.items()):
        terminalreporter.write_line(f"{count} {name}")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that does `python run.py <arguments>` in this process, in an empty current folder."""
    from rsdiff.app.main import main

    monkeypatch.chdir(tmp_path)
    ours = ("RSDIFF_SWEEP", "RSDIFF_SWEEP_FOLDER", "RSDIFF_TYPED", "RSDIFF_GPUS", "RSDIFF_PLUGINS", "RSDIFF_TRACEBACK")
    for name in (*ours, "HYDRA_FULL_ERROR"):
        # Set, then removed: so that monkeypatch also takes back what main() sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def command(*arguments: str, repository: Path = REPOSITORY) -> Ended:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(repository)
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return command


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered of the tests' files away from the user's own cache; processes that tests start inherit it."""
    os.environ["RSDIFF_CACHE"] = str(tmp_path_factory.mktemp("rsdiff_cache"))
