"""Names of parameters as they are published, from ours: rules applied in order, so that import and export share one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.weights.state_dicts import rename_strictly

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""(regular expression in our name, what stands there in the published one)"""
Name = Callable[[str], str]
"""our name -> published name"""
COUNTERS = ("num_batches_tracked", "queue_position")
"""Integer entries; no result depends on a batch-norm counter with a momentum, nor on where the next keys are written."""


def renamed(key: str, rules: Iterable[Rule]) -> str:
    """Return `key` after all rules."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def ours_from_published(
    published: Mapping[str, Tensor], own: Mapping[str, Tensor], name: Name, ignored: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the published tensors under our names, for the network whose state dict is `own`; strict, see `rename_strictly`.

    `COUNTERS`, which no result depends on, are 0 where the file lacks them.
    """
    names = {name(key): key for key in own}
    counters = {key for key in own if key.endswith(COUNTERS) and name(key) not in published}
    shapes = {key: value.shape for key, value in own.items() if key not in counters}
    ours = rename_strictly(published, names, shapes, ignored)
    return ours | {key: torch.zeros_like(own[key], device="cpu") for key in counters}


def _unchanged(key: str) -> str:
    return key


@dataclass(frozen=True)
class Part:
    """One part of a method: our prefix, the published one, and how its entries are called behind it."""

    ours: str
    published: str
    name: Name = _unchanged


def name_of_parts(*parts: Part) -> Name:
    """Return the naming of a method of several parts; raises UserError for an entry of none of them."""

    def name(key: str) -> str:
        for part in parts:
            if key.startswith(part.ours):
                return part.published + part.name(key.removeprefix(part.ours))
        raise UserError(f"'{key}' is no parameter of this method.")

    return name


def flat_lists(levels: int, blocks: int, stem: int = 1, ends: tuple[str, str] = ("conv.", "conv.")) -> tuple[Rule, ...]:
    """Return the names of the items of the lists `downs` and `ups` that number blocks and resizing layers of all levels through.

    stem  what stands in `downs` before the first block
    ends  what a resizing layer is called within its item, on the way down and on the way up
    """

    def down(match: re.Match[str], item: int) -> str:
        return f"downs.{stem + int(match[1]) * (blocks + 1) + item}."

    def up(match: re.Match[str], item: int) -> str:
        return f"ups.{(levels - 1 - int(match[1])) * (blocks + 2) + item}."

    return (
        (r"^down\.(\d+)\.blocks\.(\d+)\.", lambda match: down(match, int(match[2]))),
        (r"^down\.(\d+)\.leave\.(?:conv\.)?", lambda match: down(match, blocks) + ends[0]),
        (r"^up\.(\d+)\.blocks\.(\d+)\.", lambda match: up(match, int(match[2]))),
        (r"^up\.(\d+)\.leave\.(?:conv\.)?", lambda match: up(match, blocks + 1) + ends[1]),
    )


def states_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the entries of several networks, each under the prefix that it has in its method's state dict."""
    return {f"{prefix}{key}": value for prefix, network in networks.items() for key, value in network.state_dict().items()}


def published_from_ours(own: Mapping[str, Tensor], name: Name) -> dict[str, Tensor]:
    """Return the tensors under their published names."""
    return {name(key): value for key, value in own.items()}


def count_of(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers stand at the group of `pattern` in the keys."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})
