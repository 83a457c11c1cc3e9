"""Settings of a run from Python's objects: the same run as the command line's, without Hydra; and no task that knows the application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import rsdiff
from rsdiff.config import UserError
from rsdiff.data import SyntheticDataset
from rsdiff.degradations import BicubicConfig
from rsdiff.methods.bicubic import BicubicMethodConfig
from rsdiff.runs.options import RunOptions
from rsdiff.runs.working import do_run
from rsdiff.tasks.options import EvaluateTask, RestoreTask
from rsdiff.tasks.settings import typed_settings
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("words", [["model=sr3_tiny", "scale=2"], ["task=evaluate", "model=bicubic", "degradation=iso"]])
def test_objects_make_the_run_that_the_command_line_makes(words: list[str]) -> None:
    composed = rsdiff.compose(*words)
    built = typed_settings(composed.task, composed.options, **composed.groups)
    assert built.identity == composed.identity
    assert built.groups == composed.groups
    assert {name: value["kind"] for name, value in built.resolved.items() if isinstance(value, dict)}.items() <= {
        name: value["kind"] for name, value in composed.resolved.items() if isinstance(value, dict)
    }.items()


def test_a_run_of_objects_is_done_and_known_again_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = SyntheticDataset(size=32, test_images=1)
    groups = {"model": BicubicMethodConfig(), "dataset": data, "degradation": BicubicConfig()}
    again = rsdiff.compose("task=evaluate", "model=bicubic", "dataset.size=32", "dataset.test_images=1", "scale=2")
    run = typed_settings(EvaluateTask(), RunOptions(scale=2), **groups, sampler=again.sampler, metrics=again.metrics)
    assert do_run(run).state == "finished"
    assert again.decision.action == "finished"
    assert again.run_path == run.run_path


def test_the_run_of_the_manual_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/methods.md").read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "typed_settings" in block]
    names: dict[str, Any] = {}
    exec(lines.replace("size=64", "size=32, test_images=1"), names)
    assert names["status"].state == "finished"
    assert (names["run"].run_path / "report.html").exists()


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(UserError, match=r"EvaluateTask needs a dataset; give dataset=, such as \w+\(\)\."):
        typed_settings(EvaluateTask(), model=BicubicMethodConfig(), degradation=BicubicConfig())
    with pytest.raises(UserError, match="RestoreTask does not use a dataset; leave dataset= out"):
        typed_settings(RestoreTask(), model=BicubicMethodConfig(), dataset=SyntheticDataset())
    with pytest.raises(UserError, match="is none of the configs of model; give one such as"):
        typed_settings(RestoreTask(), model=BicubicConfig())


def test_nothing_below_the_application_names_it() -> None:
    """import-linter sees imports; this sees names of modules in text, such as 'module:Class'."""
    source = REPOSITORY / "src" / "rsdiff"
    above = {source / "app", source / "api", source / "__init__.py", source / "__main__.py"}
    named = [path for path in source.rglob("*.py") if not above & {path, *path.parents} and "rsdiff.app" in path.read_text()]
    assert named == []
