"""Affine regression per pixel, solved in closed form from all pixels that training has shown so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 256
"""Rows of an image whose sums are made at a time: bounds the memory that float64 takes for whole scenes."""


class RunningRegression(nn.Module):
    """forward(image (B, c, h, w)) -> (B, bands, h, w), the regression of the target's bands on those of the same pixel, and 1.

    ridge   penalty on the weights, as a share of the mean energy of the inputs; keeps the equations solvable where bands are alike
    degree  powers of the input bands that are regressed on, from 1 to this one
    The sums of the normal equations are buffers, so that a resumed run continues them; nothing here is learned by gradients. The pixels of
    a step, of all micro-batches and processes, are added to the sums when it ends (`solve`): the solution stays during a step.
    """

    gram: Tensor
    moments: Tensor
    solution: Tensor
    step_gram: Tensor
    step_moments: Tensor

    def __init__(self, condition_bands: int, bands: int, ridge: float, degree: int = 1) -> None:
        super().__init__()
        self.ridge, self.degree = ridge, degree
        features = condition_bands * degree + 1
        self.register_buffer("gram", torch.zeros(features, features, dtype=torch.float64))
        self.register_buffer("solution", torch.zeros(features, bands))
        self.register_buffer("moments", torch.zeros(features, bands, dtype=torch.float64))
        self.register_buffer("step_gram", torch.zeros_like(self.gram), persistent=False)
        self.register_buffer("step_moments", torch.zeros_like(self.moments), persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Return (B, h, w, features): powers of the input bands, and 1."""
        powers = [image**power for power in range(1, self.degree + 1)]
        return torch.cat([*powers, torch.ones_like(image[:, :1])], dim=1).movedim(1, -1)

    @torch.no_grad()
    def accumulate(self, image: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add pixels of images (B, c, h, w) and targets (B, bands, h, w) to the sums, but those where valid (B, C or 1, h, w) is 0."""
        counted = torch.ones_like(image[:, :1]) if valid is None else valid.amin(1, keepdim=True)
        for some, wanted, counts in zip(image.split(ROWS, -2), target.split(ROWS, -2), counted.split(ROWS, -2), strict=True):
            # Powers in float64, whatever mixed precision computes in: a running sum keeps every rounding.
            rows = (self.features(some.double()) * counts.movedim(1, -1)).flatten(0, 2)
            self.step_gram += rows.T @ rows
            self.step_moments += rows.T @ wanted.movedim(1, -1).flatten(0, 2).double()

    @torch.no_grad()
    def solve(self) -> None:
        """Add the pixels of the step, of all processes, and set the solution to that of all pixels seen so far."""
        for total, part in ((self.gram, self.step_gram), (self.moments, self.step_moments)):
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(part)
            total += part
            part.zero_()
        # Before any pixel was known the sums are 0, and so is the solution.
        weight = (self.ridge * self.gram.diagonal().mean()).clamp(min=torch.finfo(torch.float64).tiny)
        penalty = weight * torch.eye(len(self.gram), dtype=torch.float64, device=self.gram.device)
        self.solution.copy_(torch.linalg.solve(self.gram + penalty, self.moments))

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):  # training and restoration see the same answer
            return (self.features(image.to(self.solution.dtype)) @ self.solution).movedim(-1, 1)
