"""Published names of UNetAtom: those of SR3's U-Net behind one more convolution."""

from __future__ import annotations

from rsdiff.weights.keymaps.renaming import Name, Rule, renamed
from rsdiff.weights.keymaps.sr3 import sr3_name

RULES: tuple[Rule, ...] = ((r"^entry\.", "first_conv_x."), (r"^unet\.", ""))


def unet_atom_name(levels: int, blocks: int) -> Name:
    """Return the naming of `rsdiff.networks.sr3_unet.UNetAtom` of these sizes."""
    unet = sr3_name("continuous", levels, blocks)
    return lambda key: unet(renamed(key, RULES))
