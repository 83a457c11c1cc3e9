"""The run signature: a hash of every setting that can change a result, and of none that cannot.

What cannot change a result is declared beside the option it concerns: a config class lists such fields in the class variable
`result_neutral` (loader processes, intervals of saving, folders). Values are taken from the typed configs, not from the text of the command
line, so `scale=4` and `scale=4.0` are the same run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsdiff.config.tagged import Tagged

SIGNATURE_LENGTH = 10


def result_values(value: Any) -> Any:
    """Return `value` as plain JSON values; config dataclasses lose the fields they declare result-neutral."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        neutral: frozenset[str] = getattr(type(value), "result_neutral", frozenset())
        unknown = neutral - {field.name for field in dataclasses.fields(value)}
        assert not unknown, f"{type(value).__name__}.result_neutral names {sorted(unknown)}, which are not its options"
        named = {"kind": value.kind} if isinstance(value, Tagged) and value.kind else {}
        return named | {f.name: result_values(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in neutral}
    if isinstance(value, Mapping):
        return {str(key): result_values(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [result_values(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(result_values(item) for item in value)
    if isinstance(value, Path):
        return path_identity(value)
    return value


def path_identity(path: Path) -> Any:
    """Return what tells the file or folder at `path` from others and from its own earlier content: place, sizes and times of change."""
    place = path.resolve()
    files = [place] if place.is_file() else sorted(child for child in place.glob("*") if child.is_file())
    return [str(place), [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]]


def run_signature(parts: Mapping[str, Any]) -> str:
    """Return the signature of a run from its settings by name: lower-case hexadecimal, independent of the order of the settings."""
    text = json.dumps(result_values(parts), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:SIGNATURE_LENGTH]
