"""Which weights a result was made with: said in every report, table and raster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsdiff.methods.base import Method
from rsdiff.training.checkpoints import WEIGHTS, Checkpoint

Budget = Literal["quick", "paper", "none"]
IMPORTED = "imported_from"
"""Where the card of an imported checkpoint says whose file it is: {"file", "sha256", "source"}."""


@dataclass(frozen=True)
class Origin:
    """The weights behind a result.

    file          the weights file, for imported weights the one that was released
    sha256        of that file, in hexadecimal; of several files, one after another
    architecture  the networks that restore, by their class or the name its library gives
    source        where the weights are from, in words
    budget        of the training, where this repository made it; 'none' for released weights, of whose training nothing is known
    is_foreign    whether the weights were trained elsewhere
    """

    file: str
    sha256: str
    architecture: str
    source: str
    budget: Budget = "none"
    is_foreign: bool = True

    def __str__(self) -> str:
        return f"{self.file} (SHA-256 {self.sha256}), {self.architecture}, {self.source}"

    def facts(self) -> dict[str, str]:
        """Return what a report says."""
        return {"Weights": self.file, "SHA-256 of the weights": self.sha256, "Architecture": self.architecture, "Source": self.source}


def origin_of(checkpoint: Checkpoint | None, files: Sequence[Path], method: Method) -> Origin | None:
    """Return where a method's weights are from; None for a method without any.

    checkpoint  what was loaded, or None
    files       released files that the method reads itself (`MethodConfig.files`)
    """
    architecture = method.architecture
    if checkpoint is None:
        return (
            Origin(" ".join(path.name for path in files), sha256(files), architecture, "released weights, run as they are")
            if files
            else None
        )
    imported: Mapping[str, Any] | None = checkpoint.card.get(IMPORTED)
    if imported is not None:
        source = str(imported.get("source", "released weights, imported by task=import"))
        return Origin(str(imported["file"]), str(imported["sha256"]), architecture, source)
    used = checkpoint.folder / ("ema_0.safetensors" if checkpoint.averages else WEIGHTS)
    trained = checkpoint.card["config"].get("trainer", {})
    budget: Budget = trained.get("budget", "none")
    name = "/".join(used.parts[-4:] if used.parts[-3:-2] == ("checkpoints",) else used.parts[-2:])
    steps = f"trained by rsdiff, {checkpoint.card['step']} steps" + (f", budget {budget}" if budget != "none" else "")
    return Origin(name, sha256([used]), architecture, steps, budget, is_foreign=False)


def sha256(files: Sequence[Path]) -> str:
    """Return the files' SHA-256 in hexadecimal, one after another."""
    digests = []
    for path in files:
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return " ".join(digests)
