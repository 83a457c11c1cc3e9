"""What every optimiser step does alike: the batch on its device, its noise and its randomness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from rsdiff.data.sample import Batch
from rsdiff.data.seeding import derived_seed
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Stage
from rsdiff.networks.degradation_aware import MomentumContrast


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


@contextmanager
def without_traces(method: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Leave buffers, contrastive queues and random generators as they were before the block, in which losses are computed on trial."""
    kept = [(buffer, buffer.clone()) for buffer in method.buffers()]
    try:
        with step_randomness(seed, 0, 0, device):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        for module in method.modules():
            if isinstance(module, MomentumContrast):
                module.forget_step()


def stage_ends(stages: Sequence[Stage], steps: int) -> list[tuple[int, Stage]]:
    """Return (first step after the stage, stage) pairs; the last stage lasts to the end whatever its length."""
    ends: list[tuple[int, Stage]] = []
    start = 0
    for stage in stages:
        start = steps if stage.steps is None else start + stage.steps
        ends.append((start, stage))
    return ends
