"""The frozen VGG19 of a perceptual loss: loaded when training begins, part of neither weights nor checkpoints."""

from __future__ import annotations

from torch import Tensor

from rsdiff.losses.perceptual import VGG19_FILE, PerceptualLossConfig, VGG19Features, read_vgg19
from rsdiff.methods.base import Problem
from rsdiff.metrics.weight_files import require_weight_file


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
