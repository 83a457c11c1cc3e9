"""What goes wrong in mid-run ends it in one sentence, or not at all; mended, the same command ends as if nothing had happened."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.faults.conftest import Commands
from tests.runs.test_training import SMALL

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(900)]

ARGUMENTS = [*(argument for argument in SMALL if not argument.startswith("dataset")), "outputs=out", "scale=2"]
IMAGES = ["dataset=folder", "dataset.root=in", "dataset.split=fraction"]


def pictures(folder: Path) -> None:
    (folder / "in").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for k in range(10):
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "in" / f"{k}.png")
    Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "in" / "other.image", format="png")


def weights(folder: Path) -> dict[str, Any]:
    (last,) = folder.glob("out/train/*/*/checkpoints/step_00000012/weights.safetensors")
    return dict(load_file(last))


@pytest.fixture(scope="module")
def undisturbed(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accidents") / "run"
    pictures(folder)
    ended = commands(*ARGUMENTS, *IMAGES, "trainer.workers=0", folder=folder)
    assert ended.code == 0, ended.said
    return folder


ACCIDENTS = {
    "a picture vanishes": ({"do": "delete", "to": "in/{picture}"}, ["{picture}", "does not exist"]),
    "a picture is replaced": ({"do": "replace", "to": "in/{picture}"}, ["{picture}", "changed since this run began"]),
    "a loader process is killed": ({"do": "kill a loader process"}, ["a process that loads images", "the same command"]),
    "the memory is full once": ({"do": "out of memory"}, ["memory is too small", "trainer.accumulate=auto"]),
    "the clock goes back by a day": ({"do": "clock"}, []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCIDENTS)
def test_an_accident_is_told_and_mended_the_run_goes_on(name: str, commands: Commands, undisturbed: Path, tmp_path: Path) -> None:
    accident, words = ACCIDENTS[name]
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("out"))
    (kept,) = undisturbed.glob("out/train/*/*")
    trained_on = sorted({line.split(",")[0] for line in (kept / "evaluation" / "records.csv").read_text().splitlines()[1:]})
    picture = next(path.name for path in sorted((folder / "in").glob("*.png")) if path.stem not in trained_on)
    fault = {"step": 5, **{key: value.format(picture=picture) for key, value in accident.items()}}
    workers = "trainer.workers=1" if "loader" in name else "trainer.workers=0"
    ended = commands(*ARGUMENTS, *IMAGES, workers, folder=folder, at_step=fault)
    assert ended.code == (1 if words else 0), ended.said
    last = ended.said.splitlines()[-1]
    assert not words or last.startswith("error: "), ended.said
    for word in words:
        assert word.format(picture=picture) in last
    shutil.copytree(undisturbed / "in", folder / "in", dirs_exist_ok=True)
    mended = commands(*ARGUMENTS, *IMAGES, workers, folder=folder)
    assert mended.code == 0, mended.said
    expected = weights(undisturbed)
    assert all((value == expected[name]).all() for name, value in weights(folder).items())
