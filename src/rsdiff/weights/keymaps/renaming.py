"""Names of parameters as they are published, from ours: rules applied in order, so that import and export share one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""(regular expression in our name, what stands there in the published one)"""
Name = Callable[[str], str]
"""our name -> published name"""


def renamed(key: str, rules: Iterable[Rule]) -> str:
    """Return `key` after all rules."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def under(ours: str, published: str, name: Name) -> Name:
    """Return the naming of a network that sits under prefix `ours` here and `published` there."""
    return lambda key: published + name(key.removeprefix(ours))


def ours_from_published(
    published: Mapping[str, Tensor], own: Mapping[str, Tensor], name: Name, ignored: Sequence[str] = (), may_lack: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return the published tensors under our names, in the order of `own`, the state dict of the network they are for.

    ignored   regular expressions of published names that are not taken
    may_lack  endings of our names that a file may lack; they keep the values of `own` (counters that no result depends on)
    Raises ValueError that names the first missing, unknown or misshapen entry.
    """
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, value in own.items():
        source = name(key)
        if source not in published:
            if key.endswith(tuple(may_lack)):
                ours[key] = value
                continue
            raise ValueError(f"the file has no entry '{source}' (our {key}); it belongs to another network or another version of it.")
        found = published[source]
        if found.shape != value.shape:
            raise ValueError(
                f"'{source}' has shape {tuple(found.shape)} and {tuple(value.shape)} is needed; check the sizes in the model's config."
            )
        used.add(source)
        ours[key] = found
    left = [key for key in published if key not in used and not any(re.search(pattern, key) for pattern in ignored)]
    if left:
        raise ValueError(f"the file has {len(left)} entries this network does not know, the first is '{left[0]}'; nothing was imported.")
    return ours


def published_from_ours(own: Mapping[str, Tensor], name: Name) -> dict[str, Tensor]:
    """Return the tensors under their published names."""
    return {name(key): value for key, value in own.items()}
