"""UNetAtom: the latent denoiser of LDCSR's older, unpublished second stages, SR3's U-Net behind one more convolution.

Source: MoooJianG/LDCSR, modules/denoisers/unet_atom.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rsdiff.networks.layers import reflect_to
from rsdiff.networks.sr3_unet import SR3UNet


class UNetAtom(nn.Module):
    """forward(x (B, 2 channels, y, x), level (B,)) -> (B, channels, y, x); x is concat(noisy latent, condition), level sqrt(alpha_bar).

    attention_levels  levels with attention, 0 the finest; the middle always has it
    Other arguments as in DiffusionUNet; sizes that cannot be halved often enough are extended at the bottom and right by reflection.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: Sequence[int],
        norm_groups: int = 32,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        nominal = 2 ** (len(multipliers) - 1)  # level i counts nominal / 2^i pixels
        self.entry = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.unet = SR3UNet(
            in_channels=width,
            out_channels=channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            norm_groups=norm_groups,
            dropout=0.0,
            nominal_size=nominal,
            attention_sizes=[nominal >> level for level in attention_levels],
            checkpointing=checkpointing,
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        multiple = self.unet.size_multiple
        extended = reflect_to(x, -(-rows // multiple) * multiple, -(-columns // multiple) * multiple)
        return self.unet(self.entry(extended), level)[..., :rows, :columns]
