"""The perceptual loss of the ESRGAN family: distances of VGG19 features before their activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.methods.base import Problem
from rsdiff.metrics.weight_files import require_weight_file

VGGLayer = Literal["conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4", "relu5_1"]

VGG19_FILE = "vgg19-dcbb9e9d.pth"
"""Torchvision's ImageNet weights."""
_LAYERS: Mapping[VGGLayer, int] = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34, "relu5_1": 29}
"""Numbers of the layers in torchvision's vgg19.features."""
_POOLS = (4, 9, 18, 27)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST_SIDE = 16
"""Below it conv5_4 sees nothing."""


class VGG19Features(nn.Module):
    """Features of images (B, 3, H, W) in [0, 1] at some layers of VGG19, a convolution's before its activation. Frozen.

    weights  torchvision's state dict ('features.0.weight', ...), of which layers beyond the deepest one asked for are not kept
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Mapping[str, Tensor], layers: Sequence[VGGLayer]) -> None:
        super().__init__()
        self.numbers = tuple(_LAYERS[layer] for layer in layers)
        self.convolutions = nn.ModuleDict()
        for number in range(max(self.numbers) + 1):
            if f"features.{number}.weight" in weights:
                weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
                convolution = nn.utils.skip_init(nn.Conv2d, weight.shape[1], weight.shape[0], 3, padding=1)
                convolution.load_state_dict({"weight": weight, "bias": bias})
                self.convolutions[str(number)] = convolution
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features in the order of `layers`; raises UserError for images below 16 pixels."""
        if min(images.shape[-2:]) < SMALLEST_SIDE:
            raise UserError(
                f"the perceptual loss needs {SMALLEST_SIDE} px and a target has {images.shape[-2]}x{images.shape[-1]}; raise trainer.patch."
            )
        x = (images - self.mean) / self.std
        found: dict[int, Tensor] = {}
        for number in range(max(self.numbers) + 1):
            if str(number) in self.convolutions:
                x = self.convolutions[str(number)](x)
            else:
                x = F.max_pool2d(x, 2) if number in _POOLS else F.relu(x)
            if number in self.numbers:
                found[number] = x
        return [found[number] for number in self.numbers]


@config
class PerceptualLossConfig:
    """Distance of VGG19 features, summed over layers."""

    read_with: ClassVar[ReadWith] = dict.fromkeys(("layers", "layer_weights", "distance", "weight_folders"), ("weight", (ABOVE_0,)))
    located: ClassVar[frozenset[str]] = frozenset({"weight_folders"})  # the file's name holds a hash of its content

    weight: float = 1.0
    """Factor of the loss; 0 needs no weights file."""
    layers: tuple[VGGLayer, ...] = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
    """Layers compared: convolutions before their activation, or relu5_1 (TTSR)."""
    layer_weights: tuple[float, ...] = (0.1, 0.1, 1.0, 1.0, 1.0)
    """Factor of each layer."""
    distance: Literal["l1", "l2", "norm"] = "l1"
    """Mean absolute or mean squared difference of a layer's features, or the norm of that of all features of the batch (DATSR)."""
    weight_folders: tuple[str, ...] = ("weights",)
    """Where vgg19-dcbb9e9d.pth is looked for, besides torchvision's cache; read in training only."""

    def __post_init__(self) -> None:
        if self.weight < 0 or not self.layers or len(self.layers) != len(self.layer_weights):
            raise UserError(
                f"the perceptual loss was given weight={self.weight}, {len(self.layers)} layers and {len(self.layer_weights)} "
                "layer_weights; choose a weight of 0 or more, at least one layer and one factor for each."
            )

    def distance_of(self, network: VGG19Features, image: Tensor, target: Tensor) -> Tensor:
        """Return the unweighted loss () of images (B, 3, H, W); `image` is not clamped, `target` gets no gradient."""
        differences: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss, "norm": _norm}
        difference = differences[self.distance]
        with torch.no_grad():
            wanted = network(target)
        terms = [factor * difference(a, b) for factor, a, b in zip(self.layer_weights, network(image), wanted, strict=True)]
        return torch.stack(terms).sum()


def _norm(features: Tensor, wanted: Tensor) -> Tensor:
    return torch.linalg.vector_norm(features - wanted)


def coupling_by_features(options: PerceptualLossConfig) -> str:
    """Return what couples the images of a batch in a perceptual loss, "" where nothing does; see `Method.coupling`."""
    return "its perceptual loss is a norm over the images of a batch" if options.weight and options.distance == "norm" else ""


def read_vgg19(path: Path) -> dict[str, Tensor]:
    """Return torchvision's state dict in `path`, read without executing anything."""
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


class PerceptualTerm:
    """The unweighted perceptual loss of a method with these options. Not a module, so that the method's state dict lacks it."""

    def __init__(self, options: PerceptualLossConfig) -> None:
        self.options = options
        self._network: VGG19Features | None = None

    def load(self) -> None:
        """Read the weights file, if the loss counts and it was not read before; raises ValueError in one sentence when it is nowhere."""
        if self.options.weight and self._network is None:
            path = require_weight_file(
                VGG19_FILE, self.options.weight_folders, "model.perceptual.weight_folders", "model.perceptual.weight"
            )
            self.use(VGG19Features(read_vgg19(path), self.options.layers))

    def use(self, network: VGG19Features) -> None:
        """Measure by `network`."""
        self._network = network

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the loss () of images (B, 3, H, W) in [0, 1]; gradients reach `image` alone."""
        assert self._network is not None, "the perceptual loss is used before it was loaded"
        return self.options.distance_of(self._network.to(image.device), image, target)


def refuse_bands(options: PerceptualLossConfig, problem: Problem) -> str | None:
    """Return a sentence where the perceptual loss cannot see the target."""
    if options.weight and problem.bands != 3:
        return f"the perceptual loss needs 3 bands and the target has {problem.bands}; set model.perceptual.weight=0."
    return None
