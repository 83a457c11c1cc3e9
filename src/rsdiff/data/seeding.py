"""Random generators that depend on names of things (seed, epoch, sample, step), never on the order of calls."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(*key: int | str) -> int:
    """Return a 63-bit seed that depends on every part of `key` and on its order."""
    text = "/".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator for `key`, for example (seed, 'sample', epoch, index)."""
    return torch.Generator().manual_seed(derived_seed(*key))
