"""Data set `folder`: images in a folder, nested as they may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from rsdiff.config import config
from rsdiff.data.file_dataset import SplitDataset, list_items, subfolder
from rsdiff.data.scanning import Item


@config
class FolderDataset(SplitDataset):
    """A folder of images, nested as it may be; the name of an image's own folder becomes its label 'class'.

    Where the folder of a split (or the root) has sub-folders HR and LR, as in LDCSR's YourData/{Train,Val,Test}/{HR,LR}, only the one that
    `images_are` names is read.
    """

    read_when_packed: ClassVar[frozenset[str]] = frozenset({"images_are"})

    images_are: Literal["hr", "lr"] = "hr"
    """hr: targets, whose LR a degradation makes; lr: inputs to restore, without targets."""

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({self.images_are})

    def items(self, folder: Path, prefix: str, scale: float) -> Sequence[Item]:
        """See SplitDataset."""
        return list_items(role_folder(folder, self.images_are), prefix, self.images_are, self.extensions)


def role_folder(folder: Path, role: str) -> Path:
    """Return the sub-folder HR or LR (in any case) of `folder` where it has both, else `folder` itself."""
    roles = {name: subfolder(folder, name) for name in ("hr", "lr")}
    return (roles[role] or folder) if all(roles.values()) else folder
