"""Names of parameters as they are published, from ours: rules applied in order, so that import and export share one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rsdiff.weights.state_dicts import rename_strictly

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""(regular expression in our name, what stands there in the published one)"""
Name = Callable[[str], str]
"""our name -> published name"""


def renamed(key: str, rules: Iterable[Rule]) -> str:
    """Return `key` after all rules."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def ours_from_published(
    published: Mapping[str, Tensor], own: Mapping[str, Tensor], name: Name, ignored: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the published tensors under our names, for the network whose state dict is `own`; strict, see `rename_strictly`.

    Counters of batches seen by a normalisation, which no result depends on, are 0 where the file lacks them.
    """
    names = {name(key): key for key in own}
    counters = {key for key in own if key.endswith("num_batches_tracked") and name(key) not in published}
    shapes = {key: value.shape for key, value in own.items() if key not in counters}
    ours = rename_strictly(published, names, shapes, ignored)
    return ours | {key: torch.zeros_like(own[key], device="cpu") for key in counters}


def published_from_ours(own: Mapping[str, Tensor], name: Name) -> dict[str, Tensor]:
    """Return the tensors under their published names."""
    return {name(key): value for key, value in own.items()}


def count_of(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers stand at the group of `pattern` in the keys."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})
