"""LDCSR's released Lightning checkpoints -> our two stages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.ldcsr import LatentDiffusionConfig, LCMSRConfig, LDCSRConfig
from rsdiff.methods.ldcsr_vae import DiscriminatorConfig, LDCSRVaeConfig
from rsdiff.networks.kl_autoencoder import AutoencoderConfig
from rsdiff.networks.latent_unet import LatentUNetConfig
from rsdiff.weights.keymaps.latent_unet import latent_unet_name, latent_unet_sizes
from rsdiff.weights.keymaps.ldcsr_autoencoder import (
    DEAD,
    autoencoder_config,
    autoencoder_name,
    encoder_config,
    encoder_name,
)
from rsdiff.weights.keymaps.renaming import Name, Part, name_of_parts, ours_from_published, published_from_ours
from rsdiff.weights.keymaps.unet_atom import unet_atom_name
from rsdiff.weights.lightning import plain
from rsdiff.weights.state_dicts import find_settings, find_state_dict, under

UNET, EMA, FIRST, CONDITION = "model.diffusion_model.", "model_ema.", "first_stage_model.", "cond_stage_model."
LOSS = "loss.discriminator."
TARGET, UPDATES = "target.", "updates"
IGNORED_LOSS = (r"loss\.logvar", r"loss\.perceptual_loss\..*")


def levels_of(options: AutoencoderConfig) -> int:
    """Return how many latent levels the decoder has."""
    return len(options.decoder.multipliers)


def bands_of(state: Mapping[str, Tensor], decoder: str) -> int:
    """Return the bands of the images from the last layer of the decoder under prefix `decoder`."""
    last = next(key for key in ("fuse.8.weight", "f_transfer.2.weight", "5.weight") if f"{decoder}upsampler.{key}" in state)
    return state[f"{decoder}upsampler.{last}"].shape[0]


@dataclass(frozen=True)
class LDCSRVaeKeyMap:
    """The `KeyMap` of the first stage."""

    def to_ours(self, content: Mapping[str, Any], config: LDCSRVaeConfig | None) -> tuple[LDCSRVaeConfig, dict[str, Tensor]]:
        published = dict(find_state_dict(content, "decoder.upsampler.fuse.0.weight" if config is None else _marker(config)).tensors)
        if config is None:
            config = LDCSRVaeConfig(autoencoder=autoencoder_config(published), discriminator=discriminator_config(published))
        bands = bands_of(published, "decoder.")
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=bands)).state_dict()
        return config, ours_from_published(published, own, self._name(config), (*DEAD, *IGNORED_LOSS))

    def to_published(self, config: LDCSRVaeConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Dead parameters are left out; the published class loads the rest with strict=False."""
        return published_from_ours(state_dict, self._name(config))

    def _name(self, config: LDCSRVaeConfig) -> Name:
        return name_of_parts(Part("discriminator.", LOSS), Part("autoencoder.", "", autoencoder_name(levels_of(config.autoencoder))))


def _marker(config: LDCSRVaeConfig) -> str:
    last = {"csum": "fuse.8.weight", "nearest_mlp": "f_transfer.2.weight", "fixed_x4": "5.weight"}
    return f"decoder.upsampler.{last[config.autoencoder.decoder.upsampler]}"


def discriminator_config(state: Mapping[str, Tensor]) -> DiscriminatorConfig:
    """Return the discriminator's sizes from a published first stage; weight 0, which means none, where it has none."""
    if f"{LOSS}main.0.weight" not in state:
        return DiscriminatorConfig(weight=0.0)
    layers = sum(key.startswith(LOSS) and key.endswith(".running_mean") for key in state)
    return DiscriminatorConfig(width=state[f"{LOSS}main.0.weight"].shape[0], layers=layers)


