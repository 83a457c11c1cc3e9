"""What a training step and a sampling step of the published sizes cost, without a GPU: `make device-table`.

Shapes alone are computed. Launches, floating-point operations and bytes are those of PyTorch's operations, none fused; a host draw is one of
PyTorch's generators. Every row is a steady step: the second one, with caches and the optimiser's moments filled. The batch is given with its
LR where the loader's workers make it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose

from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.schemas import register_schemas
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import Degradation, degrade
from rsdiff.inference.images import restore_seeded
from rsdiff.methods.base import Method, Problem
from rsdiff.training.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.devices.pretended import PretendedAccelerator, Tally, device
from tests.devices.stand import Accelerator, Silent
from tests.runs.pairs import without_downloads


@dataclass(frozen=True)
class Published:
    """A published recipe: how it is chosen, and images per step, bands and scale."""

    words: tuple[str, ...]
    batch: int
    bands: int = 3
    scale: int = 4


RECIPES = {
    "sr3": Published(("experiments=sr3/vanilla_x4", "dataset=airs", "degradation=diffbsr_aniso"), 4),
    "diffbsr": Published(("experiments=diffbsr/iso_x4",), 8),
    "ldcsr": Published(("experiments=ldcsr/stage2",), 8),
    "refdiff": Published(("experiments=refdiff/second_x8",), 24, scale=8),
    "scdm": Published(("experiments=scdm/dfc2018",), 1, bands=48, scale=1),
}


@dataclass
class Cost:
    """What a step costs: times that the host waits, draws of the host, launches, floating-point operations, bytes."""

    waits: int
    draws: int
    launches: int
    flops: int
    bytes: int

    @staticmethod
    def of(tally: Tally, phase: str) -> Cost:
        return Cost(tally.count("sync", phase), tally.count("host draw", phase), tally.launches[phase], tally.flops, tally.bytes)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def batch_of(recipe: Published, degradation: Degradation, views: int, patch: int, needs_reference: bool, count: int) -> Batch:
    """Return a training batch of nothing, as the loader gives it."""
    small = patch // recipe.scale
    hr = torch.zeros(count, recipe.bands, patch, patch)
    metas = [SampleMeta(str(index), index) for index in range(count)]
    if needs_reference:
        lr, mask = torch.zeros(count, recipe.bands, small, small), torch.zeros(count, 1, patch, patch)
        return Batch(metas, (patch, patch), (small, small), hr=hr, lr=lr, ref=hr.clone(), change_mask=mask, decisions=[() for _ in metas])
    shape, lr_size = (recipe.bands, patch, patch), (small, small)
    decisions = [degradation.draw(keyed_generator(index), shape, lr_size, views) for index in range(count)]
    further = torch.zeros(count, views - 1, *shape) if views > 1 else None
    return Batch(metas, (patch, patch), lr_size, hr=hr, hr_views=further, decisions=decisions)


def measured(recipe: Published) -> tuple[Cost, Cost, str]:
    """Return what a training step and a sampling step of one image cost, and the size of the training step's batch."""
    with composing(REPOSITORY / "conf"):
        composed = compose(CONFIG_NAME, [*recipe.words, "dataset.root=nowhere"])
        model, trainer_config, sampler, chosen = (group_config(composed, group) for group in ("model", "trainer", "sampler", "degradation"))
    built = chosen.build()
    with torch.device("meta"):
        method: Method = without_downloads(model).build(Problem(float(recipe.scale), recipe.bands, chosen.lr_bands(recipe.bands)))

    def given(count: int) -> Batch:
        batch = batch_of(recipe, built, model.views, trainer_config.patch, "ref" in model.requires, count)
        in_workers = chosen.in_workers and batch.lr is None
        return replace(degrade(batch, built), decisions=[]) if in_workers else batch

    with tempfile.TemporaryDirectory() as store:
        accelerator: Any = Accelerator()
        with PretendedAccelerator(values=False) as tally:
            config = replace(trainer_config, accumulate=1)
            trainer = Trainer(config, method, built, lambda step: iter(()), lambda step: {}, Silent(), accelerator, Path(store), {}, 0)
            trainer.step = 5000  # averages have begun
            stage = trainer._enter_stage(None)
            batch = given(recipe.batch)
            for tally.phase in ("first step", "step"):
                before = (tally.flops, tally.bytes)
                trainer._optimise(stage, [batch])
    step = Cost.of(tally, "step")
    step.flops, step.bytes = tally.flops - before[0], tally.bytes - before[1]
    method.eval()
    found = []
    for steps in (2, 2, 3):
        with PretendedAccelerator(values=False) as tally, torch.no_grad():
            one = given(1).to(device())
            one = degrade(one, built) if one.lr is None else one
            tally.phase, tally.flops, tally.bytes = "restore", 0, 0
            restore_seeded(method, one, replace(sampler, steps=steps), 0)
        found.append(Cost.of(tally, "restore"))
    return step, found[2] - found[1], f"{recipe.batch} x {trainer_config.patch}^2"


def row(name: str, cost: Cost) -> str:
    return f"| {name} | {cost.waits} | {cost.draws} | {cost.launches} | {cost.flops / 1e12:.3g} | {cost.bytes / 1e9:.3g} |"


def main(names: Sequence[str]) -> None:
    """Print the table of these recipes, or of all."""
    register_schemas()
    print("| step | host waits | host draws | launches | TFLOP | GB |\n|---|---|---|---|---|---|")
    for name in names or RECIPES:
        step, sampling, size = measured(RECIPES[name])
        print(row(f"{name}, training, {size}", step), row(f"{name}, sampling, one image", sampling), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
