"""DISTS (Ding et al. 2020): structure and texture similarity of VGG16 features, with the weights that torchmetrics ships."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TRUNK_FILE = "vgg16-397923af.pth"
CHANNELS = (3, 64, 128, 256, 512, 512)
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the convolutions in torchvision's vgg16.features, by stage; the pooling between stages is replaced."""
_EPSILON = 1e-6


class Dists(nn.Module):
    """The distance of two images (B, 3, H, W) in [0, 1]: 0 for identical images, lower is better. Frozen, in evaluation mode.

    Images are seen at their own size, as in torchmetrics and pyiqa; the original recommends a short side of 256.
    """

    mean: Tensor
    std: Tensor
    window: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, trunk_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        width = 3
        for numbers in _STAGES:
            stage = nn.ModuleList()
            for number in numbers:
                weight, bias = trunk_weights[f"features.{number}.weight"], trunk_weights[f"features.{number}.bias"]
                convolution = nn.utils.skip_init(nn.Conv2d, width, weight.shape[0], 3, padding=1)
                convolution.load_state_dict({"weight": weight, "bias": bias})
                stage.append(convolution)
                width = weight.shape[0]
            self.stages.append(stage)
        heads = _heads()
        hanning = torch.tensor([0.5, 1.0, 0.5])
        window = torch.outer(hanning, hanning)
        self.register_buffer("window", window / window.sum())
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.register_buffer("alpha", heads["alpha"].flatten())
        self.register_buffer("beta", heads["beta"].flatten())
        self.eval().requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B,) distances."""
        alpha, beta = self.alpha.split(CHANNELS), self.beta.split(CHANNELS)
        similarity = torch.zeros(len(first), device=first.device)
        for x, y, a, b in zip(self.features(first), self.features(second), alpha, beta, strict=True):
            mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
            texture = (2 * mean_x * mean_y + _EPSILON) / (mean_x.square() + mean_y.square() + _EPSILON)
            variance_x = (x - mean_x[..., None, None]).square().mean((2, 3))
            variance_y = (y - mean_y[..., None, None]).square().mean((2, 3))
            covariance = (x * y).mean((2, 3)) - mean_x * mean_y
            structure = (2 * covariance + _EPSILON) / (variance_x + variance_y + _EPSILON)
            similarity = similarity + (a * texture + b * structure).sum(1)
        return 1 - similarity / (self.alpha.sum() + self.beta.sum())

    def features(self, image: Tensor) -> list[Tensor]:
        """Return six maps: the image itself, and the output of the five stages."""
        maps = [image]
        x = (image - self.mean) / self.std
        for index, stage in enumerate(self.stages):
            x = x if index == 0 else self._pool(x)
            assert isinstance(stage, nn.ModuleList)
            for convolution in stage:
                x = F.relu(convolution(x))
            maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        """Root of the Hanning-weighted mean of squares, every second position: pooling without aliasing."""
        kernel = self.window.expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _heads() -> dict[str, Tensor]:
    path = files("torchmetrics") / "functional" / "image" / "dists_models" / "weights.pt"
    with path.open("rb") as file:
        heads: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return heads
