"""Weights for others: published with a card, listed in the zoo, and taken as zoo:NAME or hf:OWNER/NAME wherever a checkpoint is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rsdiff
from rsdiff.app.command_line import check_command
from rsdiff.app.words import for_hydra, words_of
from rsdiff.tasks.publish import for_others
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.weights import stores
from rsdiff.weights.about import about_of
from rsdiff.weights.stores import ALL_BYTES, MOST_BYTES, ZOO, zoo_entries
from tests.conftest import REPOSITORY, Command
from tests.runs.test_export import imported

__all__ = ["imported"]
SCENES = ["dataset.size=32", "dataset.train_images=2", "dataset.test_images=1", "metrics.metrics=[psnr]", "metrics.panels=1"]
CARD = [
    "task.title='A small one'",
    "task.does='Enlarges x4'",
    "task.data=['scenes (generated)']",
    "task.licence=MIT",
    "task.recipe='python run.py'",
]


@pytest.fixture
def published(run_command: Command, tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Weights in a folder that stands for the hub."""
    monkeypatch.setenv(stores.STORE, str(tmp_path / "hub"))
    scored = run_command("task=evaluate", f"checkpoint={imported}", *SCENES)
    assert scored.code == 0, scored.err
    (result,) = (tmp_path / "outputs/evaluate").glob("*/*")
    ended = run_command("task=publish", f"checkpoint={imported}", *CARD, f"task.results=[{result}]", "task.repository=me/small")
    assert ended.code == 0, ended.err
    return "hf:me/small"


def test_published_weights_are_used_like_any_checkpoint_and_results_name_them(
    run_command: Command, tmp_path: Path, imported: Path, published: str
) -> None:
    folder = tmp_path / "hub/me/small"
    about = about_of(folder)
    assert {"psnr"} == {row["metric"] for row in about.figures}
    assert f"python run.py task=evaluate checkpoint={imported.name} " in (folder / "README.md").read_text()
    assert not any(str(tmp_path) in (folder / name).read_text() for name in ("README.md", "card.json")), "where it lies on this machine"
    assert "checkpoint=hf:me/small" in (folder / "README.md").read_text()
    assert all(torch.equal(value, read_checkpoint(imported).weights[key]) for key, value in read_checkpoint(folder).weights.items())
    scored = run_command("task=evaluate", f"checkpoint={published}", "seed=1", *SCENES)
    assert scored.code == 0, scored.err
    assert "A small one" in scored.out
    assert "budget" not in scored.out
    assert rsdiff.load(published).restore(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).shape == (32, 32, 3)


def test_messages_name_an_entry_of_the_zoo_as_it_is_typed(run_command: Command, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    words = ("task=restore", f"input={tmp_path / 'a.png'}", f"output={tmp_path / 'b.png'}")
    sentences = {
        ("checkpoint=zoo:texture_x4", "scale=2"): "zoo:texture_x4 was trained at scale=4",
        ("checkpoint=zoo:any_scale", "model=rrdb"): "checkpoint=zoo:any_scale holds a model=lte_tiny",
        ("checkpoint=zoo/any_scale",): "zoo/any_scale does not exist (did you mean zoo:any_scale?)",
    }
    for given, sentence in sentences.items():
        refused = run_command(*words, *given)
        assert refused.code in (1, 2)
        assert sentence in refused.err
        assert str(ZOO) not in refused.err


def test_colleagues_may_read_what_is_written(run_command: Command, tmp_path: Path, imported: Path) -> None:
    evaluated = run_command("task=evaluate", f"checkpoint={imported}", *SCENES)
    assert evaluated.code == 0, evaluated.err
    (result,) = (tmp_path / "outputs/evaluate").glob("*/*")
    shared = run_command("task=publish", f"checkpoint={imported}", *CARD, f"task.results=[{result}]", f"output={tmp_path / 'shared'}")
    assert shared.code == 0, shared.err
    assert run_command("task=export", f"checkpoint={imported}", f"output={tmp_path / 'out.safetensors'}").code == 0
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "file").touch()
    usual = {is_folder: (tmp_path / place).stat().st_mode for is_folder, place in ((True, "usual"), (False, "usual/file"))}
    places = [*imported.rglob("*"), *(tmp_path / "outputs").rglob("*"), tmp_path / "shared", *(tmp_path / "shared").iterdir()]
    places.append(tmp_path / "out.safetensors")
    assert [str(place) for place in places if place.stat().st_mode != usual[place.is_dir()]] == []


