"""Released checkpoints of LTE, of the methods of LMF, and of CiaoSR in its own form and in that of LMF's repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.methods.continuous import QueryConfig
from rsdiff.methods.implicit import CiaoSRConfig, LMFCiaoSRConfig, LMFLIIFConfig, LMFLTEConfig, LTEConfig
from rsdiff.networks.cross_scale_attention import LOWEST_NORM
from rsdiff.weights.keymaps.encoders import ciaosr_encoder_name, encoder_name, linear_widths
from rsdiff.weights.keymaps.liif import QueryKeyMap, encoder_width
from rsdiff.weights.keymaps.renaming import Name, Rule
from rsdiff.weights.state_dicts import find_state_dict

MAPS: tuple[Rule, ...] = ((r"^maps\.amplitude\.", "coef."), (r"^maps\.frequency\.", "freq."), (r"^maps\.phase\.", "phase."))
ATTENTION: tuple[Rule, ...] = (
    (r"^attention\.match\.", "cs_attn.conv_match_1."),
    (r"^attention\.match_coarse\.", "cs_attn.conv_match_2."),
    (r"^attention\.assemble\.", "cs_attn.conv_assembly."),
    (r"^attention\.down\.2\.", "cs_attn.down."),
    (r"^attention\.down\.(\d)\.", r"cs_attn.downx\1."),
)
LOWEST_NORM_KEY = "cs_attn.escape_NaN"


class LTEKeyMap(QueryKeyMap):
    """The `KeyMap` of LTE and LTE+."""

    names = ("lte", "lte-fast")
    rules = (*MAPS, (r"^mlp\.", "imnet."))

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> LTEConfig:
        plus = "layers.0.weight" in state
        width, *hidden, _ = linear_widths(state, "" if plus else self.last)
        return LTEConfig(width=width, hidden=tuple(hidden), pairing="halves" if plus else "neighbours", **encoder)

    def bands(self, state: Mapping[str, Tensor], config: LTEConfig) -> int:
        return linear_widths(state, self._prefix(config))[-1]

    def from_published(self, state: dict[str, Tensor], config: LTEConfig) -> dict[str, Tensor]:
        """LTE+ has 1x1 convolutions where LTE has linear layers."""
        if config.pairing == "neighbours":
            return state
        return {
            f"imnet.{key}" if _is_layer(key) else key: value.flatten(1) if _is_layer(key) and value.ndim == 4 else value
            for key, value in state.items()
        }

    def from_ours(self, state: dict[str, Tensor], config: LTEConfig) -> dict[str, Tensor]:
        state = super().from_ours(state, config)
        if config.pairing == "neighbours":
            return state
        return {
            key.removeprefix("imnet."): value[:, :, None, None] if key.startswith("imnet.") and value.ndim == 2 else value
            for key, value in state.items()
        }

    def _prefix(self, config: LTEConfig) -> str:
        return self.last if config.pairing == "neighbours" else ""


def _is_layer(key: str) -> bool:
    return key.startswith("layers.")


RENDER: tuple[Rule, ...] = ((r"^render\.layers\.(\d+)\.", lambda found: f"imnet.layers.{2 * int(found[1])}."),)


class LMFKeyMap(QueryKeyMap):
    """What the key maps of LMF's methods have in common."""

    def render_options(self, state: Mapping[str, Tensor], code: int) -> dict[str, Any]:
        """Return the options of the rendering MLP and of the latent one; `code` is the width of a code in units of render_width."""
        render, latent = linear_widths(state, self.last), linear_widths(state, self.last.replace("imnet", "hypernet"))
        width, depth = render[1], len(render) - 2
        compress = latent[-1] == 2 * width * depth + code * width
        return {"render_width": width, "render_depth": depth, "compress": compress, "hidden": latent[1:-1]}


class LMFLTEKeyMap(LMFKeyMap):
    """The `KeyMap` of LMF-LTE."""

    names = ("lmlte",)
    rules = (*MAPS, *RENDER, (r"^latent\.", "hypernet."), (r"^render_phase\.", "imphase."))

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> LMFLTEConfig:
        return LMFLTEConfig(width=state["coef.weight"].shape[0], **self.render_options(state, code=2), **encoder)


class LMFLIIFKeyMap(LMFKeyMap):
    """The `KeyMap` of LMF-LIIF."""

    names = ("lmliif",)
    rules = (*RENDER, (r"^latent\.", "hypernet."))

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> LMFLIIFConfig:
        inputs, width = linear_widths(state, "hypernet.")[0], encoder_width(encoder)
        unfold = bool(arguments.get("feat_unfold", inputs >= 9 * width))
        return LMFLIIFConfig(
            ensemble=bool(arguments.get("local_ensemble", True)),
            unfold=unfold,
            cell=bool(arguments.get("cell_decode", inputs == width * (9 if unfold else 1) + 2)),
            **self.render_options(state, code=1),
            **encoder,
        )


def attention_options(arguments: Mapping[str, Any], state: Mapping[str, Tensor], value: int, key: int, width: int) -> dict[str, Any]:
    """Return the scales of the attention and the temperature.

    value, key  widths of values and keys, whose difference tells how many scales there are
    """
    coarse = tuple(s for s in (3, 4) if f"cs_attn.downx{s}.weight" in state)
    scales = (2, *coarse) if (value - key) // width > len(coarse) else coarse
    return {
        "scales": tuple(arguments.get("multi_scale", scales)) if value > key else (),
        "temperature": float(arguments.get("softmax_scale", 1)),
    }


def _without_lowest_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors less the constant of the attention; raises UserError if it is another one than ours."""
    stored = state.get(LOWEST_NORM_KEY)
    if stored is not None and abs(float(stored) - LOWEST_NORM) > 1e-3 * LOWEST_NORM:
        raise UserError(f"the file's '{LOWEST_NORM_KEY}' is {float(stored)} and the networks here use {LOWEST_NORM}.")
    return {key: value for key, value in state.items() if key != LOWEST_NORM_KEY}


def _with_lowest_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    attends = any(key.startswith("cs_attn.") for key in state)
    return state | ({LOWEST_NORM_KEY: torch.tensor([LOWEST_NORM])} if attends else {})


class LMFCiaoSRKeyMap(LMFKeyMap):
    """The `KeyMap` of LMF-CiaoSR."""

    names = ("lmciaosr",)
    rules = (
        *ATTENTION,
        (r"^render\.layers\.(\d+)\.", lambda found: f"imnet_q.layers.{2 * int(found[1])}."),
        (r"^latent\.", "hypernet_q."),
        (r"^mlp_query\.", "prenet_q."),
        (r"^mlp_key\.", "imnet_k."),
        (r"^mlp_value\.", "imnet_v."),
    )
    last = "imnet_q."

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> LMFCiaoSRConfig:
        keys, values = linear_widths(state, "imnet_k."), linear_widths(state, "imnet_v.")
        return LMFCiaoSRConfig(
            query_hidden=linear_widths(state, "prenet_q.")[1:-1],
            attention_hidden=keys[1:-1],
            **attention_options(arguments, state, values[-1], keys[-1], encoder_width(encoder)),
            **self.render_options(state, code=2),
            **encoder,
        )

    def from_published(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        return _without_lowest_norm(state)

    def from_ours(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        return _with_lowest_norm(super().from_ours(state, config))


class CiaoSRKeyMap(QueryKeyMap):
    """The `KeyMap` of CiaoSR. Files of LMF's repository are known by the prefix of their encoder."""

    names = ("ciaosr",)
    rules = (*ATTENTION, (r"^mlp_query\.", "imnet_q."), (r"^mlp_key\.", "imnet_k."), (r"^mlp_value\.", "imnet_v."))
    last = "imnet_q."
    prefix = ""

    def unwrapped(self, content: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """CiaoSR's own files hold a state dict with 'generator.' before every key and no arguments."""
        if "model" in content:
            return super().unwrapped(content)
        found = find_state_dict(content, "imnet_q.layers.0.weight")
        return {}, dict(found.network)

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        _, state = self.unwrapped(content)
        if self.prefix == "" and any(key.startswith("encoder.") for key in state):
            return CiaoSROfLMFKeyMap().to_ours(content, config)
        return super().to_ours(content, config)

    def to_published(self, config: CiaoSRConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.prefix == "" and config.centre == "half":
            return CiaoSROfLMFKeyMap().to_published(config, state_dict)
        return super().to_published(config, state_dict)

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> CiaoSRConfig:
        keys, values = linear_widths(state, "imnet_k."), linear_widths(state, "imnet_v.")
        return CiaoSRConfig(
            hidden=keys[1:-1],
            neighbourhood=arguments.get("local_size", 2),
            unfold=bool(arguments.get("feat_unfold", keys[-1] >= 9 * encoder_width(encoder))),
            **attention_options(arguments, state, values[-1], keys[-1], encoder_width(encoder)),
            **self.form(encoder),
        )

    def form(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the encoder and those that the two forms differ in."""
        mirrored = "swinir" in encoder
        return {**encoder, "swinir": replace(encoder["swinir"], mirror=False)} if mirrored else dict(encoder)

    def encoder_naming(self, config: QueryConfig) -> Name:
        return ciaosr_encoder_name(config)

    def from_published(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        return _without_lowest_norm(state)

    def from_ours(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        return _with_lowest_norm(super().from_ours(state, config))


class CiaoSROfLMFKeyMap(CiaoSRKeyMap):
    """Files of CiaoSR as trained in LMF's repository."""

    prefix = "encoder."

    def form(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        return {**encoder, "centre": "half", "attention_tile": 48, "tile": 0}

    def encoder_naming(self, config: QueryConfig) -> Name:
        return encoder_name(config)
