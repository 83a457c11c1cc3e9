"""What every optimiser step does alike: the batch on its device, its noise and its randomness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rsdiff.data.sample import Batch
from rsdiff.data.seeding import derived_seed
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Stage


def degrade_on(batch: Batch, device: torch.device, degradation: Degradation, channels_last: bool = False) -> Batch:
    """Move a batch to `device` and make its LR there, unless the data brought one."""
    batch = batch.to(device)
    if batch.lr is None:
        batch = degrade(batch, degradation)
    return batch.with_memory_format(torch.channels_last) if channels_last else batch


def training_noise(seed: int, stage: Stage, step: int, batch: Batch) -> SeededNoise:
    """Noise of one pass over a batch, from the stage's groups and: per image (seed, epoch, index), shared draws (seed, step)."""
    groups = "+".join(stage.groups)
    keys = [(seed, "train", groups, meta.epoch, meta.index) for meta in batch.metas]
    return SeededNoise(keys, shared=(seed, "step", groups, step))


@contextmanager
def step_randomness(seed: int, step: int, process: int, device: torch.device) -> Iterator[None]:
    """Key what PyTorch draws by itself (dropout) to the step, and leave the global generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, "dropout", step, process))
        yield
