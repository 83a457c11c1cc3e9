"""task=fit-levels as a user types it: levels are found for a checkpoint, and the command that is advised samples with them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command
from tests.runs.test_training import SMALL, run_folder

FIT = ("task=fit-levels", "sampler.steps=4", "trainer.patch=16")
DDIM = ("sampler=ddim", "sampler.clip=false")
FEW = ("task.images=4", "task.fine_steps=12", "task.rounds=1")


def newest(task: str) -> Path:
    return max(Path("outputs", task).glob("*/*/status.json"), key=lambda path: path.stat().st_mtime_ns).parent


@pytest.mark.xdist_group("training")
def test_levels_are_fitted_to_a_checkpoint_and_the_advised_command_uses_them(run_command: Command) -> None:
    ended = run_command(*SMALL, "dataset.train_images=20", "trainer.workers=0", "trainer.steps=4", "metrics.panels=0")
    assert ended.code == 0, ended.err
    run = run_folder(Path("outputs"))

    def fitted(*words: str) -> tuple[dict[str, Any], dict[str, Any], str]:
        ended = run_command(*FIT, f"checkpoint={run}", *words)
        assert ended.code == 0, ended.err
        (written,) = newest("fit-levels").glob("conf/sampler/*.yaml")
        summary = json.loads((newest("fit-levels") / "status.json").read_text())["summary"]
        return yaml.safe_load(written.read_text()), summary, ended.out

    levels, summary, said = fitted(*DDIM, *FEW)
    assert summary["levels"] == len(levels["sigmas"]) == 4
    assert summary["error_after"] < summary["error_before"]
    (advice,) = [line for line in said.splitlines() if "python run.py" in line]
    used = run_command(*shlex.split(advice[advice.index("run.py") + len("run.py") :]))
    assert used.code == 0, used.err
    sampler = yaml.safe_load((newest("evaluate") / "config.yaml").read_text())["sampler"]
    assert (sampler["solver"], sampler["grid"], sampler["sigmas"]) == ("ddim", "list", levels["sigmas"])
    assert sampler["clip"] is False

    # Every option has an effect.
    assert fitted(*DDIM, "task.images=4", "task.fine_steps=12", "task.rounds=0")[0]["sigmas"] != levels["sigmas"]
    assert fitted(*DDIM, "task.images=4", "task.fine_steps=9", "task.rounds=1")[1]["error_before"] != summary["error_before"]
    assert fitted(*DDIM, "task.images=2", "task.fine_steps=12", "task.rounds=1")[1]["error_before"] != summary["error_before"]
    third = fitted("sampler=unipc", "sampler.order=3", *FEW)[0]
    assert (third["solver"], third["order"], third["clip"]) == ("unipc", 3, True)


def test_what_cannot_be_fitted_is_refused_in_a_sentence(run_command: Command) -> None:
    ended = run_command(*SMALL, "trainer.workers=0", "trainer.steps=1", "metrics.panels=0")
    assert ended.code == 0, ended.err
    run = run_folder(Path("outputs"))
    for words, sentence in (
        (DDIM, "ten training images or more"),
        ((*DDIM, "dataset.train_images=10", "task.fine_steps=4"), "no finer than the 4 levels"),
        ((*DDIM, "dataset.train_images=10", "task.fine_steps=100000"), "task.fine_steps=100000 gives no fine solution"),
        (("sampler=ddpm",), "draw no noise in their steps"),
        ((*DDIM, "sampler.eta=1"), "draw no noise in their steps"),
        (("task.rounds=-1",), "rounds is -1"),
    ):
        refused = run_command(*FIT, f"checkpoint={run}", *words)
        assert refused.code != 0, words
        assert sentence in refused.err, (words, refused.err)
