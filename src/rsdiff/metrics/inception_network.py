"""The Inception network of FID: the 2015 TensorFlow graph with 1008 outputs. It imports torchvision, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d, Inception3, InceptionA, InceptionAux, InceptionB, InceptionC, InceptionD, InceptionE


class FidInception(nn.Module):
    """Pooled features of images prepared by `rsdiff.metrics.inception.prepare`. Frozen, in evaluation mode.

    It differs from torchvision's Inception-v3 in its pooling branches: averages leave the padding out, the last block takes a maximum.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        blocks = [BasicConv2d, _A, InceptionB, _C, InceptionD, _E, InceptionAux]
        with torch.device("meta"):
            network = Inception3(num_classes=1008, aux_logits=False, transform_input=False, inception_blocks=blocks, init_weights=False)
            network.Mixed_7c = _LastE(2048)
        network.to_empty(device="cpu")
        counters = {name: torch.zeros((), dtype=torch.long) for name in network.state_dict() if name.endswith("num_batches_tracked")}
        network.load_state_dict({**counters, **weights})
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, prepared: Tensor) -> dict[int, Tensor]:
        """Return features of images (B, 3, 299, 299) in [-1, 1], averaged over positions, by their width: 64, 192, 768, 2048."""
        net = self.network
        features: dict[int, Tensor] = {}
        stages = (
            (net.Conv2d_1a_3x3, net.Conv2d_2a_3x3, net.Conv2d_2b_3x3, net.maxpool1),
            (net.Conv2d_3b_1x1, net.Conv2d_4a_3x3, net.maxpool2),
            (net.Mixed_5b, net.Mixed_5c, net.Mixed_5d, net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e),
            (net.Mixed_7a, net.Mixed_7b, net.Mixed_7c),
        )
        x = prepared
        for stage in stages:
            for layer in stage:
                x = layer(x)
            features[x.shape[1]] = x.mean((2, 3))
        return features


def _inner_average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _A(InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        large = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), large, double, self.branch_pool(_inner_average(x))]


class _C(InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        large = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = x
        for layer in (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4, self.branch7x7dbl_5):
            double = layer(double)
        return [self.branch1x1(x), large, double, self.branch_pool(_inner_average(x))]


class _E(InceptionE):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide = torch.cat((self.branch3x3_2a(single), self.branch3x3_2b(single)), 1)
        wider = torch.cat((self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)), 1)
        return [self.branch1x1(x), wide, wider, self.branch_pool(self._pool(x))]

    def _pool(self, x: Tensor) -> Tensor:
        return _inner_average(x)


class _LastE(_E):
    def _pool(self, x: Tensor) -> Tensor:
        # The graph takes a maximum here, which no description of the network mentions.
        return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