def test_weights_that_are_not_those_of_the_card_are_refused(run_command: Command, tmp_path: Path, published: str) -> None:
    file = tmp_path / "hub/me/small/weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    refused = run_command("task=restore", f"checkpoint={published}", "input=a.tif", "output=b.tif")
    assert refused.code != 0
    assert "is not the file that its card names" in refused.err
    missing = run_command("task=restore", "checkpoint=hf:me/other", "input=a.tif", "output=b.tif")
    assert "is not in RSDIFF_HUB" in missing.err


def test_the_zoo_lists_its_entries_and_takes_no_large_one(
    run_command: Command, tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsdiff.weights.stores.ZOO", tmp_path / "zoo")
    (tmp_path / "zoo").mkdir()
    scored = run_command("task=evaluate", f"checkpoint={imported}", *SCENES)
    (result,) = (tmp_path / "outputs/evaluate").glob("*/*")
    words = [
        "task=publish",
        f"checkpoint={imported}",
        *CARD,
        f"task.results=[{result}]",
        f"output={tmp_path / 'zoo/small'}",
        "task.half=true",
    ]
    ended = run_command(*words)
    assert (scored.code, ended.code) == (0, 0), ended.err
    listed = run_command("task=zoo")
    assert listed.code == 0, listed.err
    assert all(word in listed.out for word in ("small", "A small one", "psnr", "bicubic", "scenes (generated)", "MIT"))
    assert json.loads((tmp_path / "zoo/small/card.json").read_text())["imported_from"]["file"] == "zoo:small"
    wrong = run_command("task=evaluate", "checkpoint=zoo:smal", *SCENES)
    assert "did you mean small?" in wrong.err
    monkeypatch.setattr("rsdiff.tasks.publish.MOST_BYTES", 1000)
    large = run_command(*words, "seed=1")
    assert "add task.half=true" in large.err
    assert (tmp_path / "zoo/small/card.json").exists()


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("dataset.root=/home/me/data/aid", "dataset.root=aid"),
        ("checkpoint=[/a/run_1,/b/run_2]", "checkpoint=[run_1,run_2]"),
        ("dataset.root='/home/my data/aid set'", "dataset.root='aid set'"),
        ("/home/me/aid_small", "aid_small"),
        ("dataset.test_pattern='[CMV]*/*'", "dataset.test_pattern='[CMV]*/*'"),
        ("experiments=quick/rrdb", "experiments=quick/rrdb"),
        ("metrics.protocol.peak=1/255", "metrics.protocol.peak=1/255"),
        ("checkpoint=hf:me/small", "checkpoint=hf:me/small"),
    ],
)
def test_cards_name_files_without_their_folders(typed: str, shown: str) -> None:
    assert for_others(typed) == shown


def test_a_card_without_figures_or_licence_is_refused(run_command: Command, imported: Path) -> None:
    words = ["task=publish", f"checkpoint={imported}", "output=o", *CARD]
    assert "add task.results=" in run_command(*words).err
    assert "task.licence" in run_command(*(word for word in words if "licence" not in word)).err


def test_the_zoo_of_this_repository_is_small_and_complete() -> None:
    entries = zoo_entries()
    assert sum(size for _, _, size in entries) <= ALL_BYTES
    for name, about, size in entries:
        assert size <= MOST_BYTES, name
        stores.require_intact(ZOO / name)
        assert all(row["value"] is not None for row in about.figures)
        assert for_others(read_checkpoint(ZOO / name).card) == read_checkpoint(ZOO / name).card, "folders of the machine that trained it"
        for command in {row["command"] for row in about.figures}:
            words = words_of(shlex.split(command.removeprefix("python run.py ")))
            assert f"checkpoint=zoo:{name}" in words.overrides, "figures of other weights"
            check_command(REPOSITORY / "conf", for_hydra(words)[len(words.flags) :], words.is_multirun)
