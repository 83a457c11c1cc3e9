"""HAT, which comes from spandrel: the network, its index tables, padding and tiles. Cases of `baselines`."""

from __future__ import annotations

from typing import Any

import torch
from spandrel.architectures.HAT import HAT

from rsdiff.networks.halo_tiles import HaloTilesConfig

from ..case import Case, runner
from .words import given

OURS = {"tile_size", "tile_pad"}
"""Settings of a case that are not the network's."""


def built(settings: dict[str, Any]) -> HAT:
    """Return the network of published arguments; what it does not have is an error."""
    return HAT(**{name: value for name, value in settings.items() if name not in OURS}).eval()


def loaded(case: Case) -> HAT:
    """Return the network with the case's weights, strictly but for the index tables, which are made by the constructor."""
    network = built(case.config)
    tables = {key: value for key, value in network.state_dict().items() if not value.is_floating_point()}
    network.load_state_dict(case.weights() | tables)
    return network


@runner("baselines", "hat")
@torch.no_grad()
def hat(case: Case) -> dict[str, Any]:
    return {"out": loaded(case)(given(case, "lr"))}


@runner("baselines", "hat_index_tables")
def index_tables(case: Case) -> dict[str, Any]:
    settings = case.config
    window, height, width = settings["window_size"], *settings["x_size"]
    network = HAT(
        img_size=4 * window,
        window_size=window,
        overlap_ratio=settings["overlap_ratio"],
        embed_dim=12,
        depths=(1,),
        num_heads=(2,),
        upscale=2,
    )
    mask = network.calculate_mask((height, width), torch.float32)
    return {"rpi_sa": network.relative_position_index_SA, "rpi_oca": network.relative_position_index_OCA, "mask": mask}


@runner("baselines", "hat_pad_tile")
@torch.no_grad()
def pad_tile(case: Case) -> dict[str, Any]:
    network, lr, settings = loaded(case), given(case, "lr"), case.config
    tiles = HaloTilesConfig(tile=settings["tile_size"], halo=settings["tile_pad"])
    window, scale = settings["window_size"], settings["upscale"]
    return {"whole": HaloTilesConfig().run(network, lr, scale, window), "tiled": tiles.run(network, lr, scale, window)}