@dataclass(frozen=True)
class LatentKeyMap:
    """The `KeyMap` of a second stage: the averaged U-Net where the file has one, everything else as trained.

    method  its class of configs. LCMSR's files have one layout with LDCSR's; their average is the network that a training agrees with
    """

    method: type[LatentDiffusionConfig]

    def to_ours(self, content: Mapping[str, Any], config: LatentDiffusionConfig | None) -> tuple[LatentDiffusionConfig, dict[str, Tensor]]:
        is_atom = config is not None and config.architecture == "unet_atom"
        published = dict(find_state_dict(content, UNET + ("first_conv_x.weight" if is_atom else "input_blocks.0.0.weight")).tensors)
        if config is None:
            config = second_stage_config(self.method, published, prediction_in(content))
        require_prediction(content, config)
        for key, averaged in ema_names(under(published, UNET)).items():
            if averaged in published:
                published[UNET + key] = published[averaged]
        require_betas(published, config.schedule)
        if "scale_factor" not in published:
            raise UserError("the file has no 'scale_factor', without which its latents cannot be decoded; it is no second stage of LDCSR.")
        bands = bands_of(published, f"{FIRST}decoder.")
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=bands)).state_dict()
        ignored = (*(FIRST + pattern for pattern in DEAD), rf"{EMA}.*", *ScheduleConfig(steps=2).build().buffers())
        ours = ours_from_published(published, without_average(own), self._name(config), ignored)
        if UPDATES in own:
            ours |= {TARGET + name: value.clone() for name, value in under(ours, "unet.").items()}
            ours[UPDATES] = published.get(f"{EMA}num_updates", torch.zeros(())).to(torch.int64)
        return config, ours

    def to_published(self, config: LatentDiffusionConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Dead parameters are left out; the averaged U-Net, which published code samples with, equals the U-Net."""
        named = published_from_ours(without_average(state_dict), self._name(config))
        unet = under(named, UNET)
        averages = {averaged: unet[key] for key, averaged in ema_names(unet).items()}
        if UPDATES in state_dict:
            averages[f"{EMA}num_updates"] = state_dict[UPDATES].to(torch.int32)
        return {**named, **averages, **config.schedule.build().buffers()}

    def _name(self, config: LatentDiffusionConfig) -> Name:
        sizes = config.unet
        unet = unet_atom_name(len(sizes.multipliers), sizes.blocks) if config.architecture == "unet_atom" else unet_name(sizes)
        return name_of_parts(
            Part("unet.", UNET, unet),
            Part("first_stage.", FIRST, autoencoder_name(levels_of(config.first_stage))),
            Part("condition.", CONDITION, encoder_name),
            Part("latent_scale", "scale_factor"),
        )


def without_average(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without LCMSR's averaged network."""
    return {name: value for name, value in state.items() if name != UPDATES and not name.startswith(TARGET)}


def prediction_in(content: Mapping[str, Any]) -> Literal["noise", "clean"] | None:
    """Return what the file's settings say that the network predicts, None where it has none."""
    settings = plain(find_settings(content, ("parameterization",)) or {})
    words: Mapping[Any, Literal["noise", "clean"]] = {"eps": "noise", "x0": "clean"}
    return words.get(settings.get("parameterization"))


def require_prediction(content: Mapping[str, Any], config: LatentDiffusionConfig) -> None:
    """Raise UserError where the file's settings say that the network predicts something else than the config does."""
    said = prediction_in(content)
    if said is not None and said != config.prediction:
        raise UserError(f"the file's network predicts the {said} latent and the config says {config.prediction}.")


def unet_name(options: LatentUNetConfig) -> Name:
    """Return the naming of the noise predictor of these sizes."""
    return latent_unet_name(len(options.multipliers), options.blocks, options.attention_levels)


def ema_names(keys: Iterable[str]) -> dict[str, str]:
    """Return where the average of each U-Net parameter is stored: its name without dots; raises UserError where two coincide."""
    names = {key: f"{EMA}diffusion_model{key.replace('.', '')}" for key in keys}
    if len(set(names.values())) != len(names):
        raise UserError("two parameters of the U-Net have one name without dots; the averages in this file cannot be told apart.")
    return names


def second_stage_config(
    method: type[LatentDiffusionConfig], published: Mapping[str, Tensor], prediction: Literal["noise", "clean"] | None
) -> LatentDiffusionConfig:
    """Return the config of a published second stage; heads of 32 channels, which its keys do not tell."""
    parts = {prefix: under(published, prefix) for prefix in (UNET, FIRST, CONDITION)}
    config = method(
        prediction=prediction or "noise",
        first_stage=autoencoder_config(parts[FIRST]),
        condition=encoder_config(parts[CONDITION]),
        unet=LatentUNetConfig(**latent_unet_sizes(parts[UNET])),
    )
    if "betas" not in published:
        return config
    betas = published["betas"].double()
    start, end = (round(float(beta), 6) for beta in (betas[0], betas[-1]))
    return replace(config, schedule=replace(config.schedule, steps=len(betas), start=start, end=end))


def require_betas(published: Mapping[str, Tensor], schedule: ScheduleConfig) -> None:
    """Raise ValueError when the file's betas are not those of the config."""
    if "betas" not in published:
        return
    ours, theirs = schedule.build().betas.float(), published["betas"].float()
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7):
        raise UserError(
            f"the file was trained with {len(theirs)} steps from beta {float(theirs[0]):.6g} to {float(theirs[-1]):.6g}, the config says "
            f"{schedule.steps} from {schedule.start} to {schedule.end}; correct model.schedule."
        )


LDCSR, LCMSR = LatentKeyMap(LDCSRConfig), LatentKeyMap(LCMSRConfig)
