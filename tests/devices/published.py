"""What a training step and a sampling step of the published sizes cost, without a GPU: `make device-table`.

Shapes alone are computed. Launches, floating-point operations and bytes are those of PyTorch's operations, none fused; a host draw is one
of PyTorch's generators, and host time is what a core spends in operations on tensors of the CPU. Every row is a steady step: the second
one, with caches and the optimiser's moments filled. The batch is given with its LR where the loader's workers make it.
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

from documentation.names import chosen
from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.schemas import register_schemas
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import degrade
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_seeded
from rsdiff.methods.base import Method, Problem
from rsdiff.training.config import TrainerConfig
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
    """What a step costs: times that the host waits, draws of the host, nanoseconds of the host, launches, operations, bytes."""

    waits: int
    draws: int
    host: int
    launches: int
    flops: int
    bytes: int

    @staticmethod
    def of(tally: Tally, phase: str) -> Cost:
        waits, draws = tally.count("sync", phase), tally.count("host draw", phase)
        host = sum(spent for (at, _), spent in tally.host.items() if at == phase)
        return Cost(waits, draws, host, tally.launches[phase], tally.flops, tally.bytes)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __truediv__(self, count: int) -> Cost:
        return Cost(*(round(getattr(self, f.name) / count) for f in fields(self)))


@dataclass(frozen=True)
class Composed:
    """What a recipe is made of."""

    recipe: Published
    model: Any
    trainer: TrainerConfig
    sampler: SamplerConfig
    degradation: Any

    @staticmethod
    def of(recipe: Published) -> Composed:
        with composing(REPOSITORY / "conf"):
            composed = compose(CONFIG_NAME, [*recipe.words, "++dataset.root=nowhere"])
            return Composed(recipe, *(group_config(composed, group) for group in ("model", "trainer", "sampler", "degradation")))

    def method(self) -> Method:
        """Return the method with weights that are drawn."""
        bands, lr_bands = self.recipe.bands, self.degradation.lr_bands(self.recipe.bands)
        return without_downloads(self.model).build(Problem(float(self.recipe.scale), bands, lr_bands))

    def batch(self, count: int) -> Batch:
        """Return a training batch of zeros as the loader gives it."""
        built, views, patch = self.degradation.build(), self.model.views, self.trainer.patch
        small, bands = patch // self.recipe.scale, self.recipe.bands
        hr = torch.zeros(count, bands, patch, patch)
        metas = [SampleMeta(str(index), index) for index in range(count)]
        if "ref" in self.model.requires:
            lr, mask = torch.zeros(count, bands, small, small), torch.zeros(count, 1, patch, patch)
            nothing: list[Any] = [() for _ in metas]
            return Batch(metas, (patch, patch), (small, small), hr=hr, lr=lr, ref=hr.clone(), change_mask=mask, decisions=nothing)
        shape, lr_size = (bands, patch, patch), (small, small)
        decisions = [built.draw(keyed_generator(index), shape, lr_size, views) for index in range(count)]
        further = torch.zeros(count, views - 1, *shape) if views > 1 else None
        batch = Batch(metas, (patch, patch), lr_size, hr=hr, hr_views=further, decisions=decisions)
        return replace(degrade(batch, built), decisions=[]) if self.degradation.in_workers else batch

    def tested(self, device: torch.device) -> Batch:
        """Return one image to restore, on `device`."""
        one = self.batch(1).to(device)
        return degrade(one, self.degradation.build()) if one.lr is None else one

    def trainer_of(self, method: Method, accelerator: Any, store: Path, **changed: Any) -> Trainer:
        """Return a trainer whose averages have begun."""
        config = replace(self.trainer, accumulate=1, **changed)
        built = self.degradation.build()
        trainer = Trainer(config, method, built, lambda step: iter(()), lambda step: {}, Silent(), accelerator, store, {}, 0)
        trainer.step = 5000
        return trainer


def measured(recipe: Published) -> tuple[Cost, Cost, str]:
    """Return what a training step and a sampling step of one image cost, and the size of the training step's batch."""
    composed = Composed.of(recipe)
    with torch.device("meta"):
        method = composed.method()
    with tempfile.TemporaryDirectory() as store, PretendedAccelerator(values=False) as tally:
        trainer = composed.trainer_of(method, Accelerator(), Path(store))
        stage = trainer._enter_stage(None)
        batch = composed.batch(recipe.batch)
        for tally.phase in ("first step", "step"):
            before = (tally.flops, tally.bytes)
            trainer._optimise(stage, [batch])
    step = Cost.of(tally, "step")
    step.flops, step.bytes = tally.flops - before[0], tally.bytes - before[1]
    method.eval()
    found = []
    for steps in (2, 2, 6):
        with PretendedAccelerator(values=False) as tally, torch.no_grad():
            one = composed.tested(device())
            tally.phase, tally.flops, tally.bytes = "restore", 0, 0
            restore_seeded(method, one, replace(composed.sampler, steps=steps), 0)
        found.append(Cost.of(tally, "restore"))
    return step, (found[2] - found[1]) / 4, f"{recipe.batch} x {composed.trainer.patch}^2"


def row(name: str, cost: Cost) -> str:
    counted = f"{cost.waits} | {cost.draws} | {cost.host:,} | {cost.launches}"
    return f"| {name} | {counted} | {cost.flops / 1e12:.3g} | {cost.bytes / 1e9:.3g} |"


def main(names: Sequence[str]) -> None:
    """Print the table of these recipes, or of all."""
    recipes = chosen(names, RECIPES, "recipe")
    register_schemas()
    print("| step | host waits | host draws | host ns | launches | TFLOP | GB |\n|---|---|---|---|---|---|---|")
    for name in recipes:
        step, sampling, size = measured(RECIPES[name])
        print(row(f"{name}, training, {size}", step), row(f"{name}, sampling, one image", sampling), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
