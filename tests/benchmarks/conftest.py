"""The table of all ratios, printed after the benchmarks."""

from __future__ import annotations

import pytest

from tests.benchmarks.ratios import Table

TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    """The table that a benchmark adds its lines to."""
    return pytestconfig.stash[TABLE]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[TABLE].lines:
        terminalreporter.write_line(config.stash[TABLE].text())
