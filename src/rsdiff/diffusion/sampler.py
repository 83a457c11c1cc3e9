"""One sampler for every diffusion method: a level grid, a start state, a solver and its options, exchangeable on the command line."""

from __future__ import annotations

from rsdiff.config import config


@config
class SamplerConfig:
    """How a diffusion is run backwards. Regression methods ignore it."""

    steps: int = 50
    """Evaluations of the level grid."""
