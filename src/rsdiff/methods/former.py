"""Settings of earlier versions, as they are written in configs and checkpoints, under the names that options have now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rsdiff.config.former import FORMER, OF_SAMPLERS, present_values
from rsdiff.diffusion import SAMPLERS
from rsdiff.methods import METHODS


def present_groups(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the plain values of those groups of a config that may hold former options, under their present names."""
    found = {}
    for group, kinds, former in (("model", METHODS, FORMER), ("sampler", SAMPLERS, OF_SAMPLERS)):
        values = config.get(group)
        if isinstance(values, Mapping):
            known = kinds.get(str(values.get("kind")))
            found[group] = dict(values) if known is None else present_values(values, [field.name for field in fields(known)], former)
    return found
