"""Every tiny method with a batch of two images to be trained on, for laws that all methods keep."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rsdiff.data.sample import Batch, collate
from rsdiff.data.views import SampleKey, TrainingSamples
from rsdiff.degradations import Degradation
from rsdiff.degradations.test_sets import draw_of
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Method, Problem
from tests.runs.pairs import MODELS, SCALES, data_kinds, degradation_for, fresh, options, pairs

TRAINED = [name for name in MODELS if name != "bicubic"]
PREFERRED = ("diffbsr_iso", "blinddiff_setting1", "dan_setting1", "dasr_iso", "bands", "bicubic", "paired")
SIDE = 64


@dataclass(frozen=True)
class Trial:
    """A tiny method and a raw batch that it is trained on."""

    method: Method
    problem: Problem
    batch: Batch
    degradation: Degradation


@cache
def trial(model: str) -> Trial:
    """Return a fresh method and two images, by the first of the preferred degradations that the method allows."""
    allowed = [pair for pair in pairs([model]) if pair.data in ("synthetic", "synthetic48", "second_own_lr", "second")]
    pair = min(allowed, key=lambda one: PREFERRED.index(one.degradation) if one.degradation in PREFERRED else len(PREFERRED))
    data = data_kinds(SIDE)[pair.data]
    chosen = degradation_for(pair.degradation, data)
    built, source = chosen.build(), data.build("train", pair.scale)
    lr_bands = source.lr_bands if "lr" in source.gives else chosen.lr_bands(source.bands)
    samples = TrainingSamples(source, pair.scale, SIDE, 0, draw_of(built, source), views=options().models[model].views, small="pad")
    batch = collate([samples[SampleKey(0, index % len(samples), 0)] for index in range(2)])
    problem = Problem(pair.scale, source.bands, lr_bands)
    method = deepcopy(fresh(model, problem))
    assert pair.scale == SCALES.get(pair.data, pair.scale)
    return Trial(method.train(), problem, batch, built)


def losses_and_gradients(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return every loss of every stage and group, and the gradients, of a copy of the method."""
    found: dict[str, Tensor] = {}
    for stage in method.stages():
        copy = deepcopy(method)
        copy.train()
        copy.prepare_training()
        copy.start_stage(stage)
        for part in copy.passes(stage):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                for group, losses in copy.losses(batch, part, SeededNoise([(0,), (1,)], shared=(2,))).items():
                    found[f"{stage.name} {group}"] = losses.total.detach()
                    found |= {f"{stage.name} {group} {name}": value for name, value in losses.terms.items()}
                    losses.total.backward()
        found |= {f"{stage.name} d{name}": p.grad for name, p in copy.named_parameters() if p.grad is not None}
    return found
