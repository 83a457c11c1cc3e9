"""The Lion optimiser, which PyTorch lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Lion(torch.optim.Optimizer):
    """Steps of one size, lr, in the direction of sign(b1 m + (1 - b1) g), with decoupled weight decay; then m = b2 m + (1 - b2) g.

    Source: Chen et al., 2023, "Symbolic discovery of optimization algorithms"; an option of EDiffSR.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step; `closure` evaluates the loss anew, as for every optimiser of PyTorch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            moved: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            gradients: list[Tensor] = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            momenta = [self._momentum(parameter) for parameter in moved]
            directions = torch._foreach_lerp(gradients, momenta, first)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moved, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - second)
        return loss

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum
