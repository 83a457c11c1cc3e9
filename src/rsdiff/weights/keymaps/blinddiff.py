"""Released files of BlindDiff (BasicSR): {params, params_ema}, tensors only. The average is taken where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.blinddiff import BlindDiffConfig
from rsdiff.networks.mcformer import MCFormerConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Rule, count_of

BLOCK: tuple[Rule, ...] = (
    (r"\.(norm\d)\.", r".\1.body."),
    (r"\.attention\.query_key_value\.", ".attn.qkv."),
    (r"\.attention\.depthwise\.", ".attn.qkv_dwconv."),
    (r"\.attention\.out\.", ".attn.project_out."),
    (r"\.attention\.temperature$", ".attn.temperature"),
    (r"\.feed_forward\.enter\.", ".ffn.project_in."),
    (r"\.feed_forward\.depthwise\.", ".ffn.dwconv."),
    (r"\.feed_forward\.leave\.", ".ffn.project_out."),
    (r"\.modulation\.", ".modulation.1."),
)
PARTS: tuple[Rule, ...] = (
    (r"^time\.", "t_embedder."),
    (r"^kernel_head\.", "predictor."),
    (r"^kernel_code\.", "k_mlp."),
    (r"^stem\.", "patch_embed.proj."),
    (r"^out\.", "output."),
    (r"^encoders\.(\d+)\.", lambda match: f"encoder_level{int(match[1]) + 1}."),
    (r"^decoders\.(\d+)\.", lambda match: f"decoder_level{int(match[1]) + 1}."),
    (r"^downs\.(\d+)\.", lambda match: f"down{int(match[1]) + 1}_{int(match[1]) + 2}.body."),
    (r"^ups\.(\d+)\.", lambda match: f"up{int(match[1]) + 2}_{int(match[1]) + 1}.body."),
    (r"^reductions\.(\d+)\.", lambda match: f"reduce_chan_level{int(match[1]) + 1}."),
)


def mcformer_rules(levels: int) -> tuple[Rule, ...]:
    """Return the naming of the parameters of an MCFormer with so many levels."""
    return (*BLOCK, *PARTS, (rf"^encoder_level{levels}\.", "latent."))


class BlindDiffKeyMap(RegressionKeyMap):
    """The `KeyMap` of BlindDiff. Files do not tell the scale: 4, as published, unless a run's config says otherwise."""

    marker = "patch_embed.proj.weight"

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors[self.marker].shape[1] // 2
        return Problem(scale=4, bands=bands, lr_bands=bands)

    def infer(self, tensors: Mapping[str, Tensor]) -> BlindDiffConfig:
        levels = count_of(tensors, r"down(\d+)_\d+\.body\.") + 1
        parts = [f"encoder_level{level}" for level in range(1, levels)] + ["latent"]
        width = tensors[self.marker].shape[0]
        network = MCFormerConfig(
            width=width,
            blocks=tuple(count_of(tensors, rf"{part}\.(\d+)\.") for part in parts),
            refinement=count_of(tensors, r"refinement\.(\d+)\."),
            heads=tuple(len(tensors[f"{part}.0.attn.temperature"]) for part in parts),
            expansion=_expansion([tensors[f"{part}.0.ffn.project_out.weight"].shape[1] for part in parts], width),
            kernel_size=math.isqrt(tensors["k_mlp.0.weight"].shape[1]),
        )
        return BlindDiffConfig(network=network)

    def networks(self, config: BlindDiffConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.network.build(problem)}

    def rules(self, config: BlindDiffConfig) -> tuple[Rule, ...]:
        return mcformer_rules(len(config.network.blocks))


def _expansion(hidden: list[int], width: int) -> float:
    """Return the published expansion if it gives the hidden channels of all levels, else one that does."""
    published = MCFormerConfig().expansion
    channels = [width * 2**level for level in range(len(hidden))]
    exact = max(count / of for count, of in zip(hidden, channels, strict=True)) * (1 + 1e-12)
    return next((value for value in (published, exact) if all(int(value * c) == h for c, h in zip(channels, hidden, strict=True))), exact)
