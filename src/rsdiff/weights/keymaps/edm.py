"""Published names of EDM's and Ref-Diff's networks -> ours: state-dict keys and constructor arguments.

The published code names entries by the training resolution (`enc.32x32_block0`); ours by level (`encoder.entries.level0_block0`).
Constants that every network rebuilds itself are dropped: `resample_filter` (2x resampling kernels) and `u` (iDDPM's table of levels).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rsdiff.diffusion.preconditioning import (
    EdmPreconditioning,
    IddpmPreconditioning,
    Preconditioning,
    VePreconditioning,
    VpPreconditioning,
)
from rsdiff.networks.dhariwal_unet import DhariwalUNetConfig
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig
from rsdiff.networks.song_unet import SongUNetConfig

CONSTANTS = re.compile(r"(^|\.)(resample_filter|u)$")
EMBEDDING = {
    "map_noise.freqs": "embedding.frequencies",
    "map_label.": "embedding.label.",
    "map_augment.": "embedding.augment.",
    "map_layer0.": "embedding.layer0.",
    "map_layer1.": "embedding.layer1.",
}
ENTRY = re.compile(r"^(enc|dec)\.(\d+)x\2_(\w+)\.(.+)$")
HALVES = {"enc": "encoder", "dec": "decoder"}
ATTENTION = {"norm2.": "attention.norm.", "qkv.": "attention.qkv.", "proj.": "attention.proj."}
MODULATION = {"sft0.": "sft_lr.", "sft1.": "sft_ref."}

UNUSED_BY_REFDIFF = ("embedding.label.", "embedding.augment.")
"""Constructed by the published class when asked for, but commented out of its forward pass."""

PYRAMIDS = {"standard": "none", "skip": "skip", "residual": "residual"}
HEADS = {"standard": "one", "skip": "sum"}
SONG_ARGUMENTS = {
    "model_channels": "model_channels",
    "channel_mult": "channel_mult",
    "channel_mult_emb": "embedding_mult",
    "num_blocks": "num_blocks",
    "dropout": "dropout",
    "embedding_type": "embedding",
    "channel_mult_noise": "noise_width_factor",
    "resample_filter": "resample_filter",
    "label_dim": "class_labels",
    "augment_dim": "augment_labels",
}
DHARIWAL_ARGUMENTS = {
    "model_channels": "model_channels",
    "channel_mult": "channel_mult",
    "channel_mult_emb": "embedding_mult",
    "num_blocks": "num_blocks",
    "dropout": "dropout",
    "label_dim": "class_labels",
    "augment_dim": "augment_labels",
}
UNUSED_ARGUMENTS = frozenset({"label_dropout", "eff_attn", "use_fp16"})
"""Change neither the state dict nor what a network computes in evaluation."""
PRECONDITIONING_ARGUMENTS: Mapping[str, tuple[Callable[..., Preconditioning], Mapping[str, str]]] = {
    "EDMPrecond": (EdmPreconditioning, {"sigma_data": "sigma_data", "sigma_min": "sigma_min", "sigma_max": "sigma_max"}),
    "VPPrecond": (VpPreconditioning, {"beta_d": "beta_d", "beta_min": "beta_min", "M": "steps", "epsilon_t": "epsilon_t"}),
    "VEPrecond": (VePreconditioning, {"sigma_min": "sigma_min", "sigma_max": "sigma_max"}),
    "iDDPMPrecond": (IddpmPreconditioning, {"C_1": "lowest_ratio", "C_2": "offset", "M": "steps"}),
}
"""Published class -> ours, with our names of its arguments."""


def to_our_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a published denoiser (keys `model.enc...`) or of its bare network under our names, less the constants."""
    bare = {key.removeprefix("model."): tensor for key, tensor in published.items() if not CONSTANTS.search(key)}
    entries = {key: match for key in bare if (match := ENTRY.match(key))}
    resolutions = sorted({int(match[2]) for match in entries.values()}, reverse=True)
    modulated = {key.partition(".sft0.")[0] for key in entries if ".sft0." in key}
    ours: dict[str, Tensor] = {}
    for key, tensor in bare.items():
        match = entries.get(key)
        if match is None:
            ours[_replace_start(key, EMBEDDING)] = tensor
            continue
        half, resolution, what, inner = match.groups()
        level = resolutions.index(int(resolution))
        inner = our_block_key(inner, modulated=key.removesuffix(f".{inner}") in modulated)
        ours[f"{HALVES[half]}.entries.level{level}_{what}.{inner}"] = tensor
    return ours


def our_block_key(published: str, modulated: bool) -> str:
    """Return our name of a tensor within a block; modulated blocks of Ref-Diff hold the plain block under `block`."""
    if published.startswith(tuple(MODULATION)):
        return _replace_start(published, MODULATION)
    inner = _replace_start(published, ATTENTION)
    return f"block.{inner}" if modulated else inner


