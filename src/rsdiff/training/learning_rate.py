"""Learning-rate schedules: pure functions that return a factor of the full learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rsdiff.training.config import LearningRateConfig


def ramp(images: float, over: float) -> float:
    """Return min(images / over, 1); 1 where there is no ramp (over = 0). Source: EDM, training loop."""
    return min(images / over, 1.0) if over > 0 else 1.0


def multistep(step: int, milestones: Sequence[int], gamma: float, gammas: Sequence[float] = ()) -> float:
    """Return gamma to the number of milestones reached, or the product of their own `gammas`."""
    if gammas:
        return math.prod(factor for milestone, factor in zip(milestones, gammas, strict=True) if step >= milestone)
    return gamma ** sum(step >= milestone for milestone in milestones)


def cosine(step: int, steps: int, floor: float = 0.0) -> float:
    """Return half a cosine from 1 at step 0 to `floor` at `steps`, where it stays."""
    progress = min(step / steps, 1.0)
    return floor + 0.5 * (1 - floor) * (1 + math.cos(math.pi * progress))


def cosine_with_restarts(step: int, periods: Sequence[int], weights: Sequence[float] = (), floor: float = 0.0) -> float:
    """Return half cosines of length `periods` one after the other, the k-th from weights[k] down; after the last it stays at `floor`.

    Source: BasicSR, CosineAnnealingRestartLR.
    """
    begin = 0
    for index, period in enumerate(periods):
        if step < begin + period:
            height = weights[index] if weights else 1.0
            return floor + height * (cosine(step - begin, period, floor) - floor)
        begin += period
    return floor


def learning_rate_factor(config: LearningRateConfig, step: int, images: float, steps: int) -> float:
    """Return the factor of lr at `step` (from 0), after `images` images, of a run of `steps` steps."""
    warm = ramp(images, config.warmup_images)
    match config.shape:
        case "constant":
            return warm
        case "multistep":
            return warm * multistep(step, config.milestones, config.gamma, config.gammas)
        case "cosine":
            return warm * cosine(step, steps, config.floor)
        case "cosine_restarts":
            return warm * cosine_with_restarts(step, config.periods, config.restart_weights, config.floor)
