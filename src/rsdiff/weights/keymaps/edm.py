"""Published names of EDM's networks, and of Ref-Diff's, <-> ours: state-dict keys and constructor arguments.

The published code names entries by the training resolution (`enc.32x32_block0`); ours by level (`encoder.entries.level0_block0`).
Constants that every network rebuilds itself are ignored: `resample_filter` (2x resampling kernels) and `u` (iDDPM's table of levels).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.diffusion.edm import EdmPreconditioning, Preconditioning
from rsdiff.diffusion.preconditioning import IddpmPreconditioning, VePreconditioning, VpPreconditioning
from rsdiff.networks.dhariwal_unet import DhariwalUNetConfig
from rsdiff.networks.edm_unet import ResampledConv2d
from rsdiff.networks.song_unet import SongUNetConfig
from rsdiff.weights.keymaps.renaming import Name, Rule, ours_from_published, published_from_ours, renamed

PREFIX = "model."
CONSTANTS = (r"(.*\.)?resample_filter", r"u")
"""Published keys, `model.` removed, of what is computed rather than learned."""

EMBEDDING: tuple[Rule, ...] = (
    (r"^embedding\.frequencies$", "map_noise.freqs"),
    (r"^embedding\.(label|augment|layer0|layer1)\.", r"map_\1."),
)
BLOCK: tuple[Rule, ...] = (
    (r"\bblock\.", ""),
    (r"\battention\.norm\.", "norm2."),
    (r"\battention\.(qkv|proj)\.", r"\1."),
    (r"\bsft_lr\.", "sft0."),
    (r"\bsft_ref\.", "sft1."),
)
"""Names within a block; Ref-Diff's decoder blocks hold the plain one under 'block.'."""
ENTRY = re.compile(r"(?:enc|dec)\.(\d+)x\1_")

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
PRECONDITIONING_ARGUMENTS: Mapping[str, tuple[Callable[..., Preconditioning], Mapping[str, str]]] = {
    "EDMPrecond": (EdmPreconditioning, {"sigma_data": "sigma_data", "sigma_min": "sigma_min", "sigma_max": "sigma_max"}),
    "VPPrecond": (VpPreconditioning, {"beta_d": "beta_d", "beta_min": "beta_min", "M": "steps", "epsilon_t": "epsilon_t"}),
    "VEPrecond": (VePreconditioning, {"sigma_min": "sigma_min", "sigma_max": "sigma_max"}),
    "iDDPMPrecond": (IddpmPreconditioning, {"C_1": "lowest_ratio", "C_2": "offset", "M": "steps"}),
}
"""Published class -> ours, with our names of its arguments."""
UNUSED_ARGUMENTS = frozenset({"label_dropout", "eff_attn", "use_fp16"})
"""Change neither the state dict nor what a network computes in evaluation."""


def edm_name(resolution: int) -> Name:
    """Return the naming (without `model.`) of a network trained at `resolution` pixels."""

    def entry(match: re.Match[str]) -> str:
        pixels = resolution >> int(match[2])
        return f"{match[1]}.{pixels}x{pixels}_"

    rules: tuple[Rule, ...] = (*EMBEDDING, (r"^(enc|dec)oder\.entries\.level(\d+)_", entry), *BLOCK)
    return lambda key: renamed(key, rules)


