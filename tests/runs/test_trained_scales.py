"""At a scale that a checkpoint was not trained at, every way to restore says so, once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rsdiff
from rsdiff.methods import METHODS
from rsdiff.weights.stores import ZOO
from rsdiff.weights.trained_scales import trained_scales
from tests.runs.test_network_choice import BRIEF

OUTSIDE = "was trained at x1 to x4, and nothing is known of what it does at scale=5; compare with bicubic"
PICTURE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_a_scale_outside_the_training_is_cautioned_once(run_command: Callable[..., Any], tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(PICTURE).save(tmp_path / f"{name}.png")
    words = ("task=restore", "checkpoint=zoo:any_scale", f"input={tmp_path}", f"outputs={tmp_path / 'o'}", "task.preview=false")
    ended = run_command(*words, "scale=5", f"output={tmp_path / 'x5'}")
    assert (ended.code, ended.out.count(OUTSIDE)) == (0, 1), ended.err
    model = rsdiff.load("zoo:any_scale")
    with pytest.warns(UserWarning, match=OUTSIDE):
        model.restore(PICTURE, scale=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.restore(PICTURE, scale=2)


def test_a_training_keeps_its_scales_on_the_card(run_command: Callable[..., Any], tmp_path: Path) -> None:
    outputs = f"outputs={tmp_path}"
    ended = run_command("model=lte_tiny", "model.queries=64", *BRIEF, "trainer.scale_range=[1,2]", "scale=2", outputs)
    assert ended.code == 0, ended.err
    (card,) = tmp_path.rglob("card.json")
    assert json.loads(card.read_text())["scales"] == [1, 2]
    ended = run_command("task=evaluate", f"checkpoint={card.parents[2]}", "scale=4", outputs)
    assert (ended.code, ended.out.count("was trained at x1 to x2, and nothing is known of what it does at scale=4")) == (0, 1), ended.err


def test_every_card_says_at_which_scales_it_was_trained() -> None:
    for file in ZOO.glob("*/card.json"):
        card = json.loads(file.read_text())
        expected = (1, 4) if file.parent.name == "any_scale" else (card["problem"]["scale"],) * 2
        assert trained_scales(card) == expected
    assert METHODS["lte"]().trained_scales(4.0, (1.5, 3.0)) == (1.5, 3)
    assert METHODS["lte"]().trained_scales(4.0, None) == (4, 4)
    assert METHODS["idm"]().trained_scales(8.0, None) == (1, 8)  # it shrinks its targets itself
    old = {"config": {"trainer": {"scale_range": None}}, "problem": {"scale": 3.0}}
    assert trained_scales(old) == (3, 3)
    assert trained_scales({"config": {}, "problem": {"scale": 4.0}}) is None
