"""What SR3 and IDM share: their options of training, and images on their way to noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.diffusion.solvers import per_image
from rsdiff.methods.base import MethodConfig
from rsdiff.networks.sr3_unet import SR3UNetConfig


@config
class NoisePredictorConfig(SR3UNetConfig, MethodConfig):
    """Options that SR3 and IDM have in common."""

    has_own_step: ClassVar[bool | None] = False

    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    """Channels of each level in units of `width`; the image is halved between levels."""
    dropout: float = 0.2
    """Dropout in the second half of every residual block."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Noise levels of training."""
    steps_drawn: Literal["batch", "image"] = "batch"
    """Whether a training batch shares one random step (SR3 as published) or every image draws its own (DDPM twin)."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared error of the predicted noise."""

    @property
    def sampled_levels(self) -> int:
        return self.schedule.steps


@dataclass
class Noised:
    """HR images on their way to noise: x = level * hr + sqrt(1 - level^2) * noise.

    x      (B, C, H, W)
    time   (B,) what the network receives of the level: itself, float32, or its index, int64
    noise  (B, C, H, W)
    """

    x: Tensor
    time: Tensor
    noise: Tensor


def draw_steps(hr: Tensor, first: int, options: NoisePredictorConfig, schedule: DiscreteSchedule, noise: NoiseSource) -> Tensor:
    """Return a step first, first + 1, .. of the schedule per image of hr, or one for all, (B,) int64."""
    last = first + len(schedule)
    if options.steps_drawn == "batch":
        return torch.full((len(hr),), noise.shared_integer(first, last), device=hr.device)
    return noise.integers(first, last, (len(hr),), hr.device)


def noised_continuously(hr: Tensor, options: NoisePredictorConfig, schedule: DiscreteSchedule, noise: NoiseSource) -> Noised:
    """Draw a step t in 1..T, a level uniform between the neighbouring table values s[t] and s[t-1], and `noised_at` it."""
    steps = draw_steps(hr, 1, options, schedule, noise)
    return noised_at(hr, schedule.signal_between(steps, noise.uniform((len(hr),), hr.device)).float(), noise)


def noised_at(hr: Tensor, level: Tensor, noise: NoiseSource) -> Noised:
    """Add noise to hr (B, C, H, W) in [-1, 1] until its signal has the levels (B,) in (0, 1], float32.

    In float32 as published: the complement of levels near 1 keeps only one or two digits, which the targets depend on.
    """
    drawn = noise.normal(hr.shape, hr.device)
    return Noised(per_image(level, hr) * hr + per_image((1 - level.square()).sqrt(), hr) * drawn, level, drawn)
