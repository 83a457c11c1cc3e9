"""Features of single images that values of a set (FID, KID, pooled NIQE) are made of, kept until the set is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.durable import write_arrays


class FeatureStore:
    """Features by image name. In memory, or as one file per image in a folder.

    The folder is what processes of one run share and what survives a kill: an image that was scored before need not be scored again.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._kept: dict[str, dict[str, Tensor]] = {}

    def add(self, name: str, features: Mapping[str, Tensor]) -> None:
        """Keep the features of image `name`, (n, D) each, under their column names; an existing entry is replaced whole."""
        if self.folder is None:
            self._kept[name] = dict(features)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(name)
        write_arrays(path, {column: values.numpy() for column, values in features.items()})

    def stacked(self, column: str, names: Sequence[str]) -> Tensor | None:
        """Return the features of `names` in this order, (sum of n, D); None if one of them has no such column."""
        found = []
        for name in names:
            features = self._read(name)
            if column not in features:
                return None
            found.append(features[column])
        return torch.cat(found) if found else None

    def _read(self, name: str) -> dict[str, Tensor]:
        if self.folder is None:
            return self._kept.get(name, {})
        path = self._path(name)
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {column: torch.from_numpy(stored[column]) for column in stored.files}

    def _path(self, name: str) -> Path:
        # Names may hold slashes or differ only in characters that file names lack.
        assert self.folder is not None
        return self.folder / f"{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}.npz"
