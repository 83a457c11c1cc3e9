"""How networks compute when they restore, whatever they restore."""

from __future__ import annotations

from typing import Literal

from rsdiff.config import config
from rsdiff.config.computing import Precision


@config
class NetworkOptions:
    """Options that change how networks compute, not what."""

    precision: Precision = "no"
    """Mixed precision of the networks; 'no' is float32. What surrounds them (sampler, resizing, metrics) stays as it is."""
    compile: bool | Literal["blocks", "graphs"] = False
    """torch.compile: true takes what is called of the networks, blocks the repeated blocks in it; graphs also records the launches on a GPU
    (for samplers of small networks, and images or tiles of one size)."""
    channels_last: bool = False
    """Store images and weights channels-last (faster convolutions in mixed precision)."""
    tf32: bool = False
    """On a GPU, products and convolutions of float32 read 10 of the 23 bits of a mantissa: faster, and no longer what a CPU computes."""
