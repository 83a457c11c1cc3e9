"""The encoders that continuous-scale methods share, under the names of LIIF, LTE and LMF (one set) and of CiaoSR (the other)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.methods.continuous import QueryConfig
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.rdn import RDNConfig
from rsdiff.networks.swinir import SwinIRConfig, relative_positions, shift_mask
from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, renamed

NOMINAL_SIZE = 48  # image size that the masks in published SwinIR files are made for
RDN_RULES: tuple[Rule, ...] = (
    (r"^shallow(\d)\.", r"SFENet\1."),
    (r"^dense\.(\d+)\.convs\.(\d+)\.", r"RDBs.\1.convs.\2.conv.0."),
    (r"^dense\.(\d+)\.fuse\.", r"RDBs.\1.LFF."),
    (r"^fuse\.", "GFF."),
)
SWINIR_RULES: tuple[Rule, ...] = (
    (r"^head\.", "conv_first."),
    (r"^norm_in\.", "patch_embed.norm."),
    (r"^norm_out\.", "norm."),
    (r"^tail\.", "conv_after_body."),
    (r"^last\.", "conv_before_upsample.0."),
    (r"^groups\.(\d+)\.conv\.", r"layers.\1.conv."),
    (r"^groups\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.residual_group.blocks.\2."),
    (r"\.attention\.bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.query_key_value\.", ".attn.qkv."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
)
CIAOSR_EDSR_RULES: tuple[Rule, ...] = ((r"^head\.", "conv_first."), (r"^tail\.", "conv_after_body."))
CIAOSR_RDN_RULES: tuple[Rule, ...] = (
    (r"^shallow(\d)\.", r"sfe\1."),
    (r"^dense\.(\d+)\.convs\.(\d+)\.", r"rdbs.\1.layers.\2.conv."),
    (r"^dense\.(\d+)\.fuse\.", r"rdbs.\1.lff."),
    (r"^fuse\.", "gff."),
)
DEAD = (
    r"(encoder\.)?(sub|add)_mean\.(weight|bias)",
    r".*\.attn_mask",
    r".*\.relative_position_index",
)
"""Published entries that no result depends on: mean shifts that nothing applies, and tables computed from sizes."""


def edsr_name(blocks: int) -> Name:
    """Return the naming of an EDSR encoder with so many blocks."""
    rules: tuple[Rule, ...] = (
        (r"^head\.", "head.0."),
        (r"^body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"^body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"^tail\.", f"body.{blocks}."),
    )
    return lambda key: renamed(key, rules)


def rdn_name(key: str) -> str:
    """Return the published name of a parameter of RDN."""
    return renamed(key, RDN_RULES)


def swinir_name(key: str) -> str:
    """Return the published name of a parameter of SwinIR."""
    return renamed(key, SWINIR_RULES)


def encoder_name(config: QueryConfig) -> Name:
    """Return the naming of a method's encoder in LIIF, LTE and LMF, where 'encoder.' precedes it."""
    return {"edsr": edsr_name(config.edsr.blocks), "rdn": rdn_name, "swinir": swinir_name}[config.encoder]


def ciaosr_encoder_name(config: QueryConfig) -> Name:
    """Return the naming of a method's encoder in CiaoSR, where nothing precedes it."""
    if config.encoder == "swinir":
        return swinir_name
    rules = CIAOSR_EDSR_RULES if config.encoder == "edsr" else CIAOSR_RDN_RULES
    return lambda key: renamed(key, rules)


def encoder_options(state: Mapping[str, Tensor], rename: Callable[[QueryConfig], Name], prefix: str = "encoder.") -> dict[str, Any]:
    """Return the options encoder and edsr, rdn or swinir that the keys and shapes of a published state dict tell.

    rename  `encoder_name` or `ciaosr_encoder_name`: which names the file uses
    prefix  what precedes them
    """

    def shape(ours: str, encoder: Any) -> torch.Size | None:
        found = state.get(prefix + rename(QueryConfig(encoder=encoder))(ours))
        return None if found is None else found.shape

    if shape("norm_in.weight", "swinir") is not None:
        return {"encoder": "swinir", "swinir": _swinir_config(state, prefix)}
    first = shape("dense.0.convs.0.weight", "rdn")
    if first is not None:
        blocks = count_of(state, re.escape(prefix) + r"(?:RDBs|rdbs)\.(\d+)\.")
        layers = count_of(state, re.escape(prefix) + r"(?:RDBs\.0\.convs|rdbs\.0\.layers)\.(\d+)\.")
        return {"encoder": "rdn", "rdn": RDNConfig(width=first[1], blocks=blocks, layers=layers, growth=first[0])}
    head = shape("head.weight", "edsr")
    if head is None:
        raise UserError("the file has no EDSR, RDN or SwinIR encoder; choose the model it belongs to.")
    blocks = count_of(state, re.escape(prefix) + r"body\.(\d+)\.(?:body|conv)")
    return {"encoder": "edsr", "edsr": EDSRConfig(width=head[0], blocks=blocks)}


def _swinir_config(state: Mapping[str, Tensor], prefix: str) -> SwinIRConfig:
    start = re.escape(prefix) + r"layers\."
    groups = count_of(state, start + r"(\d+)\.")
    block = f"{prefix}layers.{{}}.residual_group.blocks.0"
    tables = [state[f"{block.format(i)}.attn.relative_position_bias_table"].shape for i in range(groups)]
    hidden, width = state[f"{block.format(0)}.mlp.fc1.weight"].shape
    last = state.get(f"{prefix}conv_before_upsample.0.weight")
    return SwinIRConfig(
        width=width,
        depths=tuple(count_of(state, rf"{start}{i}\.residual_group\.blocks\.(\d+)\.") for i in range(groups)),
        heads=tuple(table[1] for table in tables),
        window=(math.isqrt(tables[0][0]) + 1) // 2,
        mlp_ratio=hidden / width,
        out_channels=0 if last is None else last.shape[0],
    )


def swinir_constants(config: SwinIRConfig, prefix: str) -> dict[str, Tensor]:
    """Return the tables that published SwinIR files hold beside the weights."""
    positions = relative_positions(config.window)
    mask = shift_mask((NOMINAL_SIZE, NOMINAL_SIZE), config.window, config.window // 2)
    made = {}
    for group, depth in enumerate(config.depths):
        for block in range(depth):
            name = f"{prefix}layers.{group}.residual_group.blocks.{block}"
            made[f"{name}.attn.relative_position_index"] = positions
            if block % 2:
                made[f"{name}.attn_mask"] = mask
    return made


def linear_widths(state: Mapping[str, Tensor], prefix: str) -> tuple[int, ...]:
    """Return the widths of an MLP published as `prefix`.layers.{0, 2, ..}: its input's and every layer's."""
    found = sorted((int(match[1]), key) for key in state if (match := re.fullmatch(rf"{re.escape(prefix)}layers\.(\d+)\.weight", key)))
    if not found:
        raise UserError(f"the file has no '{prefix}layers.0.weight', which this network needs; choose the model the file belongs to.")
    return (state[found[0][1]].shape[1], *(state[key].shape[0] for _, key in found))
