"""The DDPM twin of SR3's network (Janspiry's `ddpm_modules`, DiffBSR's `DDPM_UNet`)."""

from __future__ import annotations

from rsdiff.config import UserError, config
from rsdiff.networks.diffusion_unet import SkeletonConfig
from rsdiff.networks.sr3_unet import SR3UNet


@config
class DDPMUNetConfig(SkeletonConfig):
    """A U-Net that is shown a condition beside the noisy image, and told a time."""

    nominal_size: int = 512
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""
    attention_sizes: tuple[int, ...] = (16,)
    """Counted resolutions with attention; the middle always has it. With the default nominal size no level counts 16."""

    def __post_init__(self) -> None:
        SkeletonConfig.__post_init__(self)
        if self.nominal_size < self.size_multiple:
            raise UserError(f"nominal_size={self.nominal_size} halves to nothing; choose at least {self.size_multiple}.")

    @property
    def size_multiple(self) -> int:
        """What the network needs the image's height and width to be multiples of."""
        return 2 ** (len(self.multipliers) - 1)

    def build(self, in_channels: int, out_channels: int) -> DDPMUNet:
        """Return the network with fresh weights for these channel counts (input: condition and noisy image)."""
        return DDPMUNet(
            in_channels=in_channels,
            out_channels=out_channels,
            nominal_size=self.nominal_size,
            attention_sizes=self.attention_sizes,
            **self.skeleton(),
        )


class DDPMUNet(SR3UNet):
    """SR3's network told a time t, in DDPM an integer 0 .. T-1, instead of the level, through a Swish before every block's Linear layer.

    forward(x (B, in_channels, H, W), t (B,)) -> (B, out_channels, H, W).
    """

    activate_time = True
