"""W&B's sweep files and workspace, as far as they can be tested without its service."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from rsdiff.app.command_line import check_command
from rsdiff.app.schemas import register_schemas
from rsdiff.training.checkpoints import CheckpointError
from tests.conftest import REPOSITORY

SWEEPS = sorted((REPOSITORY / "sweeps" / "wandb").glob("*.yml"))


def agent_commands(file: Path) -> list[list[str]]:
    """The settings that `wandb agent` gives to run.py for every run of a grid sweep."""
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] == "grid"
    names = list(sweep["parameters"])
    commands = []
    for values in itertools.product(*(sweep["parameters"][name]["values"] for name in names)):
        arguments = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        assert sweep["command"][:3] == ["${env}", "python", "${program}"]
        commands.append([part for word in sweep["command"][3:] for part in (arguments if word == "${args_no_hyphens}" else [word])])
    return commands


def test_there_is_a_sweep_file_for_every_ablation() -> None:
    assert [file.stem for file in SWEEPS] == sorted(file.stem for file in (REPOSITORY / "sweeps").glob("ablation_*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_an_agent_runs_what_the_multirun_runs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    program = REPOSITORY / yaml.safe_load(file.read_text())["program"]
    assert program.is_file()
    ablation = yaml.safe_load((REPOSITORY / "sweeps" / f"{file.stem}.yaml").read_text())
    swept = ablation["hydra"]["sweeper"]["params"]
    agents = agent_commands(file)
    for name, values in swept.items():
        assert [f"{name}={value}" for value in str(values).split(",")] == [command[-1] for command in agents]
    first = agents[0]
    try:
        check_command(REPOSITORY / "conf", first, multirun=False)
    except CheckpointError as error:
        assert "RUN_FOLDER does not exist" in str(error)  # noqa: PT017 - the user has one, the test has not
    checked = [setting for setting in first if not setting.startswith(("checkpoint=", "task="))]
    checked = ["model=sr3_tiny", *checked]  # in place of the checkpoint's; a later one wins
    assert len(check_command(REPOSITORY / "conf", checked, multirun=False).runs) == 1


def test_the_workspace_shows_losses_quality_tables_and_pictures() -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed (pip install 'rsdiff[dashboards]')")
    from rsdiff.tracking.workspace import make_workspace

    sections = {section.name: len(section.panels) for section in make_workspace("someone", "rsdiff").sections}
    assert list(sections) == ["Training", "Quality against cost", "Results per degradation", "Pictures"]
    assert min(sections.values()) >= 1
