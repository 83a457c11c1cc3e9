"""Published protocols by name, from the files of the group `metrics`, without composing a command line."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from rsdiff.config import UserError, config_from_mapping
from rsdiff.config.typed import nearest
from rsdiff.metrics.options import MetricsConfig


def preset(name: str) -> MetricsConfig:
    """Return the settings of an option of the group `metrics`, such as 'basicsr_y'; raises UserError for unknown ones."""
    folder = files("rsdiff") / "conf" / "metrics"
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in known:
        raise UserError(f"'{name}' is not a protocol{nearest(name, known)}; the protocols are {', '.join(known)}.")
    return config_from_mapping(MetricsConfig, _read(folder, name), "metrics")


def _read(folder: Any, name: str) -> dict[str, Any]:
    """Return the options of a file over those of the files that its defaults list names."""
    values: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for entry in values.pop("defaults", []):
        if entry != "_self_" and not str(entry).startswith("/schema"):
            found |= _read(folder, str(entry))
    values.pop("kind", None)
    protocol = {**found.get("protocol", {}), **values.pop("protocol", {})}
    return {**found, **values, **({"protocol": protocol} if protocol else {})}
