"""HAT, which comes from spandrel: the network, its index tables, padding and tiles. Cases of `baselines`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.regression import HATConfig, Regression
from rsdiff.methods.restoring import HaloTilesConfig
from rsdiff.weights import import_weights

from ..case import Case, runner
from .words import given


def loaded(case: Case) -> Regression:
    """Return the method with the case's weights, imported as a released file is; what the file tells must be what the case says."""
    settings = case.config
    config = HATConfig(
        width=settings["embed_dim"],
        blocks=tuple(settings["depths"]),
        heads=tuple(settings["num_heads"]),
        window=settings["window_size"],
        overlap=settings["overlap_ratio"],
        compression=settings["compress_ratio"],
        squeeze=settings["squeeze_factor"],
        conv_scale=settings["conv_scale"],
        mlp_ratio=settings["mlp_ratio"],
        head_width=settings.get("num_feat", HATConfig().head_width),
        tiles=HaloTilesConfig(tile=settings.get("tile_size", 0), halo=settings.get("tile_pad", 0)),
    )
    published = case.weights()
    told, _ = import_weights("hat", {"params_ema": published})
    assert replace(told, conv_scale=config.conv_scale, tiles=config.tiles) == config
    config, state = import_weights("hat", published, config)
    bands = settings["in_chans"]
    method = config.build(Problem(settings["upscale"], bands=bands, lr_bands=bands))
    method.load_state_dict(state)
    return method.eval()


@runner("baselines", "hat")
@torch.no_grad()
def hat(case: Case) -> dict[str, Any]:
    return {"out": loaded(case).network(given(case, "lr"))}


@runner("baselines", "hat_index_tables")
def index_tables(case: Case) -> dict[str, Any]:
    settings = case.config
    config = HATConfig(width=12, blocks=(1,), heads=(2,), squeeze=6, window=settings["window_size"], overlap=settings["overlap_ratio"])
    network = config.build_network(Problem(2, bands=3, lr_bands=3))
    height, width = settings["x_size"]
    mask = network.calculate_mask((height, width), torch.float32)
    return {"rpi_sa": network.relative_position_index_SA, "rpi_oca": network.relative_position_index_OCA, "mask": mask}


@runner("baselines", "hat_pad_tile")
def pad_tile(case: Case) -> dict[str, Any]:
    method, lr = loaded(case), given(case, "lr")
    (h, w), scale = lr.shape[-2:], method.images.scale
    batch = Batch(metas=[SampleMeta("lr")], size=(h * scale, w * scale), lr_size=(h, w), lr=lr)
    tiled = method.restore(batch, SamplerConfig(), ReplayNoise([]))
    method.images.tiles = HaloTilesConfig()
    return {"whole": method.restore(batch, SamplerConfig(), ReplayNoise([])), "tiled": tiled}
