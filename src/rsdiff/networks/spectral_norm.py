"""Convolutions whose largest singular value is kept near 1 by power iteration."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-12


class SpectralConv2d(nn.Conv2d):
    """A convolution with its weight W, seen as (out_channels, rest), divided by an estimate of its largest singular value.

    Every forward in training mode first turns the singular vectors once: v = normalise(W^T u), u = normalise(W v); in evaluation they stay.
    Source: Miyato et al., ICLR 2018; the order and the constant are those of the hook `torch.nn.utils.spectral_norm`, which published
    discriminators were trained with (the newer `parametrizations.spectral_norm` turns u first).
    """

    couples_images: ClassVar[str] = "the spectral norm of its discriminator turns with every batch"

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=EPSILON))
        self.register_buffer("weight_v", F.normalize(torch.randn(self.weight[0].numel()), dim=0, eps=EPSILON))

    def normalised_weight(self) -> Tensor:
        """Return W / (u . W v), in training after one turn of u and v; gradients do not pass through the vectors."""
        with torch.autocast(self.weight.device.type, enabled=False):  # rounded products would turn the vectors astray
            matrix = self.weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=EPSILON))
                    self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=EPSILON))
            # Copies: a second forward before the backward pass of the first turns the buffers in place.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight / torch.dot(u, matrix @ v)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) as nn.Conv2d does."""
        return F.conv2d(x, self.normalised_weight(), self.bias, self.stride, self.padding)
