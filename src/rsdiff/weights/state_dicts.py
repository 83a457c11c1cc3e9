"""Finding a network's tensors in a foreign checkpoint, and renaming them strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.foreign.inert import Record

WRAPPERS = ("params_ema", "ema", "state_dict", "model_state_dict", "params", "generator", "model", "net", "network")
"""Keys under which checkpoints keep a state dict, the preferred first."""


@dataclass(frozen=True)
class Found:
    """A state dict in a checkpoint.

    tensors  all of it, under its own keys
    prefix   what precedes the network's keys, '' or with a final dot
    copies   prefixes of further, equal copies of the network
    """

    tensors: Mapping[str, Tensor]
    prefix: str
    copies: tuple[str, ...] = ()

    @property
    def network(self) -> dict[str, Tensor]:
        """The network's tensors, prefix removed."""
        return under(self.tensors, self.prefix)

    @property
    def rest(self) -> dict[str, Tensor]:
        """What belongs neither to the network nor to its copies, under its own keys."""
        return {key: tensor for key, tensor in self.tensors.items() if not key.startswith((self.prefix, *self.copies))}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose keys begin with `prefix`, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def find_state_dict(content: Mapping[Any, Any], marker: str, preferred: Sequence[str] = ()) -> Found:
    """Return the state dict of the network that has a tensor named `marker`, wherever the checkpoint keeps it.

    marker     a key every such network has, without prefix
    preferred  prefixes to choose (by how they end) when the network occurs several times; without a match the copies must be equal
    Raises UserError when there is none, or when there are several that differ.
    """
    for mapping in _state_dicts(content):
        prefixes = sorted(key.removesuffix(marker) for key in mapping if key == marker or key.endswith(f".{marker}"))
        if not prefixes:
            continue
        copies = [Found(mapping, prefix) for prefix in prefixes]
        chosen = next((copy for end in preferred for copy in copies if copy.prefix.endswith(end)), copies[0])
        different = next((copy for copy in copies if not _same(copy.network, chosen.network)), None)
        if different is not None:
            raise UserError(
                f"the file holds two versions of the network, '{chosen.prefix}' and '{different.prefix}', with different weights; "
                "save the one you want to a file of its own."
            )
        return Found(mapping, chosen.prefix, tuple(prefix for prefix in prefixes if prefix != chosen.prefix))
    raise UserError(f"the file holds no tensor '{marker}', which every network of this kind has; choose the model the file belongs to.")


def _state_dicts(content: Mapping[Any, Any], depth: int = 0) -> Iterator[dict[str, Tensor]]:
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors
    if depth < 3:
        for wrapper in WRAPPERS:
            inner = content.get(wrapper)
            if isinstance(inner, Mapping):
                yield from _state_dicts(inner, depth + 1)


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def rename_strictly(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, torch.Size], ignored: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return `tensors` under our names: every tensor used or ignored, every one of ours given, every shape equal.

    names    published name -> ours
    shapes   our name -> shape
    ignored  regular expressions, matched against whole published names
    Raises UserError in one sentence that names the first offender and how many more there are.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        if key in names:
            ours[names[key]] = tensor
        elif not any(re.fullmatch(pattern, key) for pattern in ignored):
            unknown.append(key)
    published = {name: key for key, name in names.items()}
    missing = [published.get(name, name) for name in shapes if name not in ours]
    if unknown or missing:
        parts = [_some("holds", unknown, "which this network does not have")] if unknown else []
        parts += [_some("lacks", missing, "which this network needs")] if missing else []
        raise UserError(f"the file {' and '.join(parts)}; choose the model configuration the file was trained with.")
    for name, tensor in ours.items():
        if tensor.shape != shapes[name]:
            raise UserError(
                f"the file's '{published[name]}' has shape {tuple(tensor.shape)} and this network's has {tuple(shapes[name])}; "
                "choose the model configuration the file was trained with."
            )
    return ours


def _some(verb: str, keys: Sequence[str], clause: str) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{verb} '{keys[0]}'{more}, {clause}"


def find_settings(content: Any, required: Sequence[str]) -> dict[str, Any] | None:
    """Return the first mapping anywhere in a checkpoint that has all `required` keys: the settings a trainer stored, or None.

    Looks into records too, because configuration classes arrive as records.
    """
    pending, seen = [content], set[int]()
    while pending:
        value = pending.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            pending += [value.items, value.attributes()]
        elif isinstance(value, Mapping):
            if all(key in value for key in required):
                return {str(key): item for key, item in value.items()}
            pending += [item for item in value.values() if isinstance(item, Mapping | Record | list | tuple)]
        elif isinstance(value, list | tuple):
            pending += [item for item in value if isinstance(item, Mapping | Record | list | tuple)]
    return None
