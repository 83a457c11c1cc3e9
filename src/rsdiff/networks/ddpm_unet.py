"""The DDPM twin of SR3's network (Janspiry's `ddpm_modules`, DiffBSR's `DDPM_UNet`)."""

from __future__ import annotations

from rsdiff.config import config
from rsdiff.networks.sr3_unet import SR3UNet, SR3UNetConfig


@config
class DDPMUNetConfig(SR3UNetConfig):
    """A U-Net that is shown a condition beside the noisy image, and told a time."""

    def build(self, in_channels: int, out_channels: int) -> DDPMUNet:
        """Return the network with fresh weights for these channel counts (input: condition and noisy image)."""
        return DDPMUNet(self, in_channels, out_channels)


class DDPMUNet(SR3UNet):
    """SR3's network told a time t, in DDPM an integer 0 .. T-1, instead of the level, through a Swish before every block's Linear layer.

    forward(x (B, in_channels, H, W), t (B,)) -> (B, out_channels, H, W).
    """

    activate_time = True
