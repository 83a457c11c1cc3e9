"""Digests of what a run reads: images, checkpoints, weight files.

Files that did not change are not read again, see rsdiff.data.file_records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsdiff.config.paths import typed_path
from rsdiff.data.digests import digest_of
from rsdiff.data.source import ImageSource, innermost
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.table import METRICS
from rsdiff.metrics.weight_files import find_weight_file

CALIBRATIONS = "calibration-*.json"
"""Files in a checkpoint's folder that say how wide its intervals are."""
NOTHING = "nothing"
"""What stands for a file that is not there: supplied later, it makes another run."""


def digest_of_path(path: Path) -> str:
    """Return the digest of a file, of all files below a folder with their places in it, or of the text itself where there is neither."""
    path = typed_path(path)
    if path.is_file():
        return _digests([path])[path]
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if found.is_file() and not found.name.startswith("."))
        found = _digests(files) if files else {}
        return digest_of(f"{file.relative_to(path).as_posix()}\0{found[file]}" for file in files)
    return f"text {path}"


def digest_of_checkpoint(folder: Path) -> str:
    """Return the digest of a checkpoint's weights and averages, whatever else lies in its folder."""
    files = sorted(folder.glob("*.safetensors"))
    found = _digests(files) if files else {}
    return digest_of(f"{file.name}\0{found[file]}" for file in files)


def digest_of_calibrations(folder: Path) -> str:
    """Return the digest of the calibrations in a checkpoint's folder, '' where there is none."""
    files = sorted(folder.glob(CALIBRATIONS))
    return digest_of(f"{file.name}\0{digest}" for file, digest in sorted(_digests(files).items())) if files else ""


def images_of(source: ImageSource) -> Mapping[str, str]:
    """Return the name of every image -> a digest of its files; nothing for data that are not files of their own."""
    named: Callable[[], Mapping[str, str]] | None = getattr(innermost(source), "files_by_name", None)
    return named() if named is not None else {}


def digest_of_images(source: ImageSource) -> str:
    """Return the digest of the images of a split and of how their values are understood, which other images may have decided."""
    return digest_of([source.fingerprint(), repr(source.normaliser), repr(source.lr_normaliser)])


def metric_files(metrics: Any) -> dict[str, str]:
    """Return 'metric/<name>' -> digest of its weight file, or NOTHING, for the metrics that need one."""
    if not isinstance(metrics, MetricsConfig):
        return {}
    found: dict[str, str] = {}
    for name in metrics.metrics:
        if METRICS[name].files:
            path = find_weight_file(METRICS[name].files, metrics.weight_folders)
            found[f"metric/{name}"] = NOTHING if path is None else digest_of_path(path)
    return found


def located_files(group: str, config: Any) -> Iterator[tuple[str, str]]:
    """Yield ('file/<option>', digest) for the options of a config that name a file (not those of data sets and weight folders)."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return
    located: frozenset[str] = getattr(type(config), "located", frozenset())
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if option.name in located and isinstance(value, str) and value:
            yield f"file/{group}.{option.name}", digest_of_path(Path(value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from located_files(f"{group}.{option.name}.{key}", item)
        else:
            yield from located_files(f"{group}.{option.name}", value)


def _digests(files: Sequence[Path]) -> dict[Path, str]:
    from rsdiff.data.file_records import FileRecords  # it imports the readers of all formats

    records = FileRecords(files)
    found = records.digests(files)
    records.save()
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of images that were added, removed or have another content."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def changes_in_words(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return '3 of 40 changed (first: a/017), 1 added (first: b), 2 of 40 removed (first: c)'."""
    kinds = {
        "changed": [name for name in now if name in before and before[name] != now[name]],
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
    }
    parts = []
    for kind, names in kinds.items():
        if names:
            of = "" if kind == "added" else f" of {len(before)}"
            parts.append(f"{len(names)}{of} {kind} (first: {min(names)})")
    return ", ".join(parts)
