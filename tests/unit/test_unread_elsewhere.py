"""Options of one group that nothing reads beside another group's choice are refused, in a command and in Python alike."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import rsdiff
from rsdiff.app.composition import settings_of
from rsdiff.app.groups import GROUPS, RECIPES
from rsdiff.config import ConfigError, UserError
from rsdiff.runs.options import TAKEN_BY_SOME

CASES = {
    "a sampler's option for a regression": ("model=rrdb_tiny sampler.steps=10", "sampler.steps has no effect with this model"),
    "a sampler for a regression": ("model=rrdb_tiny sampler=ddim", "sampler= has no effect with this model, which restores without"),
    "a sampler beside a checkpoint of a regression": ("task=evaluate checkpoint=zoo:any_scale sampler=ddim", "sampler= has no effect with"),
    "a sampler's option for bicubic": ("task=evaluate model=bicubic sampler.eta=1", "restores without a sampler"),
    "clipping latents": ("model=ldcsr_tiny sampler.clip=true", "sampler.clip has no effect with this model, whose latents have no range"),
    "picking from a table that is not there": ("model=edm_sr_tiny sampler=ddim sampler.spacing=leading", "has no table of levels"),
    "a table that is not there": ("model=edm_sr_tiny sampler=ddim sampler.grid=table", "model=edm_sr_tiny has none; choose grid edm"),
    "more steps than levels": ("model=resshift_tiny sampler=ddim sampler.steps=40", "has 15 levels; choose 1 to 15 steps"),
    "a step of one's own": ("model=sr3_tiny sampler=ddim sampler.solver=native", "model=sr3_tiny has none; choose ddpm"),
    "a schedule without an end": ("model=sr3_tiny model.schedule.name=jsd", "model.schedule.name=jsd is not one of linear"),
    "a contrast that counts nothing": (
        "model=dasr_tiny model.contrast.weight=0 model.contrast.momentum=0.5",
        "model.contrast.weight=NUMBER",
    ),
    "rounding what no stage is handed": (
        "model=scdm_tiny dataset.bands=31 model.strides=[1] model.guidance_weights=[1.0] model.clamp_shares=[1.0] model.rounded_levels=9",
        r"model.rounded_levels has no effect with model.strides=\[1\]",
    ),
    "a ramp to a weight of 0": (
        "model=esrgan_tiny model.adversarial.weight=0 model.adversarial.ramp=[0,9]",
        "model.adversarial.ramp has no effect with model.adversarial.weight=0",
    ),
    "a first stage that is all": (
        "model=ttsr_tiny model.perceptual.weight=0 model.transferal=0 model.adversarial=0 model.reconstruction_steps=7",
        "model.reconstruction_steps has no effect",
    ),
    "an overlap of no tiles": ("model=ciaosr_tiny model.tile=0 model.tile_overlap=4", "model.tile_overlap has no effect with model.tile=0"),
    "a pixel size beyond the input's": ("model=lte_tiny model.largest_told=0.5", "at least 1, or 0 for no limit"),
    "an enlargement beyond those told": ("model=idm_tiny scale=16", "model.largest_scale=16"),
    "targets of another size than judged": ("model=esrgan_tiny trainer.patch=32", "set trainer.patch=64"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_nothing_reads_is_refused(case: str) -> None:
    words, sentence = CASES[case]
    with pytest.raises(ConfigError, match=sentence):
        rsdiff.compose(*words.split())


NEEDED = {"publish": {"title": "any", "does": "any", "data": ["any"], "licence": "any"}}
"""Options without which a task cannot be composed."""


def test_no_task_takes_a_group_or_setting_that_it_does_not_read() -> None:
    plain = dict(rsdiff.compose("task=evaluate", "model=bicubic").resolved)
    for task in GROUPS["task"]:
        options = GROUPS["task"][task]
        mine = {**plain, "task": {"kind": task, **NEEDED.get(task, {})}}
        choices = dict.fromkeys(GROUPS, "any") | {"task": task}
        assert options.needs | options.takes <= TAKEN_BY_SOME
        for group in GROUPS.keys() - options.uses - {"task", *(() if options.only_looks else ("logger",))}:
            beside = f"has no effect with task={task}, which reads no"
            words = {
                f"{group}.some.option=1": f"{group}.some.option {beside} option of {group}; leave it out",
                f"network@{group}.network=hat": f"{beside} option of {group}; leave it out",
                f"{group}=some/file": f"{group}=some/file {beside} {group}; leave it out",
            }
            for word, sentence in words.items():
                with pytest.raises(ConfigError, match=sentence):
                    settings_of(mine, choices, [word])
        if not options.uses and not options.starts_others:
            for recipe in RECIPES:
                with pytest.raises(ConfigError, match=f"{recipe}=one has no effect with task={task}, which reads no group of settings"):
                    settings_of(mine, choices, [f"{recipe}=one"])
        for setting in TAKEN_BY_SOME - options.takes - options.needs:
            with pytest.raises(ConfigError, match=f"^{setting}= has no effect with task={task}, which does not read it; leave it out"):
                settings_of(mine, choices, [f"{setting}=3"])


def test_what_the_module_of_a_task_reads_may_be_typed() -> None:
    for task, options in GROUPS["task"].items():
        if options.module.startswith("rsdiff."):
            source = Path(str(importlib.import_module(options.module).__file__)).read_text(encoding="utf-8")
            read = set(re.findall(r"\bsettings\.(?:options\.)?(\w+)", source)) & TAKEN_BY_SOME
            assert read <= options.takes | options.needs, f"{task} reads {read - options.takes - options.needs}"


def test_what_an_experiment_or_a_checkpoint_brings_may_serve_other_tasks() -> None:
    brought = rsdiff.compose("experiments=quick/edsr", "task=evaluate", "checkpoint=zoo:any_scale", "dataset=synthetic")
    assert "trainer" not in brought.groups
    with pytest.raises(ConfigError, match=r"^trainer=quick has no effect with task=evaluate, which reads no trainer; leave it out"):
        rsdiff.compose("experiments=quick/edsr", "task=evaluate", "trainer=quick")
    with pytest.raises(ConfigError, match="input= has no effect with task=train, which does not read it; leave it out, or choose"):
        rsdiff.compose("model=rrdb_tiny", "input=scene.tif")


def test_what_nothing_reads_is_refused_in_python_too() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="without a sampler"):
        rsdiff.load("bicubic").restore(image, sampler={"steps": 3})
    with pytest.raises(UserError, match=r"gain has no effect with .*scaling"):
        rsdiff.load("bicubic").restore(image, gain=2.0)
    with pytest.raises(UserError, match=r"seam_interval has no effect with metrics.metrics=\[psnr\]"):
        rsdiff.score(image, image, metrics=["psnr"], seam_interval=16)
