"""Released Ref-Diff weights (`training-state-*.pt`, `network-snapshot-*.pkl`) <-> ours. The averaged network (`ema`) is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.refdiff import RefDiffConfig
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig
from rsdiff.networks.song_unet import SongUNetConfig
from rsdiff.weights.edm_pickle import PublishedDenoiser, denoiser_in
from rsdiff.weights.keymaps.edm import (
    bands_of,
    exported_state,
    network_options,
    network_state,
    preconditioning_of,
    published_state,
    require_same,
)

RESOLUTION = 256
"""Pixels at which the published model was trained."""
MODULATION = "mul_conv1.weight"
IGNORED = (r"map_label\..*", r"map_augment\..*")
"""Constructed by the published class when asked for, but commented out of its forward pass."""


@dataclass(frozen=True)
class RefDiffKeyMap:
    """The `KeyMap` of Ref-Diff."""

    def to_ours(self, content: Mapping[str, Any], config: RefDiffConfig | None) -> tuple[RefDiffConfig, dict[str, Tensor]]:
        exported = exported_state(content, config)
        if config is not None and exported is not None:
            with torch.device("meta"):
                bands = bands_of(config.network.build(1, 1), exported, RESOLUTION)
                network = config.network.build(bands, bands)
            return config, {f"network.{name}": tensor for name, tensor in network_state(network, exported, IGNORED).items()}
        published = denoiser_in(content)
        made = refdiff_config(published)
        if config is not None:
            require_same(config.network, made.network)
            require_same(config.levels.sigma_data, made.levels.sigma_data)
            require_same(config.mask_codes, made.mask_codes)
            made = config
        channels = int(published.arguments["img_channels"])
        with torch.device("meta"):
            network = made.network.build(channels, channels)
        return made, {f"network.{name}": tensor for name, tensor in network_state(network, published.state, IGNORED).items()}

    def to_published(self, config: RefDiffConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ours = {name.removeprefix("network."): tensor for name, tensor in state_dict.items()}
        channels = ours["decoder.entries.level0_aux_conv.weight"].shape[0]
        network = config.network.build(channels, channels, mask_channels=len(config.mask_codes) or 1)
        return published_state(network, ours, RESOLUTION)


def refdiff_config(published: PublishedDenoiser) -> RefDiffConfig:
    """Return our config of a published Ref-Diff denoiser."""
    made = RefDiffConfig(network=refdiff_options(published.arguments, published.state))
    preconditioning = preconditioning_of(published.class_name, published.arguments)
    sigma_data = getattr(preconditioning, "sigma_data", None)
    if sigma_data is None:
        raise UserError(f"the file's network is wrapped in '{published.class_name}'; Ref-Diff is known with EDMPrecond only.")
    return replace(made, levels=replace(made.levels, sigma_data=sigma_data))


def refdiff_options(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> RefDiffUNetConfig:
    """Return our options of a published Ref-Diff network from its constructor arguments and its state dict.

    The state dict tells the modulation width, which the published class hard-codes.
    """
    trunk = network_options({**arguments, "label_dim": 0, "augment_dim": 0})
    width = next((tensor.shape[0] for key, tensor in state.items() if key.endswith(MODULATION)), None)
    if not isinstance(trunk, SongUNetConfig) or width is None:
        raise UserError("the file's network has no modulated decoder, so it is not Ref-Diff's; choose model=edm_sr for EDM's own networks.")
    return RefDiffUNetConfig(trunk=trunk, modulation_width=int(width))


def build_refdiff_network(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return a published Ref-Diff network with its weights, in evaluation mode; strict but for the label layers it never uses."""
    channels = int(arguments["img_channels"])
    network = refdiff_options(arguments, state).build(channels, channels)
    network.load_state_dict(network_state(network, state, IGNORED))
    return network.eval()
