"""Every file that the repository ships as an option of a group can be chosen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose

from rsdiff.app.command_line import CONFIG_NAME, check_command, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of
from rsdiff.app.groups import GROUPS
from rsdiff.app.help import field_sentences
from rsdiff.app.schemas import register_schemas
from rsdiff.config import ConfigError
from tests.conftest import REPOSITORY
from tests.devices.gpu_proof import training_words

CONF = REPOSITORY / "conf"
OPTIONS = [(group, option) for group in GROUPS for option in options_of(CONF / group)]


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()


@pytest.fixture
def hydra_at_hand(repository: None) -> Iterator[None]:
    """Hydra composes here. For one test only: a command that is checked takes Hydra away again."""
    with composing(CONF):
        yield


@contextmanager
def leaving_paths_open() -> Iterator[None]:
    """Allow for the one thing that a shipped file may leave open: a path that only the user knows."""
    try:
        yield
    except ConfigError as error:
        if "is required and was not given" not in str(error):
            raise


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["=".join(pair) for pair in OPTIONS])
def test_every_option_of_every_group_composes_and_has_the_right_types(hydra_at_hand: None, group: str, option: str) -> None:
    with leaving_paths_open():
        assert type(group_config(compose(CONFIG_NAME, [f"{group}={option}"]), group)) in GROUPS[group].values()


@pytest.mark.parametrize("folder", ["experiments", "sweeps"])
def test_every_experiment_and_sweep_could_run(folder: str) -> None:
    for option in options_of(REPOSITORY / folder):
        try:
            with leaving_paths_open():
                check_command(CONF, [f"{folder}={option}"], multirun=False)
        except ConfigError as error:
            if "pip install" not in str(error) or find_spec("optuna") is not None:
                raise
            print(f"{folder}={option} was left out: {error}")


@pytest.mark.parametrize("data", [None, "folder"])
@pytest.mark.parametrize("is_small", [False, True], ids=["proof", "rehearsal"])
def test_the_training_that_a_gpu_shows_could_run(data: str | None, is_small: bool) -> None:
    check_command(CONF, training_words(30.0, is_small, data), multirun=False)


def test_every_group_has_a_shipped_option_for_each_kind(hydra_at_hand: None) -> None:
    shipped: dict[str, set[str]] = {group: set() for group in GROUPS}
    columns = {group: options_of(CONF / group) for group in GROUPS}
    for row in range(max(map(len, columns.values()))):  # an option of each group at a time: composing takes long
        chosen = {group: options[row] for group, options in columns.items() if row < len(options)}
        composed = compose(CONFIG_NAME, [f"{group}={option}" for group, option in chosen.items()])
        for group in chosen:
            shipped[group].add(str(composed[group].kind))
    assert shipped == {group: set(table) for group, table in GROUPS.items()}


def test_every_option_has_a_sentence() -> None:
    for group, table in GROUPS.items():
        for kind, cls in table.items():
            without = {field.name for field in dataclasses.fields(cls)} - {name for name, text in field_sentences(cls).items() if text}
            assert not without, f"{group} {kind}: {sorted(without)}"


def test_files_are_short_and_say_what_they_are() -> None:
    for path in sorted(CONF.rglob("*.yaml")):
        assert len(path.read_text().splitlines()) <= 60, path


def test_no_file_names_a_machine() -> None:
    for path in [*CONF.rglob("*.yaml"), *Path(REPOSITORY / "experiments").rglob("*.yaml")]:
        assert "/home/" not in path.read_text()
        text = path.read_text().replace("source=/data/", "")
        assert not re.search(r"(?<![\w.}])/data/", text), path  # a folder of a site or below another one may have the name
