"""What a run is: the settings in which it differs from the defaults, and the content of what it reads.

Neither the text of the command line nor the place of a file matters: `scale=4` and `scale=4.0` are one run, so are the same images under
another path, copied or touched; and an option that is added with a default later changes no run. A config class says in class variables
    result_neutral  options that change no result (loader processes, intervals of saving)
    located         options that say where content lies; the content itself is part of the identity
    located_lists   the same for options that do so where they are lists
    read_with       options that are read only beside certain values of others, see rsdiff.config.reading
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsdiff.config.reading import is_read
from rsdiff.config.tagged import Tagged
from rsdiff.data.durable import write_json

SIGNATURE_LENGTH = 10
IDENTITY, IMAGES = "identity.json", "images.json"
SCORED = ("test", "metric/")
"""Parts of the content that figures depend on and the training does not."""


@dataclass(frozen=True)
class Identity:
    """What tells a run from others.

    settings  nested plain values, of what differs from the defaults alone
    content   part ('train', 'test', 'start', 'input/0', 'metric/niqe', ...) -> digest of what is read
    images    'train' or 'test' -> name of an image -> digest of its files, to say what changed; empty where it is not known
    """

    settings: Mapping[str, Any]
    content: Mapping[str, str]
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)

    @property
    def signature(self) -> str:
        """The name of the run's folder: lower-case hexadecimal, independent of the order of the settings."""
        return signature_of({"settings": self.settings, "content": self.content})

    @property
    def trained(self) -> Mapping[str, str]:
        """The content that the training depends on."""
        return {part: digest for part, digest in self.content.items() if not part.startswith(SCORED)}

    def write(self, folder: Path, signature: str) -> None:
        """Keep the identity in a run's folder, whose first signature stays its name for other programs (W&B)."""
        write_json(folder / IMAGES, self.images)
        write_json(folder / IDENTITY, {"signature": signature, "settings": self.settings, "content": self.content})


def read_identity(folder: Path, with_images: bool = False) -> tuple[str, Identity] | None:
    """Return the first signature and the identity of the run in `folder`, or None where none is recorded or readable."""
    try:
        values = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        images = json.loads((folder / IMAGES).read_text(encoding="utf-8")) if with_images and (folder / IMAGES).exists() else {}
        return str(values["signature"]), Identity(values["settings"], values["content"], images)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def signature_of(values: Mapping[str, Any]) -> str:
    """Return the signature of plain values and configs by name."""
    text = json.dumps(plain(values), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:SIGNATURE_LENGTH]


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Return nested values by their whole names, as JSON."""
    found: dict[str, str] = {}
    for name, value in values.items():
        place = f"{path}.{name}" if path else str(name)
        found |= flat(value, place) if isinstance(value, Mapping) and value else {place: json.dumps(value, default=str)}
    return found


def plain(value: Any) -> Any:
    """Return `value` as JSON values: of configs only what can change a result and differs from their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {**_kind(value), **_difference(value, None)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    return value


def settings_of(value: Any) -> Any:
    """Return `plain(value)` as JSON gives it back, so that it can be compared with what a file holds."""
    return json.loads(json.dumps(plain(value), sort_keys=True))


def _difference(config: Any, usual: Any) -> dict[str, Any]:
    """Return the options of a config that differ from those of `usual`, one of its kind, or (None) from the defaults of its class.

    Options that are neutral, located or not read are left out; nested configs are reduced to their own difference.
    """
    left_out = omitted(type(config))
    found: dict[str, Any] = {}
    for option in dataclasses.fields(config):
        if option.name in left_out or not is_read(config, option.name):
            continue
        value = getattr(config, option.name)
        if isinstance(value, tuple) and option.name in getattr(type(config), "located_lists", ()):
            continue
        default = _default(option) if usual is None else getattr(usual, option.name)
        if not _is_config(value):
            if value != default:
                found[option.name] = plain(value)
        elif type(value) is not type(default):
            found[option.name] = {**(_kind(value) or {"kind": type(value).__name__}), **_difference(value, None)}
        elif difference := _difference(value, default):
            read = {name: inner for name, inner in difference.items() if is_read(config, f"{option.name}.{name}")}
            found |= {option.name: read} if read else {}
    return found


def _kind(config: Any) -> dict[str, str]:
    """Return {'kind': name} of a config that is a choice among several, else nothing."""
    return {"kind": config.kind} if isinstance(config, Tagged) and config.kind else {}


def omitted(cls: type[Any]) -> frozenset[str]:
    """Return the options of a config class that do not enter a run's settings."""
    named = {name for base in cls.__mro__ for kind in ("result_neutral", "located") for name in vars(base).get(kind, ())}
    unknown = named - {option.name for option in dataclasses.fields(cls)}
    assert not unknown, f"{cls.__name__} names {sorted(unknown)}, which are not its options"
    return frozenset(named)


def _default(option: dataclasses.Field[Any]) -> Any:
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default  # MISSING, which equals no value, where the option is required


def _is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
