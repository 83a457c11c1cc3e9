"""What Hydra's manual says, typed with the shipped configs in a fresh process; tests/runs/test_hydra.py has the same of toys, in detail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY
from tests.runs.test_hydra import type_commands

NAMES = ("a b ü", "中文", "x=1,2", "#1 (c)", "[x]", "it's", 'say "hi"', "${x}", "~t")
READ_BY_ALL = ("x=1,2", "${x}")
"""What is tried with every kind of path, not only a raster's."""
SMALL = ["task=evaluate", "model=bicubic", "dataset.size=32", "dataset.test_images=1", "metrics.metrics=[psnr]"]


def states(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["state"] for path in sorted(folder.glob("run_*.json"))]


def test_flags_lists_folders_and_interpolations_work_in_a_process(tmp_path: Path) -> None:
    many = ["model=glob(bicubi*)", "seed=range(0,2)", "degradation=choice(bicubic,iso)", "hydra.sweep.dir=there"]
    logged = ["hydra/job_logging=default", "seed=11,12"]
    swept, chosen, without, moved, told, known, unknown, tree, all_of, resolved = type_commands(
        tmp_path,
        ["-m", *SMALL, *many],
        [*SMALL, "hydra.run.dir=here/one"],
        [*SMALL, "~trainer", "seed=5"],
        [*SMALL, "hydra.job.chdir=true", "seed=9"],
        ["-m", *SMALL, *logged],
        [*SMALL, "seed=${oc.env:MY_SEED}"],
        [*SMALL, "seed=${oc.env:NO_SUCH_VARIABLE}"],
        ["--info", "defaults-tree"],
        ["--cfg", "all"],
        ["--cfg", "job", "--resolve", "model=sr3_tiny", "scale=8", "--package", "model"],
        MY_SEED="77",
    )
    for ended in (swept, chosen, without, moved, told, known, tree, all_of, resolved):
        assert ended[0] == 0, ended
    assert states(tmp_path / "there") == ["finished"] * 4
    assert (tmp_path / "here" / "one" / "status.json").exists()
    assert len(list((tmp_path / "outputs" / "evaluate").glob("*/*/status.json"))) == 4 + 1 + 1 + 2 + 1
    for record in (tmp_path / "outputs" / "sweeps").glob("*/run_*.json"):
        run = record.parent / json.loads(record.read_text())["folder"]
        assert (run / "run.log").read_text()
    assert unknown[0] == 2
    assert "seed takes its value from the environment variable NO_SUCH_VARIABLE" in unknown[2]
    assert "sweeps: " in tree[1] or "sweeps" in tree[1]
    assert "hydra:" in all_of[1]
    assert "${" not in resolved[1]


def test_paths_are_taken_as_typed_of_all_that_is_read_and_written(tmp_path: Path) -> None:
    pixels = (np.random.default_rng(0).random((40, 40, 3)) * 255).astype(np.uint8)
    commands = []
    for name in NAMES:
        place = tmp_path / name
        place.mkdir()
        for number in range(3):
            Image.fromarray(pixels + np.uint8(number)).save(place / f"{number} {name}.png")
        given, made = f"{name}/0 {name}.png", f"{name}/made {name}.png"
        commands.append(["task=restore", "model=bicubic", "scale=2", f"input={given}", f"output={made}", "task.preview=false"])
        if name in READ_BY_ALL:
            commands.append(["task=prepare", "dataset=folder", f"source={name}", f"output={name}/packed {name}.h5"])
            commands.append(["task=evaluate", "model=bicubic", "dataset=folder", f"dataset.root={name}", "metrics.metrics=[psnr]"])
            shutil.copytree(REPOSITORY / "zoo" / "any_scale", place / f"weights {name}")
            commands.append(["task=restore", f"checkpoint={name}/weights {name}", f"input={given}", f"output={name}/sharp.png", "seed=2"])
    for words, ended in zip(commands, type_commands(tmp_path, *commands), strict=True):
        assert ended[0] == 0, (words, ended)
    for name in NAMES:
        with Image.open(tmp_path / name / f"made {name}.png") as made:
            assert made.size == (80, 80)
    assert {path.parent.name for path in tmp_path.glob("*/sharp.png")} == set(READ_BY_ALL)
    assert {path.parent.name for path in tmp_path.glob("*/packed *.h5")} == set(READ_BY_ALL)
