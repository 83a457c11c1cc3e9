"""What Lightning stores besides weights: settings, in the checkpoint or in `hparams.yaml` near it, read without executing anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rsdiff.foreign.inert import Record, UnsafeFileError

SETTINGS_FILE = "hparams.yaml"
EASYDICT = "tag:yaml.org,2002:python/object/new:easydict.EasyDict"


class _SettingsLoader(yaml.SafeLoader):
    """SafeLoader that knows one more tag: a dumped EasyDict, whose entries stand under `dictitems` (and again under `state`)."""


def _easydict(loader: _SettingsLoader, node: yaml.MappingNode) -> dict[str, Any]:
    content = loader.construct_mapping(node, deep=True)
    return dict(content.get("dictitems") or content.get("state") or {})


_SettingsLoader.add_constructor(EASYDICT, _easydict)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of an `hparams.yaml`. Any tag but EasyDict's is refused: raises UnsafeFileError in one sentence."""
    try:
        # SafeLoader's subclass: constructs plain containers and scalars only.
        content = yaml.load(path.read_text(), Loader=_SettingsLoader)
    except yaml.YAMLError as error:
        raise UnsafeFileError(f"{path.name} was not read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise UnsafeFileError(f"{path.name} holds a {type(content).__name__}; settings are a dictionary.")
    return content


def settings_near(checkpoint: Path) -> dict[str, Any]:
    """Return the settings Lightning wrote for the run of `checkpoint` (beside it, or above its folder `checkpoints`), or {}."""
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        if (folder / SETTINGS_FILE).is_file():
            return read_settings(folder / SETTINGS_FILE)
    return {}


def plain(value: Any) -> Any:
    """Return nested settings with every record (EasyDict) as a dictionary."""
    if isinstance(value, Record):
        return plain(value.items or value.attributes())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
