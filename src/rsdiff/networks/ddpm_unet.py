"""The DDPM twin of SR3's network (Janspiry's `ddpm_modules`, DiffBSR's `DDPM_UNet`)."""

from __future__ import annotations

from rsdiff.networks.sr3_unet import SR3UNet


class DDPMUNet(SR3UNet):
    """SR3's network told an integer step t = 0 .. T-1 instead of the level; the embedding passes Swish before every block's Linear layer.

    forward(x (B, in_channels, H, W), t (B,)) -> (B, out_channels, H, W).
    """

    activate_time = True
