"""Optimisers of a method's groups, their learning rates, and the averages of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.transfer import has_queue
from rsdiff.methods.base import Method
from rsdiff.training.config import EmaConfig, OptimiserConfig, TrainerConfig
from rsdiff.training.ema import Ema
from rsdiff.training.learning_rate import learning_rate_factor
from rsdiff.training.lion import Lion
from rsdiff.training.reduction import GradientBuckets


@dataclass
class GroupOptimiser:
    """One optimiser with its learning-rate schedule."""

    config: TrainerConfig
    settings: OptimiserConfig
    parameters: list[nn.Parameter]
    accelerator: Accelerator
    optimiser: torch.optim.Optimizer = field(init=False)
    buckets: GradientBuckets = field(init=False)
    lr: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        # Accelerate's wrapper would move the loss scale after every group's step; see `update_loss_scale`.
        fused = self.config.fused and (has_queue(self.accelerator.device) or self.accelerator.device.type == "cpu")
        self.optimiser = build_optimiser(self.settings, self.parameters, fused)
        self.buckets = GradientBuckets(self.accelerator, self.parameters)

    def prepare(self, step: int, images: int, steps: int) -> None:
        """Set the learning rate of the schedule's `step`, after `images` images, of `steps`; clear the gradients."""
        self.lr = self.settings.lr * learning_rate_factor(self.config.learning_rate, step, images, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.optimiser.zero_grad(set_to_none=True)

    def mend(self, clip_norm: float | None, replace_nan_gradients: bool) -> Tensor:
        """Unscale, mend and clip the gradients as configured; return their norm before clipping, on the device."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            return torch.zeros((), device=self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimiser)
        if replace_nan_gradients:
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
        norm = nn.utils.get_total_norm(gradients)
        if clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, clip_norm, norm)
        return norm

    def update(self) -> None:
        """Move the weights; under a loss scale only where no gradient overflowed."""
        scaler = self.accelerator.scaler
        if scaler is None:
            self.optimiser.step()
        elif any(parameter.grad is not None for parameter in self.parameters):
            scaler.step(self.optimiser)

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


def update_loss_scale(accelerator: Accelerator) -> None:
    """Let the scale of fp16's losses follow the overflows of a step, once for all groups: it grows after so many steps without one."""
    if accelerator.scaler is not None:
        accelerator.scaler.update()


def build_optimiser(settings: OptimiserConfig, parameters: list[nn.Parameter], fused: bool = False) -> torch.optim.Optimizer:
    """Return the optimiser of `settings`; `fused` is for devices that have such kernels."""
    rate, decay = settings.lr, settings.weight_decay
    chosen = {"fused": True} if fused else {}
    match settings.algorithm:
        case "adam":
            return torch.optim.Adam(parameters, rate, betas=settings.betas, eps=settings.eps, weight_decay=decay, **chosen)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, betas=settings.betas, eps=settings.eps, weight_decay=decay, **chosen)
        case "lion":
            return Lion(parameters, rate, betas=settings.betas, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, rate, momentum=settings.betas[0], weight_decay=decay, **chosen)


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
