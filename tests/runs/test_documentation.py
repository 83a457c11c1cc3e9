"""What the documentation tells a user to type is accepted, and the two lists of dependencies agree."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rsdiff.app.command_line import check_command, with_options_of_checkpoint
from rsdiff.app.groups import register_schemas
from rsdiff.app.help import INTRODUCTION
from rsdiff.training.checkpoints import CheckpointError
from tests.conftest import REPOSITORY


def commands() -> Iterator[str]:
    """Yield the arguments of every `python run.py` in the README and in the help; '#' or two spaces begin their comments."""
    for line in [*(REPOSITORY / "README.md").read_text().splitlines(), *INTRODUCTION.splitlines()]:
        found = re.match(r"\s*(?:python|accelerate launch) run\.py ?(.*)", line)
        if found:
            yield re.split(r"  |#", found[1])[0].strip()


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_documented_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSDIFF_REPOSITORY", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    register_schemas()
    arguments = [argument for argument in shlex.split(command) if argument not in ("--help", "--cfg", "job")]
    try:
        overrides = with_options_of_checkpoint(REPOSITORY / "conf", [argument for argument in arguments if argument != "-m"])
        check_command(REPOSITORY / "conf", overrides, "-m" in arguments)
    except CheckpointError as error:
        assert "RUN_FOLDER does not exist" in str(error)  # noqa: PT017 - the user has one, the test has not


def test_conda_and_pip_install_the_same() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == [*wanted, "-e ."]
