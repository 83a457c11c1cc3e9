"""Methods on the pretended accelerator: a trainer's steps, a resumed run, a restored image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import Precision
from rsdiff.data.sample import Batch, collate
from rsdiff.data.views import SampleKey, TrainingSamples
from rsdiff.degradations.test_sets import draw_of
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_images
from rsdiff.methods.base import Method
from rsdiff.training.config import EmaConfig, TrainerConfig
from rsdiff.training.trainer import Trainer
from tests.devices.pretended import NAME, PretendedAccelerator, Tally, device
from tests.runs.pairs import SIDES, Pair, data_kinds, degradation_for, fresh, material, options, pairs, sampler_of

FIRST_SCALE = 16.0


class Accelerator:
    """What the trainer uses of Accelerate's in one process, on the pretended device by default."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, precision: Precision = "no", on: torch.device | None = None) -> None:
        self.device = on or device()
        # The first scale is one that no loss here overflows at: otherwise the first steps would only lower it.
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=FIRST_SCALE) if precision == "fp16" else None

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def wait_for_everyone(self) -> None:
        pass


class Silent:
    """A journal that keeps nothing."""

    def log(self, *_: Any) -> None: ...
    def advance(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Work:
    """A pair at the smallest size that its model takes."""

    pair: Pair
    side: int

    @property
    def views(self) -> int:
        config = options().models[self.pair.model]
        return 0 if config.is_ready else config.views

    def batch(self, images: Sequence[int] = (0, 1)) -> Batch:
        """Return training samples as the data loader gives them, their LR still to be made."""
        data = data_kinds(self.side)[self.pair.data]
        source = data.build("train", self.pair.scale)
        built = degradation_for(self.pair.degradation, data).build()
        samples = TrainingSamples(source, self.pair.scale, self.side, 0, draw_of(built, source), views=self.views, small="pad")
        return collate([samples[SampleKey(0, index % len(samples), 0)] for index in images])

    def trainer(self, store: Path, precision: Precision = "no") -> Trainer:
        given = material(self.pair.data, self.pair.degradation, self.pair.scale, self.views, self.side)
        method = deepcopy(fresh(self.pair.model, given.problem))
        config = TrainerConfig(
            steps=6, batch=2, precision=precision, ema=EmaConfig(rule="constant"), clip_norm=1.0, replace_nan_gradients=True
        )
        card = {"config": {}, "problem": {}}
        accelerator: Any = Accelerator(precision)
        return Trainer(
            config, method, given.degradation, lambda step: iter(()), lambda step: {"psnr": 1.0}, Silent(), accelerator, store, card, 0
        )

    def ready(self) -> Method:
        """Return a method that is not trained, on the device."""
        given = material(self.pair.data, self.pair.degradation, self.pair.scale, self.views, self.side)
        return deepcopy(fresh(self.pair.model, given.problem)).to(device())

    def restore(self, method: Method, sampler: SamplerConfig | None = None) -> Tensor:
        """Restore the test image with the model's own sampler or another one."""
        given = material(self.pair.data, self.pair.degradation, self.pair.scale, self.views, self.side)
        config = options().models[self.pair.model]
        chosen = sampler or sampler_of(self.pair.model)
        if chosen.start.startswith("image") and not config.starts_at_image(given.problem):
            chosen = replace(chosen, start="edm")
        method.eval()
        (restored,) = restore_images(method, [given.case], given.degradation, chosen, 0, device())
        assert restored.image.device.type == NAME
        return restored.image


def works_for(model: str) -> Iterator[Work]:
    """Yield the first allowed pair of a model with images of every size, the smallest first."""
    # What only libraries of the CPU can make of an image is made in the loader's workers.
    pair = next(pair for pair in pairs([model]) if not degradation_for(pair.degradation, data_kinds()[pair.data]).in_workers)
    for side in SIDES:
        yield Work(pair, side)


def on_the_device(model: str, store: Path, sampler: SamplerConfig | None = None) -> tuple[Tally, Work, Method]:
    """Train a model on images that are large enough for it; return what was counted, and what restores further images.

    sampler  with which it restores, None for the model's own
    """
    for work in works_for(model):
        accelerator = PretendedAccelerator()
        try:
            with accelerator as tally:
                method = work.ready() if options().models[model].is_ready else train(work, store, tally)
                for tally.phase in ("warm-up", "restore"):
                    work.restore(method, sampler)
        except UserError:  # too small for the network
            continue
        return tally, work, method
    raise AssertionError(f"no size of {SIDES} suits {model}")


def train(work: Work, store: Path, tally: Tally, steps: int = 3) -> Method:
    """Take `steps` steps of every stage, save, resume and take one more; phases: build, stage, first step, step, save, resume."""
    batch = work.batch()
    tally.phase = "build"
    trainer = work.trainer(store)
    trainer.method.train()
    trainer.method.prepare_training()
    for _, stage in trainer.stages:
        tally.phase = "stage"
        trainer.method.start_stage(stage)
        for step in range(steps):
            tally.phase = "step" if step == steps - 1 else "first step"  # caches and optimisers' moments are filled by then
            trainer._optimise(stage, [batch])
            trainer.step += 1
    tally.phase = "save"
    trainer._save()
    tally.phase = "resume"
    again = work.trainer(store)
    assert again.resume()
    again._optimise(again._enter_stage(None), [batch])
    for name, value in again.method.state_dict().items():
        if value.is_floating_point():
            assert bool(torch.isfinite(value).all()), name
    return trainer.method