def network_options(arguments: Mapping[str, Any]) -> SongUNetConfig | DhariwalUNetConfig:
    """Return our options of the network that a published preconditioner was constructed with (`_init_kwargs`).

    Raises ValueError for an argument or a value that is not known, because ignoring it could change the result.
    """
    kind = arguments.get("model_type", "DhariwalUNet")
    elsewhere = {"model_type", "img_channels", *UNUSED_ARGUMENTS}.union(*(names for _, names in PRECONDITIONING_ARGUMENTS.values()))
    given = {key: value for key, value in arguments.items() if key not in elsewhere}
    resolution = int(given.pop("img_resolution"))
    if kind == "SongUNet":
        options: dict[str, Any] = {
            "pyramid": _choose(PYRAMIDS, "encoder_type", given.pop("encoder_type", "standard")),
            "output_heads": _choose(HEADS, "decoder_type", given.pop("decoder_type", "standard")),
        }
        attends, mult, names = given.pop("attn_resolutions", [16]), given.get("channel_mult", [1, 2, 2, 2]), SONG_ARGUMENTS
    elif kind == "DhariwalUNet":
        options = {}
        attends, mult, names = given.pop("attn_resolutions", [32, 16, 8]), given.get("channel_mult", [1, 2, 3, 4]), DHARIWAL_ARGUMENTS
    else:
        raise ValueError(f"the file's network is a '{kind}'; SongUNet and DhariwalUNet can be imported.")
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"the file's {kind} was made with '{unknown[0]}', which is not known here; known are {', '.join(sorted(names))}.")
    for published, ours in names.items():
        if published in given:
            value = given[published]
            options[ours] = tuple(value) if isinstance(value, list | tuple) else value
    options["attention_levels"] = levels_of(attends, resolution, len(mult))
    return SongUNetConfig(**options) if kind == "SongUNet" else DhariwalUNetConfig(**options)


def preconditioning_of(class_name: str, arguments: Mapping[str, Any]) -> Preconditioning:
    """Return our form of a published preconditioner; raises ValueError for one that is not known."""
    if class_name not in PRECONDITIONING_ARGUMENTS:
        raise ValueError(f"the file's network is wrapped in '{class_name}'; known are {', '.join(PRECONDITIONING_ARGUMENTS)}.")
    make, names = PRECONDITIONING_ARGUMENTS[class_name]
    return make(**{ours: arguments[published] for published, ours in names.items() if published in arguments})


def output_channels(class_name: str, arguments: Mapping[str, Any]) -> int:
    """Return the channels of the published network's output: iDDPM's also has variances, which nothing reads."""
    return int(arguments["img_channels"]) * (2 if class_name == "iDDPMPrecond" else 1)


def build_network(class_name: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of a published denoiser with its weights, in evaluation mode; strict."""
    network = network_options(arguments).build(int(arguments["img_channels"]), output_channels(class_name, arguments))
    network.load_state_dict(to_our_keys(state))
    return network.eval()


def build_refdiff_network(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return a published Ref-Diff network with its weights, in evaluation mode; strict but for the label layers it never uses."""
    channels = int(arguments["img_channels"])
    network = refdiff_options(arguments, state).build(channels, channels)
    ours = to_our_keys(state)
    network.load_state_dict({key: tensor for key, tensor in ours.items() if not key.startswith(UNUSED_BY_REFDIFF)})
    return network.eval()


def refdiff_options(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> RefDiffUNetConfig:
    """Return our options of a published Ref-Diff network from its constructor arguments and its state dict (either key style).

    The state dict tells the modulation width, which the published class hard-codes.
    """
    trunk = network_options({**arguments, "label_dim": 0, "augment_dim": 0})
    if not isinstance(trunk, SongUNetConfig):
        raise ValueError("the file's network is a DhariwalUNet, which Ref-Diff cannot be built from; its trunk is a SongUNet.")
    width = next(tensor.shape[0] for key, tensor in state.items() if key.endswith("mul_conv1.weight"))
    return RefDiffUNetConfig(trunk=trunk, modulation_width=int(width))


def levels_of(resolutions: Sequence[int], finest: int, count: int) -> tuple[int, ...]:
    """Return the levels, of `count` whose finest has `finest` pixels, that have one of the given resolutions."""
    return tuple(level for level in range(count) if finest >> level in resolutions)


def _replace_start(key: str, table: Mapping[str, str]) -> str:
    start = next((start for start in table if key.startswith(start)), None)
    return key if start is None else table[start] + key[len(start) :]


def _choose(table: Mapping[str, str], name: str, given: str) -> str:
    if given not in table:
        raise ValueError(f"the file's network was made with {name}={given}; known are {', '.join(table)}.")
    return table[given]
