"""The degradation encoder of DASR, which DRSR, BlindSRSNF and DiffBSR share: LR image -> degradation code, without supervision."""

from __future__ import annotations

from torch import Tensor, nn


class DegradationEncoder(nn.Module):
    """Six 3x3 convolutions with batch normalisation, pooled to a code; a two-layer projection of it serves the contrastive loss only.

    in_channels  bands of the LR image
    width        channels of the first two convolutions (64 published); the next pairs have 2 and 4 times as many, halving the image once
                 each, so that the code has 4 * width entries
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        plan = [(width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)]
        layers: list[nn.Module] = []
        for channels, stride in plan:
            layers += [nn.Conv2d(in_channels, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.LeakyReLU(0.1, inplace=True)]
            in_channels = channels
        self.code_channels = in_channels
        self.trunk = nn.Sequential(*layers)
        self.projection = nn.Sequential(
            nn.Linear(in_channels, in_channels), nn.LeakyReLU(0.1, inplace=True), nn.Linear(in_channels, in_channels)
        )

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (code, projection), both (B, 4 * width), of lr (B, in_channels, h, w) in the range the method uses.

        Networks are conditioned on the code, never on the projection.
        """
        code = self.trunk(lr).mean(dim=(-2, -1))
        return code, self.projection(code)
