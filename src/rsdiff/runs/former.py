"""Runs of versions that did not record what a run is: known by their settings, and taken at their word for the content of their data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rsdiff.config.reading import is_read
from rsdiff.methods.former import present_groups
from rsdiff.runs.identity import IDENTITY, Identity, flat, omitted
from rsdiff.runs.status import STATUS

CONFIG = "config.yaml"
ALWAYS = ("scale", "seed", "checkpoint", "input", "source")
"""Top-level settings that tell such runs apart, by their text."""


def adopt_former(place: Path, identity: Identity, groups: Mapping[str, Any], resolved: Mapping[str, Any]) -> Path | None:
    """Give the first former run below `place` that has these settings its identity and return its folder, or None where there is none.

    groups    typed configs of the run asked for, of the groups that its task reads
    resolved  its composed settings as plain values
    An option that the former run does not know must have its default now.
    """
    neutral = {path for group, config in groups.items() for path in _without_effect(config, group)}
    given = flat(identity.settings)
    for path in sorted(place.glob(f"*/{CONFIG}")):
        if (path.parent / IDENTITY).exists() or not (path.parent / STATUS).exists():
            continue
        try:
            former = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(former, Mapping) and _is_alike({**former, **present_groups(former)}, groups, resolved, neutral, given):
            identity.write(path.parent, path.parent.name)
            return path.parent
    return None


def _is_alike(
    former: Mapping[str, Any], groups: Mapping[str, Any], resolved: Mapping[str, Any], neutral: set[str], given: Mapping[str, str]
) -> bool:
    if any(former.get(name) != resolved.get(name) for name in ALWAYS):
        return False
    for group in groups:
        before, now = flat({group: former.get(group, {})}), flat({group: resolved.get(group, {})})
        for path in (path for path in {**before, **now} if path not in neutral):
            if path in before and path in now:
                if before[path] != now[path]:
                    return False
            elif path in before or path in given:
                return False
    return True


def _without_effect(config: Any, path: str) -> Iterator[str]:
    """Yield the options of a config that change no result, wherever it lies in the settings; those that say where data lie stay."""
    located: set[str] = {name for base in type(config).__mro__ for name in vars(base).get("located", ())}
    for option in dataclasses.fields(config):
        value, place = getattr(config, option.name), f"{path}.{option.name}"
        if option.name in omitted(type(config)) - located or not is_read(config, option.name):
            yield place
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _without_effect(value, place)
