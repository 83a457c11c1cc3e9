"""LPIPS v0.1 with a trunk read from a local file: the `lpips` package ships the published heads, torchvision's files hold the trunks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rsdiff.config import UserError

Trunk = Literal["alex", "vgg", "squeeze"]

TRUNK_FILES: dict[Trunk, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
SMALLEST_SIDE: dict[Trunk, int] = {"alex": 31, "vgg": 16, "squeeze": 17}


class Lpips(nn.Module):
    """The distance of two images (B, 3, H, W) in [0, 1]; lower is better. Frozen, in evaluation mode."""

    def __init__(self, trunk: Trunk, trunk_weights: Mapping[str, Tensor]) -> None:
        import lpips  # with torchvision: seconds of import time, only for those who have weights

        super().__init__()
        self.trunk = trunk
        # The constructor draws initial weights, which are replaced below: outside this block the global generator is untouched.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
        own = self.network.net.state_dict()
        # lpips cuts the trunk into slices and keeps torchvision's layer numbers: slice3.8.weight is features.8.weight.
        self.network.net.load_state_dict({name: trunk_weights["features." + name.partition(".")[2]] for name in own})
        self.eval().requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor, scaled: bool = True) -> Tensor:
        """Return (B,) distances.

        scaled  False leaves the images in [0, 1], which the network does not expect: what DiffBSR and satlas report (6 to 12 times smaller)
        """
        return self.per_layer(first, second, scaled).sum(1)

    def per_layer(self, first: Tensor, second: Tensor, scaled: bool = True) -> Tensor:
        """Return (B, layers), whose sum is the distance. Raises UserError below the smallest size the trunk can see."""
        if min(first.shape[-2:]) < SMALLEST_SIDE[self.trunk]:
            raise UserError(
                f"LPIPS with {self.trunk} needs {SMALLEST_SIDE[self.trunk]} px and the images have {first.shape[-2]}x{first.shape[-1]}."
            )
        _, layers = self.network(first, second, retPerLayer=True, normalize=scaled)
        return torch.cat([layer.flatten(1) for layer in layers], dim=1)


def read_trunk(path: Path) -> dict[str, Tensor]:
    """Return torchvision's state dict in `path`, read without executing anything."""
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
