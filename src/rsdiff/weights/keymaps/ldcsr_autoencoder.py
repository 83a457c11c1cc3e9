"""Published names and shapes of LDCSR's encoders and decoders, the ablations included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rsdiff.networks.kl_autoencoder import AutoencoderConfig, GAPDecoderConfig, GAPEncoderConfig
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, renamed
from rsdiff.weights.state_dicts import under

COMMON: tuple[Rule, ...] = (
    (r"\bblocks\.(\d+)\.", r"block.\1."),
    (r"\bmiddle\.(\d)\.", lambda found: f"mid.block_{int(found[1]) + 1}."),
    (r"\bshortcut\.", "nin_shortcut."),
    (r"\bhalve\.", "downsample."),
)
DECODER: tuple[Rule, ...] = (
    (r"\bdistillations\.(\d+)\.conv(\d)\.", r"IMDB.\1.c\2."),
    (r"\bdistillations\.(\d+)\.fuse\.", r"IMDB.\1.c5."),
    (r"\bdistillations\.(\d+)\.attention\.weigh\.", r"IMDB.\1.cca.conv_du."),
    (r"\battention\.weigh\.", "cca.conv_du."),
    (r"\brefine\.(\d+)\.join\.", r"FRUList.\1.c.0."),
    (r"\brefine\.(\d+)\.conv\.", r"FRUList.\1.LR_conv."),
    (r"\brefine\.", "FRUList."),
    (r"\bimage_weight\.", "condition_scale1."),
    (r"\blatent_weight\.", "condition_scale2."),
    (r"\bdoublings\.(\d+)\.", r"UPNet_x2_list.\1.0."),
    (r"\bgate\.", "scale_aware_layer."),
    (r"\bupsampler\.layers\.", "upsampler.f_transfer."),
    (r"\bupsampler\.shuffle\.", "upsampler."),
)
DEAD = (r"(decoder\.)?style\.weight", r"(decoder\.)?up\.\d+\.condition_scale[12]\.(weight|bias)", r"encoder\.conv\.(weight|bias)")
"""Published parameters that no result depends on. Whether scale vectors are used is seen from the head beside them."""


def encoder_name(key: str) -> str:
    """Return the published name of a parameter of GAPEncoder."""
    return renamed(key, COMMON)


def decoder_name(levels: int) -> Name:
    """Return the naming of a GAPDecoder with so many latent levels, which are published in reverse order."""
    reverse: Rule = (r"^levels\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.")
    return lambda key: renamed(key, (*DECODER, *COMMON, reverse))


def autoencoder_name(levels: int) -> Name:
    """Return the naming of a KLAutoencoder whose decoder has so many latent levels."""
    return name_of_parts(
        Part("encoder.", "encoder.", encoder_name),
        Part("decoder.", "decoder.", decoder_name(levels)),
        Part("quantise.", "quant_conv."),
        Part("unquantise.", "post_quant_conv."),
    )


def encoder_config(state: Mapping[str, Tensor]) -> GAPEncoderConfig:
    """Return the config of a published GAPEncoder's state dict."""
    width = state["conv_in.weight"].shape[0]
    blocks = count_of(state, r"down\.0\.block\.(\d+)\.")
    return GAPEncoderConfig(width=width, multipliers=tuple(_widths(state, "down", width)), blocks=blocks)


def decoder_config(state: Mapping[str, Tensor]) -> GAPDecoderConfig:
    """Return the config of a published GAPDecoder's state dict: its ablations are recognised by the parts that are there."""
    has_image, has_latent = "head.weight" in state, "conv_in.weight" in state
    found: dict[str, Any] = {"branches": "both" if has_image and has_latent else "image" if has_image else "latent"}
    if has_image and has_latent and "up.0.condition_scale1.weight" not in state:
        found["modulation"] = "sum"
    if "upsampler.f_transfer.0.weight" in state:
        found["upsampler"] = "nearest_mlp"
    elif "upsampler.5.weight" in state:
        found["upsampler"] = "fixed_x4"
    else:
        found["fuse_width"] = state["upsampler.fuse.0.weight"].shape[0]
    units = count_of(state, r"FRUList\.(\d+)\.")
    found["refinements"] = tuple(count_of(state, rf"FRUList\.{unit}\.IMDB\.(\d+)\.") for unit in range(units))
    width = found["width"] = state["head.weight" if has_image else "up.0.transfer.weight"].shape[0]
    if has_latent:
        found["multipliers"] = tuple(_widths(state, "up", width))
        found["blocks"] = count_of(state, r"up\.0\.block\.(\d+)\.")
    else:
        found["multipliers"] = (1,) * units
    if found["branches"] == "latent":
        found["refinements"] = ()
    return GAPDecoderConfig(**found)


def autoencoder_config(state: Mapping[str, Tensor]) -> AutoencoderConfig:
    """Return the config of a published autoencoder's state dict."""
    parts = {part: under(state, f"{part}.") for part in ("encoder", "decoder")}
    decoder = decoder_config(parts["decoder"])
    if decoder.branches == "image":
        return AutoencoderConfig(decoder=decoder)
    bands = state["decoder.head.weight"].shape[1] if decoder.branches == "both" else parts["encoder"]["conv_in.weight"].shape[1]
    return AutoencoderConfig(
        encoder=encoder_config(parts["encoder"]),
        decoder=decoder,
        encoder_sees="target" if parts["encoder"]["conv_in.weight"].shape[1] == bands else "both",
        encoder_channels=state["post_quant_conv.weight"].shape[0],
        latent_channels=state["post_quant_conv.weight"].shape[1],
    )


def _widths(state: Mapping[str, Tensor], way: str, width: int) -> list[int]:
    levels = count_of(state, rf"{way}\.(\d+)\.")
    return [state[f"{way}.{level}.block.0.conv2.weight"].shape[0] // width for level in range(levels)]
