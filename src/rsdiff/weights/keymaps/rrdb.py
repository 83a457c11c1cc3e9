"""Published names of RRDBNet: BasicSR's (BlindSRSNF, Real-ESRGAN) and the older ones of ESRGAN (BSRGAN, SRDiff)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from rsdiff.weights.keymaps.renaming import Name, Rule, renamed

Layout = Literal["basicsr", "esrgan"]


def _published_block(text: str, number: str) -> Rule:
    return number, lambda match: text.format(int(match[1]) + 1)


RULES: Mapping[Layout, tuple[Rule, ...]] = {
    "basicsr": (
        _published_block("rdb{}", r"dense\.(\d)"),
        _published_block("conv{}", r"convs\.(\d)"),
        _published_block("conv_up{}", r"conv_up\.(\d)"),
    ),
    "esrgan": (
        (r"^body\.", "RRDB_trunk."),
        _published_block("RDB{}", r"dense\.(\d)"),
        _published_block("conv{}", r"convs\.(\d)"),
        _published_block("upconv{}", r"conv_up\.(\d)"),
        (r"^conv_body\.", "trunk_conv."),
        (r"^conv_hr\.", "HRconv."),
    ),
}


def rrdb_name(layout: Layout) -> Name:
    """Return the naming of RRDBNet's parameters in one of the two layouts."""
    return lambda key: renamed(key, RULES[layout])


def rrdb_layout(keys: Mapping[str, Any]) -> Layout:
    """Tell the layout of a published state dict."""
    return "esrgan" if any(key.startswith("RRDB_trunk.") for key in keys) else "basicsr"


def rrdb_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments of `rsdiff.networks.rrdb.RRDBNet` that the shapes of a published state dict tell.

    `in_channels` and `unshuffle` share one number (3 x 4 channels enter BasicSR's x2): images are taken to have as many bands as the
    result, which holds for every published file.
    """
    name = rrdb_name(rrdb_layout(state))
    first, last = state[name("conv_first.weight")], state[name("conv_last.weight")]
    blocks = {re.match(r"(?:body|RRDB_trunk)\.(\d+)\.", key) for key in state}
    stages = sum(name(f"conv_up.{i}.weight") in state for i in range(3))
    bands = last.shape[0]
    return {
        "in_channels": bands,
        "out_channels": bands,
        "width": first.shape[0],
        "blocks": len({match[1] for match in blocks if match}),
        "growth": state[name("body.0.dense.0.convs.0.weight")].shape[0],
        "unshuffle": round((first.shape[1] / bands) ** 0.5),
        "enlargements": (2,) * stages,
    }
