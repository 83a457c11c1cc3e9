"""Checkpoints of SADN and of its upsampler behind EDSR and RDN: Lightning files with 'sr_net.' before every key, or bare state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.sadn import SADNConfig
from rsdiff.weights.keymaps.encoders import edsr_name, encoder_name, encoder_options, rdn_name
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, ours_from_published, published_from_ours, renamed
from rsdiff.weights.state_dicts import find_settings, find_state_dict

UPSAMPLERS = {"sadn": "uplayer.", "edsr": "tail.", "rdn": "UPNet."}
UPSAMPLER_RULES: tuple[Rule, ...] = ((r"^doublings\.(\d+)\.", r"UPNet_x2_list.\1.0."), (r"^gate\.", "scale_aware_layer."))
NORMALISED: tuple[Rule, ...] = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
BODY_RULES: tuple[Rule, ...] = (
    (r"^head\.", "head.0.0."),
    (r"^tail\.", "tail.0.0."),
    (r"^skip\.", "skip.0."),
    (r"^join\.", "body.compress_in.0."),
    (r"^chain\.compress\.(\d+)\.", r"body.compressList.\1.0."),
    (r"^chain\.units\.(\d+)\.", r"body.LDGList.\1."),
    (r"\.compress\.(\d+)\.", r".compressList.\1.0."),
    (r"\.units\.(\d+)\.", r".ConvBlockList.\1."),
    (r"\.widen\.", ".body.0.0."),
    (r"\.narrow\.", ".body.1.0."),
    (r"\.plain\.", ".body.2.0."),
    (r"\.aware\.direction$", ".d_conv.weight_v"),
    (r"\.aware\.length$", ".d_conv.weight_g"),
    (r"\.aware\.bias$", ".d_conv.bias"),
    (r"\.aware\.squeeze\.", ".d_conv.attention.fc1."),
    (r"\.aware\.choose\.", ".d_conv.attention.fc2."),
)
TEMPERATURE = "temperature"  # ours alone: published files are past the first epochs


class SADNKeyMap:
    """The `KeyMap` of SADN."""

    def to_ours(self, content: Mapping[str, Any], config: SADNConfig | None) -> tuple[SADNConfig, dict[str, Tensor]]:
        """See KeyMap."""
        published = next(
            (dict(find_state_dict(content, f"{up}fuse.8.bias").network) for up in UPSAMPLERS.values() if _has(content, f"{up}fuse.8.bias")),
            None,
        )
        if published is None:
            raise UserError("the file has no upsampler of SADN; choose the model it belongs to.")
        made = self._config(content, published)
        stored = find_settings(content, ("interpolate_mode",)) or {}
        chosen = config or made
        given, told = [(its.interpolate, its.edsr.residual_scale) for its in (chosen, made)]
        if stored and given != told:
            raise UserError(
                f"the file's network has interpolate={told[0]} and edsr.residual_scale={told[1]:g}, and {given[0]} and {given[1]:g} were "
                "chosen; set model.interpolate and model.edsr.residual_scale to the file's."
            )
        config = config or made
        bands = published[f"{UPSAMPLERS[config.body]}fuse.8.bias"].shape[0]
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=bands)).state_dict()
        del own[TEMPERATURE]
        return config, ours_from_published(published, own, self._name(config)) | {TEMPERATURE: torch.tensor(1.0)}

    def to_published(self, config: SADNConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap."""
        return published_from_ours({key: value for key, value in state_dict.items() if key != TEMPERATURE}, self._name(config))

    def _config(self, content: Mapping[str, Any], state: Mapping[str, Tensor]) -> SADNConfig:
        body = next(body for body, up in UPSAMPLERS.items() if f"{up}fuse.8.bias" in state)
        up = UPSAMPLERS[body]
        settings = find_settings(content, ("interpolate_mode",)) or {}
        options: dict[str, Any] = {
            "body": body,
            "levels": state[f"{up}scale_aware_layer.2.bias"].shape[0],
            "fuse_width": state[f"{up}fuse.0.bias"].shape[0],
            "normalise": f"{up}fuse.0.weight_g" in state,
            "mean_shift": "sub_mean.weight" in state,
            "interpolate": settings.get("interpolate_mode", "bilinear"),
        }
        return SADNConfig(**options, **(_body_options(state) if body == "sadn" else _encoder_options(state, settings)))

    def _name(self, config: SADNConfig) -> Name:
        bodies: dict[str, Name] = {
            "sadn": lambda key: renamed(key, (*BODY_RULES, (r"\.gate\.", ".se_block.fc." if config.kernels else ".body.3.fc."))),
            "edsr": edsr_name(config.edsr.blocks),
            "rdn": rdn_name,
        }

        name = name_of_parts(
            Part("body.", "", bodies[config.body]),
            Part("upsampler.", UPSAMPLERS[config.body], lambda key: renamed(key, UPSAMPLER_RULES)),
            Part("shift_in.", "sub_mean."),
            Part("shift_out.", "add_mean."),
        )
        return lambda key: renamed(name(key), NORMALISED)


def _has(content: Mapping[str, Any], marker: str) -> bool:
    try:
        find_state_dict(content, marker)
    except ValueError:
        return False
    return True


def _body_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    block = "body.LDGList.0.ConvBlockList.0."
    width = state["head.0.0.bias"].shape[0]
    kernels = f"{block}d_conv.bias" in state
    gate = state[f"{block}se_block.fc.0.weight" if kernels else f"{block}body.3.fc.0.weight"]
    return {
        "width": width,
        "groups": count_of(state, r"body\.LDGList\.(\d+)\."),
        "layers": count_of(state, r"body\.LDGList\.0\.ConvBlockList\.(\d+)\."),
        "multiplier": state[f"{block}body.0.0.bias"].shape[0] // width,
        "reduction": width // gate.shape[0],
        "kernels": state[f"{block}d_conv.bias"].shape[0] if kernels else 0,
    }


def _encoder_options(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in encoder_options(state, encoder_name, prefix="").items() if key != "encoder"}
    if "edsr" in found:
        found["edsr"] = replace(found["edsr"], residual_scale=float(settings.get("res_scale", 1.0)))
    return found
