"""Published names of UNetAtom: those of SR3's U-Net behind one more convolution."""

from __future__ import annotations

from rsdiff.weights.keymaps.renaming import Name
from rsdiff.weights.keymaps.sr3 import module_names


def unet_atom_name(levels: int, blocks: int) -> Name:
    """Return the naming of `rsdiff.networks.sr3_unet.UNetAtom` of these sizes."""
    published = {ours: name for name, ours in module_names("continuous", levels, blocks).items()}

    def name(key: str) -> str:
        module, _, kind = key.rpartition(".")
        return f"first_conv_x.{kind}" if module == "entry" else f"{published[module.removeprefix('unet.')]}.{kind}"

    return name