def network_state(network: nn.Module, published: Mapping[str, Tensor], ignored: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the state dict of `network` (which may be on the meta device) from a published one; see `ours_from_published`.

    published  keys with or without `model.`
    ignored    further regular expressions of published keys, `model.` removed, that the network has no use for
    """
    bare = {key.removeprefix(PREFIX): tensor for key, tensor in published.items()}
    finest = max((int(match[1]) for key in bare if (match := ENTRY.match(key))), default=1)
    return ours_from_published(bare, network.state_dict(), edm_name(finest), (*CONSTANTS, *ignored))


def published_state(network: nn.Module, ours: Mapping[str, Tensor], resolution: int) -> dict[str, Tensor]:
    """Return what the published network's state_dict() would be, resampling filters included."""
    filters = {
        f"{name}.resample_filter": layer.kernel[None, None].clone()
        for name, layer in network.named_modules()
        if isinstance(layer, ResampledConv2d)
    }
    return {PREFIX + key: tensor for key, tensor in published_from_ours({**ours, **filters}, edm_name(resolution)).items()}


def exported_state(content: Mapping[str, Any], config: Any | None) -> dict[str, Tensor] | None:
    """Return the state dict that `published_state` made, without `model.`, where a file is no more than that; None for published files.

    Raises UserError where no config says what network it is of.
    """
    if f"{PREFIX}map_layer0.weight" not in content:
        return None
    if config is None:
        raise UserError("the file is a bare state dict, which does not tell the options of its network; type those of the model.")
    return {key.removeprefix(PREFIX): value for key, value in content.items() if isinstance(value, Tensor)}


def bands_of(network: nn.Module, published: Mapping[str, Tensor], resolution: int) -> int:
    """Return the bands that a published network makes, by the same network for one band: only its last layers have other sizes."""
    name = edm_name(resolution)
    sizes = {name(key): len(value) for key, value in network.state_dict().items() if value.ndim}
    return max(len(published[key]) // size for key, size in sizes.items() if key in published)


def network_options(arguments: Mapping[str, Any]) -> SongUNetConfig | DhariwalUNetConfig:
    """Return our options of the network that a published preconditioner was constructed with (`_init_kwargs`).

    Raises UserError for an argument or a value that is not known, because ignoring it could change the result.
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
        raise UserError(f"the file's network is a '{kind}'; SongUNet and DhariwalUNet can be imported.")
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise UserError(f"the file's {kind} was made with '{unknown[0]}', which is not known here; known are {', '.join(sorted(names))}.")
    for published, ours in names.items():
        if published in given:
            value = given[published]
            options[ours] = tuple(value) if isinstance(value, list | tuple) else value
    options["attention_levels"] = levels_of(attends, resolution, len(mult))
    return SongUNetConfig(**options) if kind == "SongUNet" else DhariwalUNetConfig(**options)


def preconditioning_of(class_name: str, arguments: Mapping[str, Any]) -> Preconditioning:
    """Return our form of a published preconditioner; raises UserError for one that is not known."""
    if class_name not in PRECONDITIONING_ARGUMENTS:
        raise UserError(f"the file's network is wrapped in '{class_name}'; known are {', '.join(PRECONDITIONING_ARGUMENTS)}.")
    make, names = PRECONDITIONING_ARGUMENTS[class_name]
    return make(**{ours: arguments[published] for published, ours in names.items() if published in arguments})


def build_network(class_name: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of a published denoiser with its weights, in evaluation mode; strict.

    iDDPM's network has twice the image's channels; the second half are variances, which nothing reads.
    """
    channels = int(arguments["img_channels"])
    network = network_options(arguments).build(channels, channels * (2 if class_name == "iDDPMPrecond" else 1))
    network.load_state_dict(network_state(network, state))
    return network.eval()


def require_same(given: Any, stored: Any) -> None:
    """Raise ValueError unless an option or a config is what the file was made with; dropout, which no result depends on, may differ."""
    if _without_dropout(given) != _without_dropout(stored):
        raise UserError("the file's network was made with other options than the given ones.")


def _without_dropout(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return type(value), {field.name: _without_dropout(getattr(value, field.name)) for field in fields(value) if field.name != "dropout"}


def levels_of(resolutions: Sequence[int], finest: int, count: int) -> tuple[int, ...]:
    """Return the levels, of `count` whose finest has `finest` pixels, that have one of the given resolutions."""
    return tuple(level for level in range(count) if finest >> level in resolutions)


def _choose(table: Mapping[str, str], name: str, given: str) -> str:
    if given not in table:
        raise UserError(f"the file's network was made with {name}={given}; known are {', '.join(table)}.")
    return table[given]
