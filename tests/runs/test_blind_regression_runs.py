"""DANv2, DCLS, DRSR and DASR as a user runs them: trained on generated scenes, with kernels in the report, and from released weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from rsdiff.config import config_from_mapping
from rsdiff.methods import METHODS
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.weights import export_weights
from tests.conftest import Command
from tests.runs.short import SHORT as SHORT_RUN
from tests.runs.short import scenes

SCENES = scenes(48, 2)
SHORT = [*SHORT_RUN, "trainer.patch=48", "trainer.validate_every_steps=2", "metrics.metrics=[psnr]"]
DEGRADATIONS = {"danv2": "dan_setting1", "dcls": "dcls_setting1", "drsr": "drsr", "dasr": "dasr_aniso"}
BUDGET = {"drsr": "quick", "dasr": "quick"}
SHORTER = {
    "danv2": ["model.basis.count=200"],
    "drsr": ["model.hr_contrast_steps=1", "model.lr_contrast_steps=0"],
    "dasr": ["model.contrast_steps=1"],
}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation" / "records.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_tiny_model_trains_and_comes_back_from_its_published_form(run_command: Command, tmp_path: Path, kind: str) -> None:
    settings = [f"model={kind}_{BUDGET.get(kind, 'tiny')}", f"degradation={DEGRADATIONS[kind]}", "scale=2", *SCENES, *SHORTER.get(kind, [])]
    trained = run_command(*settings, *SHORT)
    assert trained.code == 0, trained.err
    (folder,) = (tmp_path / "outputs/train").glob("*/*")
    rows = table(folder)
    assert len(rows) == 2
    assert ("kernel_psnr" in rows[0]) == ("Kernel PSNR" in trained.out) == (kind in ("danv2", "dcls"))

    checkpoint = read_checkpoint(folder)
    options = {name: value for name, value in checkpoint.card["config"]["model"].items() if name != "kind"}
    published = tmp_path / f"{kind}.pth"
    torch.save(export_weights(kind, config_from_mapping(METHODS[kind], options, "model"), checkpoint.weights), published)
    imported = run_command("task=import", f"source={published}", f"output={tmp_path / 'imported'}", *settings)
    assert imported.code == 0, imported.err
    (card,) = (tmp_path / "imported").rglob("card.json")
    weights = read_checkpoint(card.parent).weights
    assert weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in weights.items())
