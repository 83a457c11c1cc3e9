"""Where metric weights are looked for. Nothing is downloaded: a missing file makes a metric unavailable, with a sentence that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from rsdiff.config import UserError


def weight_folders(folders: Sequence[str]) -> list[Path]:
    """Return the folders searched, in order: those given, then the cache of torch.hub, where torchvision and others keep these files."""
    return [*(Path(folder).expanduser() for folder in folders), Path(torch.hub.get_dir()) / "checkpoints"]


def find_weight_file(names: Sequence[str], folders: Sequence[str]) -> Path | None:
    """Return the first existing file of `names` in `weight_folders(folders)`, or None."""
    for folder in weight_folders(folders):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def missing_sentence(names: Sequence[str], folders: Sequence[str]) -> str:
    """Return the sentence for a missing file: which names were looked for, where, and what to do."""
    where = ", ".join(str(folder).replace(str(Path.home()), "~") for folder in weight_folders(folders))
    return f"needs {' or '.join(names)}, which is not in {where}; put it there or set metrics.weight_folders."


def require_weight_file(name: str, folders: Sequence[str], folders_option: str, weight_option: str) -> Path:
    """Return the path of the weights that a loss cannot do without; raises UserError in one sentence when it is nowhere.

    folders_option, weight_option  options that say where the file is looked for and how much the loss counts, for the sentence
    """
    found = find_weight_file([name], folders)
    if found is None:
        where = ", ".join(map(str, weight_folders(folders)))
        raise UserError(
            f"the perceptual loss needs {name}, which is not in {where}; put it there, set {folders_option}, or train with "
            f"{weight_option}=0."
        )
    return found


def file_hash(path: Path) -> str:
    """Return the first 8 hexadecimal digits of the SHA-256 of a file, as torchvision's file names carry them."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
