"""One group's loss of a method, for tests that look at one."""

from __future__ import annotations

from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.methods.base import Losses, Method, Stage


def losses_of(method: Method, batch: Batch, noise: NoiseSource, group: str = "restorer", stage: Stage | None = None) -> Losses:
    """Return the losses of `group` in `stage`, by default in the last one."""
    chosen = stage or method.stages()[-1]
    (part,) = (part for part in method.passes(chosen) if group in part.groups)
    return method.losses(batch, part, noise)[group]
