"""Released weights into our methods and back, safely: files are read without executing anything, names are translated strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rsdiff.config import UserError, options_of_ours
from rsdiff.foreign.reader import read_checkpoint
from rsdiff.methods.base import MethodConfig
from rsdiff.weights.advice import settings_of_file
from rsdiff.weights.keymaps import KEY_MAPS, KeyMap
from rsdiff.weights.lightning import settings_near
from rsdiff.weights.whose import whose


def import_weights(kind: str, source: Path | str | Mapping[str, Any], config: Any | None = None) -> tuple[Any, dict[str, Tensor]]:
    """Return (config, state dict) of the method `kind` from a released checkpoint.

    source  a file, or what `read_checkpoint` made of it
    config  the method's config to check the file against; None takes it from the file
    The state dict is that of `config.build(problem)`; its first and last tensors tell the bands.
    Raises UnsafeFileError for a file that is no checkpoint, ValueError for one of another network or configuration, in one sentence.
    """
    if config is not None:
        _require_published(config)
    key_map, named = _key_map(kind), not isinstance(source, Mapping)
    content = source if isinstance(source, Mapping) else _read_with_settings(Path(source))
    try:
        return key_map.to_ours(content, config)
    except ValueError as error:
        settings = settings_of_file(key_map, content, config) if config is not None else []
        if settings:
            raise UserError(f"{str(error).removesuffix('.')}; for this file add {' '.join(settings)}.") from error
        owner = whose(content, kind)
        if not owner:
            raise
        raise UserError(f"{str(error).removesuffix('.')}; {owner.replace('FILE', str(source)) if named else owner}.") from error


def export_weights(kind: str, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a method's state dict under the names of the published code, for use there; raises UserError for options of ours."""
    _require_published(config)
    return _key_map(kind).to_published(config, state_dict)


def _require_published(config: MethodConfig) -> None:
    ours = [option for option in options_of_ours(config) if option.changes == "weights"]
    if ours:
        given, back = " and ".join(f"model.{option}" for option in ours), " ".join(f"model.{option.back}" for option in ours)
        raise UserError(
            f"{given}: weights then mean something else than in the published code, so they cannot be exchanged with it; for that choose "
            f"{back}."
        )


def _read_with_settings(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content; settings that Lightning wrote to a file of their own take the place of missing ones.

    A folder holds the stages of a cascade, one file each, in the order of their names: {"stage_1": content, ..}.
    """
    if path.is_dir():
        return {f"stage_{number}": read_checkpoint(file) for number, file in enumerate(files_in(path), 1)}
    content = read_checkpoint(path)
    if "state_dict" in content and "hyper_parameters" not in content:
        content["hyper_parameters"] = settings_near(path)
    return content


def files_in(source: Path) -> list[Path]:
    """Return the files of a released checkpoint: itself, or those of a folder by name; raises UserError for an empty folder."""
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")) if source.is_dir() else [source]
    if not files:
        raise UserError(f"source={source} is an empty folder; give a file, or a folder with one file per stage.")
    return files


def _key_map(kind: str) -> KeyMap:
    if kind not in KEY_MAPS:
        raise UserError(
            f"there is no importer for model kind '{kind}'; released weights can be imported for {', '.join(sorted(KEY_MAPS))}."
        )
    return KEY_MAPS[kind]
