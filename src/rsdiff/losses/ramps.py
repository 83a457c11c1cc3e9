"""Weights of losses that rise in the course of training."""

from __future__ import annotations

from rsdiff.config import UserError

Ramp = tuple[int, int]
"""First and last step between which a weight rises linearly from 0 to its value; (0, 0) has it from the first step on."""


def ramped(weight: float, ramp: Ramp, step: int) -> float:
    """Return `weight` as it counts at `step`, which is 0 for the first."""
    first, last = ramp
    if step >= last:
        return weight
    return weight * max(step - first, 0) / (last - first)


def require_ramp(name: str, ramp: Ramp) -> None:
    """Raise UserError unless the ramp rises."""
    if not 0 <= ramp[0] <= ramp[1] or (ramp[0] == ramp[1] and ramp[0] > 0):
        raise UserError(f"{name}={list(ramp)} was given; give the step where the weight leaves 0 and a later one where it is whole.")
