"""task=schema: editors accept every YAML file of this repository and mark what rsdiff would refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from rsdiff.app.yaml_schema import files_of, schemas
from tests.conftest import REPOSITORY, Command


class Editor(yaml.SafeLoader):
    """Reads YAML 1.2, as editors and Hydra do: 1e-4 is a number."""


NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
Editor.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return schemas()


def shipped() -> Iterator[tuple[str, Path]]:
    for name, patterns in files_of().items():
        for pattern in patterns:
            yield from ((name, path) for path in sorted(REPOSITORY.glob(pattern)))


def test_every_shipped_file_is_accepted(made: dict[str, Any]) -> None:
    seen = set()
    for schema in made.values():
        Draft7Validator.check_schema(schema)
    for name, path in shipped():
        content = yaml.load(path.read_text(), Loader=Editor) or {}
        errors = [f"{path}: {error.json_path} {error.message}" for error in Draft7Validator(made[name]).iter_errors(content)]
        assert not errors, errors[:3]
        seen.add(name)
    assert {"model", "dataset", "network", "experiment", "trainer"} <= seen


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trainer", "stepps: 10"),
        ("trainer", "kind: trainer\nsteps: many"),
        ("model", "kind: sr3\nwidht: 64"),
        ("model", "kind: sr4"),
        ("model", "kind: sr3\nqueries: 3"),
        ("dataset", "kind: folder\nsplit: sometimes"),
        ("experiment", "trainer: {optimiser: {learning: 1e-4}}"),
        ("experiment", "scal: 4"),
        ("network", "kind: hat\nwidth: wide"),
    ],
)
def test_mistakes_are_marked(made: dict[str, Any], name: str, text: str) -> None:
    assert list(Draft7Validator(made[name]).iter_errors(yaml.load(text, Loader=Editor))), text


def test_options_carry_their_sentence_and_default(made: dict[str, Any]) -> None:
    steps = made["trainer"]["properties"]["steps"]
    assert isinstance(steps["default"], int)
    assert steps["description"]


def test_the_task_writes_them_and_says_how_an_editor_finds_them(run_command: Command, tmp_path: Path) -> None:
    ended = run_command("task=schema", "output=schemas")
    assert ended.code == 0, ended.err
    setting = json.loads(ended.out[ended.out.index("{") :])["yaml.schemas"]
    assert setting["./schemas/experiment.json"] == ["experiments/**/*.yaml", "sweeps/**/*.yaml"]
    assert all((tmp_path / place).is_file() for place in setting)
