"""Which options of a model a released file was made with, where others were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from rsdiff.config.ours import typed
from rsdiff.weights.keymaps import KeyMap

Changes = Mapping[tuple[str, ...], Any]
"""Values of options by their path in a config, ('network', 'width')."""


def settings_of_file(key_map: KeyMap, content: Mapping[str, Any], config: Any) -> list[str]:
    """Return what to type, such as 'model.network.width=8', so that a file can be read; empty where it does not tell.

    config  that of the model as chosen, with which the file cannot be read; options that the file does not depend on stay as chosen
    """
    try:
        made, _ = key_map.to_ours(content, None)
    except (ValueError, KeyError):
        return []
    needed = differences(config, made)
    if not _can_read(key_map, content, config, needed):
        return []
    for path in list(needed):
        fewer = {other: value for other, value in needed.items() if other != path}
        if _can_read(key_map, content, config, fewer):
            needed = fewer
    return [f"model.{'.'.join(path)}={typed(value)}" for path, value in needed.items()]


def differences(given: Any, made: Any) -> dict[tuple[str, ...], Any]:
    """Return the options in which two configs differ, with the values of the second."""
    found: dict[tuple[str, ...], Any] = {}
    for field in fields(given):
        ours, theirs = getattr(given, field.name), getattr(made, field.name)
        if is_dataclass(ours) and type(ours) is type(theirs):
            found |= {(field.name, *path): value for path, value in differences(ours, theirs).items()}
        elif ours != theirs:
            found[(field.name,)] = theirs
    return found


def changed(config: Any, changes: Changes) -> Any:
    """Return a config with other values of some options; raises ValueError where they do not go together."""
    values = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for name in {path[0] for path in changes if len(path) > 1}:
        inner = {path[1:]: value for path, value in changes.items() if path[0] == name}
        values[name] = changed(getattr(config, name), inner)
    return replace(config, **values)


def _can_read(key_map: KeyMap, content: Mapping[str, Any], config: Any, changes: Changes) -> bool:
    try:
        key_map.to_ours(content, changed(config, changes))
    except (ValueError, KeyError):
        return False
    return True
