"""EDM's released networks -> starting points of `edm_sr`, and back.

EDM's networks are unconditional. What they compute is kept exactly: the stem (and the pyramid) gets inputs for the LR image whose weights
are zero, so that before any training the denoiser is EDM's own, whatever the LR. Class labels are fixed at zero (their bias moves into the
next layer) and augmentation labels are dropped (zero is what EDM samples with).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.edm import EdmLevels
from rsdiff.methods.edm_sr import EdmSrConfig
from rsdiff.networks.song_unet import SongUNetConfig
from rsdiff.weights.edm_pickle import PublishedDenoiser, denoiser_in
from rsdiff.weights.keymaps.edm import (
    bands_of,
    edm_name,
    exported_state,
    network_options,
    network_state,
    preconditioning_of,
    published_state,
    require_same,
)

RESOLUTION = 64
"""Pixels that name the levels in exported files."""
STEM = "encoder.entries.level0_conv.weight"
LABEL_BIAS, NEXT_WEIGHT, NEXT_BIAS = "map_label.bias", "map_layer0.weight", "map_layer0.bias"
IGNORED = (r"map_label\..*", r"map_augment\..*")
PRECONDITIONINGS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}


@dataclass(frozen=True)
class EdmSrKeyMap:
    """The `KeyMap` of EDM for super-resolution."""

    def to_ours(self, content: Mapping[str, Any], config: EdmSrConfig | None) -> tuple[EdmSrConfig, dict[str, Tensor]]:
        exported = exported_state(content, config)
        if config is not None and exported is not None:
            build, seen = config.network_options().build, exported[edm_name(RESOLUTION)(STEM)].shape[1]
            with torch.device("meta"):
                network = build(seen, bands_of(build(seen, 1), exported, RESOLUTION))
            return config, {f"network.{name}": tensor for name, tensor in network_state(network, exported, IGNORED).items()}
        published = denoiser_in(content)
        made = edm_sr_config(published)
        if config is not None:
            for option in ("architecture", "preconditioning"):
                require_same(getattr(config, option), getattr(made, option))
            unlabelled = replace(config, augmentation=made.augmentation).network_options()
            require_same(unlabelled, made.network_options())
            require_same(config.levels.sigma_data, made.levels.sigma_data)
            if config.augments:
                raise UserError("labels of augmentation are not imported; set model.augmentation.probability=0.")
            made = config
        channels = int(published.arguments["img_channels"])
        with torch.device("meta"):
            network, conditional = (made.network_options().build(inputs, channels) for inputs in (channels, 2 * channels))
        state = network_state(network, without_labels(published.state), IGNORED)
        for name, value in conditional.state_dict().items():
            if value.shape != state[name].shape:  # the stem, and the layers that see the input again
                state[name] = torch.cat([state[name], torch.zeros_like(state[name])], dim=1)
        return made, {f"network.{name}": tensor for name, tensor in state.items()}

    def to_published(self, config: EdmSrConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names as published; the stem keeps its inputs for the LR, which the published class must be given as img_channels."""
        ours = {name.removeprefix("network."): tensor for name, tensor in state_dict.items()}
        network = config.network_options().build(ours[STEM].shape[1], 1)
        return published_state(network, ours, RESOLUTION)


def edm_sr_config(published: PublishedDenoiser) -> EdmSrConfig:
    """Return our config of a published denoiser."""
    if published.class_name not in PRECONDITIONINGS:
        raise UserError(
            f"the file's network is wrapped in '{published.class_name}'; edm_sr can be trained with {', '.join(PRECONDITIONINGS)}."
        )
    options = replace(network_options(published.arguments), class_labels=0, augment_labels=0)
    chosen = {"song": options} if isinstance(options, SongUNetConfig) else {"dhariwal": options, "architecture": "dhariwal"}
    made = EdmSrConfig(**chosen, preconditioning=PRECONDITIONINGS[published.class_name])  # type: ignore[arg-type]
    sigma_data = getattr(preconditioning_of(published.class_name, published.arguments), "sigma_data", EdmLevels().sigma_data)
    return replace(made, levels=replace(made.levels, sigma_data=sigma_data))


def without_labels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published state dict with the bias of the class label, which acts at label zero too, moved into the layer behind it."""
    bare = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    if LABEL_BIAS in bare and NEXT_WEIGHT in bare:
        bare[NEXT_BIAS] = bare[NEXT_BIAS] + bare[NEXT_WEIGHT] @ bare[LABEL_BIAS]
    return bare
