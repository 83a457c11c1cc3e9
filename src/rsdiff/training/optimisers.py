"""Optimisers of a method's groups, their learning rates, and the averages of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.base import Method
from rsdiff.training.config import EmaConfig, OptimiserConfig, TrainerConfig
from rsdiff.training.ema import Ema
from rsdiff.training.learning_rate import learning_rate_factor
from rsdiff.training.lion import Lion


@dataclass
class GroupOptimiser:
    """One optimiser with its learning-rate schedule."""

    config: TrainerConfig
    settings: OptimiserConfig
    parameters: list[nn.Parameter]
    accelerator: Accelerator
    optimiser: Any = field(init=False)
    lr: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.optimiser = self.accelerator.prepare_optimizer(build_optimiser(self.settings, self.parameters), device_placement=False)

    def prepare(self, step: int, images: int, steps: int) -> None:
        """Set the learning rate of the schedule's `step`, after `images` images, of `steps`; clear the gradients."""
        self.lr = self.settings.lr * learning_rate_factor(self.config.learning_rate, step, images, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.optimiser.zero_grad(set_to_none=True)

    def mend(self, clip_norm: float | None, replace_nan_gradients: bool) -> Tensor:
        """Unscale, mend and clip the gradients as configured; return their norm before clipping, on the device."""
        self.accelerator.unscale_gradients(self.optimiser)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if replace_nan_gradients:
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
        if not gradients:
            return torch.zeros((), device=self.accelerator.device)
        norm = nn.utils.get_total_norm(gradients)
        if clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, clip_norm, norm)
        return norm

    def update(self) -> None:
        """Move the weights."""
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.optimiser.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the moments of `state`; rates, decays and betas stay those of this run. Raises UserError for another algorithm's."""
        wanted = {name: self.optimiser.param_groups[0][name] for name in self.optimiser.param_groups[0] if name != "params"}
        self.optimiser.load_state_dict(dict(state))
        for group in self.optimiser.param_groups:
            if set(group) - {"params"} != set(wanted):
                raise UserError(
                    f"the saved moments are of another algorithm than trainer.optimiser.algorithm={self.settings.algorithm}; choose that "
                    "one, or start from the weights alone with checkpoint=."
                )
            group.update(wanted)


def build_optimiser(settings: OptimiserConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of `settings`."""
    match settings.algorithm:
        case "adam":
            return torch.optim.Adam(parameters, settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)
        case "lion":
            return Lion(parameters, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, settings.lr, momentum=settings.betas[0], weight_decay=settings.weight_decay)


def build_optimisers(config: TrainerConfig, method: Method, accelerator: Accelerator) -> dict[str, GroupOptimiser]:
    """Return one optimiser per group of the method; raises UserError when `config.optimisers` names a group that it has not."""
    groups = {name: list(parameters) for name, parameters in method.groups().items()}
    unknown = sorted(set(config.optimisers) - set(groups))
    if unknown:
        raise UserError(f"trainer.optimisers names {', '.join(unknown)}, but this method's groups are {', '.join(sorted(groups))}.")
    return {name: GroupOptimiser(config, config.optimiser_of(name), parameters, accelerator) for name, parameters in groups.items()}


def build_average(config: EmaConfig, method: nn.Module) -> Ema | None:
    """Return the averages of `config`, or None when they are off."""
    if config.rule == "off":
        return None
    return Ema(config, method)
