"""task=restore as a user types it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from rsdiff.config import plain_values
from rsdiff.data.normalisation import Normaliser
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.sr3 import SR3Config
from rsdiff.training.checkpoints import write_checkpoint
from tests.conftest import Command
from tests.scene_methods import landscape, pixels, write_raster


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    write_raster(folder / "a.tif", landscape(3, 40, 50))
    write_raster(folder / "b.tif", landscape(3, 30, 20))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of an untrained SR3."""
    config = SR3Config(width=8, multipliers=(1, 2, 2, 2), blocks=1, norm_groups=4, dropout=0.0, nominal_size=16, attention_sizes=())
    problem = Problem(4.0, 3, 3)
    sampler = SamplerConfig(solver="ddim", steps=2, clip=True)
    settings = {"model": {"kind": "sr3", **plain_values(config)}, "sampler": {"kind": "solver", **plain_values(sampler)}, "scale": 4.0}
    card = {
        "config": settings,
        "choices": {"model": "sr3_quick", "sampler": "ddim"},
        "problem": asdict(problem),
        "normaliser": asdict(Normaliser((0.0,), (255.0,))),
    }
    return write_checkpoint(tmp_path / "checkpoints", 0, config.build(problem).state_dict(), [], card, None)


def test_a_checkpoint_alone_restores_a_raster_and_shows_it(run_command: Command, scenes: Path, checkpoint: Path) -> None:
    arguments = ["task=restore", f"checkpoint={checkpoint}", f"input={scenes / 'a.tif'}", "output=out/a_x4.tif", "task.tile=32"]
    ended = run_command(*arguments)
    assert ended.code == 0, ended.err
    with rasterio.open("out/a_x4.tif") as file:
        assert (file.height, file.width, file.tags()["RSDIFF_MODEL"]) == (160, 200, "sr3_quick")
    assert "a.tif: 50 x 40 to 200 x 160 pixels in 6 tiles of 32" in ended.out
    assert Image.open("out/a_x4_preview.png").size == (200, 160)
    assert Path("out/a_x4_preview.html").read_text().count("<img") == 4
    assert "already finished" in run_command(*arguments).out
    assert not [path for path in Path("out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("given", ["scenes", "scenes/*.tif", "list.txt", "[scenes/a.tif,scenes/b.tif]", "[scenes/*.tif,scenes/a.tif]"])
def test_folders_patterns_and_lists_are_restored_file_by_file(run_command: Command, scenes: Path, given: str) -> None:
    Path("list.txt").write_text(f"{scenes / 'a.tif'}\n\n{scenes / 'b.tif'}\n")
    ended = run_command("task=restore", "model=bicubic", "scale=2", f"input={given}", "output=out", "task.preview=false")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_x2.tif", "b_x2.tif"]


def test_tiled_bicubic_equals_bicubic_of_the_whole_image(run_command: Command, scenes: Path) -> None:
    for tile in (16, 64):
        tiles = f"task.tile={tile}", f"task.overlap={min(tile // 2, 8)}"
        run_command("task=restore", "model=bicubic", f"input={scenes / 'a.tif'}", f"output=tile{tile}.tif", *tiles, "task.preview=false")
    words = ("task.tile=32", "task.overlap=auto", "task.preview=false")
    said = run_command("task=restore", "model=bicubic", f"input={scenes / 'a.tif'}", "output=auto.tif", *words).out
    assert "task.overlap=auto: 4 pixels, since one changes the result up to 2 around itself" in said
    for name in ("tile16.tif", "auto.tif"):
        difference = np.abs(pixels(Path(name)).astype(int) - pixels(Path("tile64.tif")))
        assert difference[:, :-8, :-8].max() <= 1  # only the last rounding differs inside the scene
        assert difference.mean() < 0.02


def test_a_run_that_was_killed_between_scenes_keeps_the_finished_ones(run_command: Command, scenes: Path) -> None:
    arguments = ["task=restore", "model=bicubic", f"input={scenes}", "output=out", "task.preview=false"]
    run_command(*arguments)
    (status,) = Path("outputs/restore").glob("*/*/status.json")
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "interrupted"}))
    before = Path("out/a_x4.tif").stat().st_mtime_ns
    Path("out/b_x4.tif").unlink()
    assert run_command(*arguments).code == 0
    assert Path("out/a_x4.tif").stat().st_mtime_ns == before
    assert Path("out/b_x4.tif").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["input=nowhere.tif", "output=o.tif"], "input=nowhere.tif does not exist"),
        (["input=scenes/*.jp2", "output=o"], "matches no file"),
        (["input=empty", "output=o"], "is a folder without images"),
        (["input=scenes", "output=o.tif"], "is 2 rasters and output=o.tif is one file; give a folder"),
        (["input=scenes/a.tif", "output=scenes/a.tif"], "is the input; give another name"),
        (["input=scenes", "output=scenes"], "among which the results would be next time; give another folder"),
        (["input=[]", "output=o"], "input=[] is empty"),
        (["input=[scenes/a.tif,empty/a.png]", "output=o"], "would have the same name; restore them one after the other"),
        (["input=scenes/a.tif", "output=o.tif", "task.window=[0,0,5]"], "task.window=[0, 0, 5] is not accepted: it needs 4 values."),
        (["input=scenes/a.tif", "output=o.tif", "task.nodata=-1"], "which task.nodata says is missing"),
        (["input=[scenes/a.tif,nowhere.tif]", "output=o"], "input=nowhere.tif does not exist"),
        (["input=text.tif", "output=o.tif"], "text.tif is not an image of a known format"),
        (["input=scenes/a.tif", "output=o.tif", "model=sr3_quick"], "task=restore needs checkpoint=RUN_FOLDER"),
        (["input=scenes/a.tif"], "task=restore needs output"),
        (["input=scenes/a.tif", "output=o.tif", "task.tile=16", "task.overlap=9"], "more than half of tile=16"),
        (["input=scenes/a.tif", "output=/proc/none/o.tif"], "/proc/none"),
    ],
)
def test_a_mistake_ends_in_one_sentence(run_command: Command, scenes: Path, arguments: list[str], sentence: str) -> None:
    Path("empty").mkdir()
    if "empty/a.png" in arguments[0]:
        Path("empty/a.png").touch()
    Path("text.tif").write_text("no raster")
    ended = run_command("task=restore", "model=bicubic", *arguments)
    assert ended.code != 0
    assert sentence in ended.err
    assert "Traceback" not in ended.err
