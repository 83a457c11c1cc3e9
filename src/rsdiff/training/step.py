"""What every optimiser step does alike: the batch on its device, its noise, its randomness, and whose gradients are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from rsdiff.data.sample import Batch
from rsdiff.data.seeding import derived_seed
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.diffusion.noise import SeededNoise


def degrade_on(batch: Batch, device: torch.device, degradation: Degradation, channels_last: bool = False) -> Batch:
    """Move a batch to `device` and make its LR there, unless the data brought one."""
    batch = batch.to(device)
    if batch.lr is None:
        batch = degrade(batch, degradation)
    return batch.with_memory_format(torch.channels_last) if channels_last else batch


def training_noise(seed: int, group: str, step: int, batch: Batch) -> SeededNoise:
    """Noise of one batch: per image from (seed, epoch, index), shared draws from (seed, step)."""
    keys = [(seed, "train", group, meta.epoch, meta.index) for meta in batch.metas]
    return SeededNoise(keys, shared=(seed, "step", group, step))


@contextmanager
def step_randomness(seed: int, step: int, process: int, device: torch.device) -> Iterator[None]:
    """Key what PyTorch draws by itself (dropout) to the step, and leave the global generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, "dropout", step, process))
        yield


@contextmanager
def only_gradients_of(method: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters but `parameters`, so that a group's backward pass neither computes nor leaves gradients elsewhere."""
    chosen = {id(parameter) for parameter in parameters}
    frozen = [parameter for parameter in method.parameters() if parameter.requires_grad and id(parameter) not in chosen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
