"""SR3's noise predictor (Janspiry's implementation; BlindSRSNF's `SR3VanillaUNet` is the same network).

UNetAtom, the latent denoiser of LDCSR's older, unpublished second stages, is it behind one more convolution. Source of that:
MoooJianG/LDCSR, modules/denoisers/unet_atom.py.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.diffusion_unet import DiffusionUNet, SkeletonConfig, attention_levels
from rsdiff.networks.layers import ResidualBlock, TimeEmbedding, orthogonal_, reflect_to_multiple


@config
class SR3UNetConfig(SkeletonConfig):
    """The skeleton with attention where the published networks have it."""

    nominal_size: int = 512
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""
    attention_sizes: tuple[int, ...] = (16,)
    """Counted resolutions with attention; the middle always has it. With the default nominal size no level counts 16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nominal_size < self.size_multiple:
            raise UserError(f"nominal_size={self.nominal_size} halves to nothing; choose at least {self.size_multiple}.")

    @property
    def size_multiple(self) -> int:
        """What the network needs the image's height and width to be multiples of."""
        return 2 ** (len(self.multipliers) - 1)

    def attention_levels(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return the levels with attention on the way down and on the way up."""
        return attention_levels(self.nominal_size, self.attention_sizes, len(self.multipliers))


class SR3UNet(DiffusionUNet):
    """Predicts the noise in x_t = level * x0 + sqrt(1 - level^2) * noise, told the continuous level = sqrt(alpha_bar) in (0, 1].

    forward(x (B, in_channels, H, W), level (B,)) -> (B, out_channels, H, W). x is concat(condition, x_t), or x_t alone.
    Unlike the paper: DDPM's residual blocks, and the level only shifts the features (no scale).
    """

    activate_time = False

    def __init__(self, options: SR3UNetConfig, in_channels: int, out_channels: int) -> None:
        attention_down, attention_up = options.attention_levels()
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            attention_down=attention_down,
            attention_up=attention_up,
            make_block=partial(
                ResidualBlock,
                embedding_width=options.width,
                norm_groups=options.norm_groups,
                dropout=options.dropout,
                activate_time=self.activate_time,
            ),
            **options.sizes(),
        )
        self.time = TimeEmbedding(options.width)
        orthogonal_(self)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.run(x, self.time(time))


class UNetAtom(nn.Module):
    """forward(x (B, 2 channels, y, x), level (B,)) -> (B, channels, y, x); x is concat(noisy latent, condition), level sqrt(alpha_bar).

    Sizes that cannot be halved often enough are extended at the bottom and right by reflection.
    """

    def __init__(self, options: SR3UNetConfig, channels: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(2 * channels, options.width, 3, padding=1)
        self.unet = SR3UNet(options, options.width, channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        extended = reflect_to_multiple(x, self.unet.size_multiple)
        return self.unet(self.entry(extended), level)[..., :rows, :columns]
