"""Exponential moving averages of weights, and the rules that say how much of the old average each update keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.training.config import EmaConfig

Rule = Callable[[float, float], float]
"""beta(images_before, images_after): share of the old average that an update between these image counts keeps."""


def constant(decay: float) -> Rule:
    """Return the rule of a fixed decay per update."""
    return lambda images_before, images_after: decay


def rising(highest: float) -> Rule:
    """Return the rule (1 + n) / (10 + n) of the n-th update, at most `highest`. Source: latent diffusion's LitEma (LDCSR)."""

    def beta(images_before: float, images_after: float) -> float:
        n = images_after / (images_after - images_before)
        return min(highest, (1 + n) / (10 + n))

    return beta


def half_life(images: float, ramp_up: float | None) -> Rule:
    """Return the rule under which a weight's influence halves every `images` images.

    ramp_up  the half-life is at most this share of the images seen before the update; None means no ramp-up (transfer learning)
    Source: EDM, training loop. The first update keeps nothing, so that the average forgets the initial weights.
    """

    def beta(images_before: float, images_after: float) -> float:
        half = images if ramp_up is None else min(images, images_before * ramp_up)
        return float(0.5 ** ((images_after - images_before) / max(half, 1e-8)))

    return beta


class Ema:
    """Averages of a model's floating-point parameters, one per rule; its buffers are taken as they are.

    Tied parameters are averaged under each of their names, so that a state dict stays consistent.
    """

    def __init__(self, config: EmaConfig, model: nn.Module) -> None:
        self._rules = rules(config)
        self._start_step = config.start_step
        self._averages = [{name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)} for _ in self._rules]

    @torch.no_grad()
    def update(self, model: nn.Module, images_before: float, images_after: float) -> None:
        """Move every average towards the model's weights, after the step that saw the images from `images_before` to `images_after`."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        weights: list[Tensor] = list(parameters.values())
        starting = images_after / (images_after - images_before) < self._start_step
        for rule, average in zip(self._rules, self._averages, strict=True):
            beta = 0.0 if starting else rule(images_before, images_after)
            torch._foreach_lerp_([average[name] for name in parameters], weights, 1 - beta)

    def weights(self, model: nn.Module) -> list[dict[str, Tensor]]:
        """Return one full state dict of the model per average, the first being the one to use."""
        return [{**model.state_dict(), **average} for average in self._averages]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages as one flat dictionary, '<k>.<parameter>'."""
        return {f"{k}.{name}": value for k, average in enumerate(self._averages) for name, value in average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; raises UserError when names differ."""
        present = self.state_dict()
        if set(present) != set(state):
            different = sorted(set(present) ^ set(state))
            raise UserError(f"the saved averages and this model differ in {', '.join(different[:4])}; resume with the config of that run.")
        for name, value in present.items():
            value.copy_(state[name])


def rules(config: EmaConfig) -> list[Rule]:
    """Return one rule per average of `config`."""
    match config.rule:
        case "off":
            return []
        case "constant":
            return [constant(decay) for decay in config.decays]
        case "rising":
            return [rising(decay) for decay in config.decays]
        case "half_life":
            return [half_life(images, config.ramp_up) for images in config.half_lives_images]
