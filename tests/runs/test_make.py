"""What a user types after `make`: a variable that nothing reads, a name that does not exist or data that are missing end in a sentence."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from documentation.names import chosen
from tests.conftest import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()
ALWAYS = {"PYTHON", "VENV", "BIN", "STAMP", "MAKE"}


def make(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type `make WORDS` as if the environment in `folder` were installed; its programs do nothing."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/python").symlink_to("/bin/true")
    (folder / ".installed").touch()
    command = ["make", f"VENV={folder}", "-o", f"{folder}/.installed", *shlex.split(words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def reads(target: str) -> set[str]:
    """Return the variables in capitals that the recipe of a target names."""
    recipe = re.search(rf"^{target}:.*\n((?:[\t ].*\n)*)", MAKEFILE, re.MULTILINE)
    assert recipe, target
    return set(re.findall(r"\$\((?:\w+ )*([A-Z_]+)\b", recipe[1])) - ALWAYS - {"PROOFS", "LOCKING"}


def test_every_target_lists_the_variables_that_it_reads() -> None:
    listed = {name: set(values.split()) for name, values in re.findall(r"^VARIABLES_([a-z-]+) = (.*)$", MAKEFILE, re.MULTILINE)}
    targets = re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE)
    assert {name: reads(name) for name in targets if reads(name)} == listed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("leaderboard MINUTE=4", "make leaderboard does not read MINUTE; it reads DATA_ROOT, JOBS, "),
        ("benchmark MODELS=rrdb", "make benchmark does not read MODELS; it reads PYTHON, VENV"),
        ("proof METHOD=foo", "METHOD=foo has no such training; choose among blinddiff, "),
        ("proof DATA_ROOT=nowhere", "nowhere does not exist; give DATA_ROOT=FOLDER"),
    ],
)
def test_a_variable_that_leads_nowhere_is_refused(words: str, sentence: str, tmp_path: Path) -> None:
    ended = make(words, tmp_path)
    assert ended.returncode == 2
    assert sentence in ended.stderr


def test_names_are_separated_by_commas_or_spaces(tmp_path: Path) -> None:
    for number, names in enumerate(("rrdb,sr3", '"rrdb sr3"')):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert '-k "rrdb or sr3"' in make(f"matrix MODELS={names}", folder).stdout


def test_names_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(SystemExit, match=r"sr4 is no recipe \(did you mean sr3\?\); choose among sr3, edm_sr\."):
        chosen(["sr4"], ["sr3", "edm_sr"], "recipe")
    assert chosen([], ["sr3", "edm_sr"], "recipe") == ["sr3", "edm_sr"]
