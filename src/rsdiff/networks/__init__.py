"""Plain `nn.Module`s, one file per published network, each with its config. Tables of their kinds, without PyTorch."""

from __future__ import annotations

from rsdiff.config.kinds import Kinds

NETWORKS = Kinds(
    {
        "awan": "rsdiff.networks.awan:AWANNetConfig",
        "edsr": "rsdiff.networks.encoder_heads:EDSRNetConfig",
        "hat": "rsdiff.networks.hat:HATNetConfig",
        "hscnn_plus": "rsdiff.networks.hscnn_plus:HSCNNPlusNetConfig",
        "mst_l": "rsdiff.networks.mst:MSTLNetConfig",
        "mstpp": "rsdiff.networks.mst:MSTPlusPlusNetConfig",
        "rdn": "rsdiff.networks.encoder_heads:RDNNetConfig",
        "rrdb": "rsdiff.networks.rrdb:RRDBNetConfig",
        "spectral_cnn": "rsdiff.networks.spectral_cnn:SpectralCNNNetConfig",
        "spsr": "rsdiff.networks.spsr:SPSRNetConfig",
        "swinir": "rsdiff.networks.encoder_heads:SwinIRNetConfig",
    }
)
"""Kinds of `rsdiff.networks.restorers.RestorerConfig`: model.network=hat."""
DISCRIMINATORS = Kinds(
    {
        "patch": "rsdiff.networks.discriminators:PatchConfig",
        "unet": "rsdiff.networks.discriminators:UNetConfig",
        "vgg": "rsdiff.networks.discriminators:VGGConfig",
    }
)
"""Kinds of `rsdiff.networks.discriminators.DiscriminatorConfig`: model.discriminator=unet."""
