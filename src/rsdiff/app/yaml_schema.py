"""task=schema: JSON schemas of all settings, with which an editor completes and checks YAML files while they are written.

One file per group for its options (conf/model/*.yaml), and `experiment.json` for files that set several groups (experiments/*.yaml).
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from rsdiff.app.groups import FAMILIES, GROUPS
from rsdiff.app.help import field_sentences
from rsdiff.config import marks_of
from rsdiff.config.tagged import Tagged
from rsdiff.data.durable import write_json
from rsdiff.runs.options import RunOptions
from rsdiff.runs.result import TaskResult
from rsdiff.runs.settings import RunSettings

DIALECT = "http://json-schema.org/draft-07/schema#"
INTERPOLATED = {"type": "string", "pattern": r"\$\{.*\}|^\?\?\?$"}
"""What Hydra resolves: ${scale}, and ??? for a value that must be given."""
Schema = dict[str, Any]


def run(settings: RunSettings) -> TaskResult:
    """Write the schemas into the folder `output`, with settings for editors."""
    assert settings.output is not None
    settings.output.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        write_json(settings.output / f"{name}.json", schema)
    places = {f"./{settings.output}/{name}.json": files for name, files in files_of().items()}
    setting = json.dumps({"yaml.schemas": places}, indent=1)
    return TaskResult(
        [f"schemas  {settings.output}", "next     put this into .vscode/settings.json (extension redhat.vscode-yaml):", setting]
    )


def schemas() -> dict[str, Schema]:
    """Return every schema by name: those of the groups and families, and 'experiment'."""
    found = {group: _document(f"An option of {group}=", _choice(kinds)) for group, kinds in GROUPS.items()}
    found |= {family: _document(f"An option of {family}=", _choice(kinds)) for family, kinds in FAMILIES.items()}
    return found | {"experiment": _document("Settings of an experiment or a sweep", _experiment())}


def files_of() -> dict[str, list[str]]:
    """Return which files each schema is for."""
    groups = {name: [f"conf/{name}/**/*.yaml"] for name in (*GROUPS, *FAMILIES)}
    return groups | {"experiment": ["experiments/**/*.yaml", "sweeps/**/*.yaml"]}


def _document(title: str, schema: Schema) -> Schema:
    return {"$schema": DIALECT, "title": title, **schema}


def _experiment() -> Schema:
    """Return the schema of a file that overrides top-level settings and those of groups."""
    properties = _object(RunOptions)["properties"]
    for group, kinds in GROUPS.items():
        properties[group] = {"anyOf": [_choice(kinds, needs_kind=False), {"type": "null"}]}
    return {
        "type": "object",
        "properties": properties | {"defaults": _defaults(), "hydra": {"type": "object"}},
        "additionalProperties": False,
    }


def _choice(kinds: Mapping[str, type[Any]], needs_kind: bool = True) -> Schema:
    """Return the schema of one of `kinds`: with `kind:` its own options, without (a file that extends another) those of all of them."""
    objects = {kind: _object(kinds[kind]) for kind in sorted(kinds)}
    every: Schema = {}
    for schema in objects.values():
        for name, option in schema["properties"].items():
            every.setdefault(name, option if all(other["properties"].get(name, option) == option for other in objects.values()) else {})
    every |= {"kind": {"enum": list(objects), "description": "Which of these it is."}, "defaults": _defaults()}
    own: list[Schema] = [
        {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": {"properties": _with_kind(schema, kind)}}
        for kind, schema in objects.items()
    ]
    exact = [{**each, "then": {**each["then"], "additionalProperties": False}} for each in own]
    return {"type": "object", "properties": every, "additionalProperties": False, "allOf": exact}


def _with_kind(schema: Schema, kind: str) -> Schema:
    return {**schema["properties"], "kind": {"const": kind}, "defaults": _defaults()}


def _defaults() -> Schema:
    return {"type": "array", "description": "The files this one extends, and which options it chooses (Hydra's defaults list)."}


def _object(cls: type[Any]) -> Schema:
    """Return the schema of a config class: each option with its type, default and sentence."""
    hints, sentences = typing.get_type_hints(cls), field_sentences(cls)
    properties = {}
    for field, mark in marks_of(cls):
        option = _either([_of(hints[field.name]), INTERPOLATED])
        option["description"] = sentences.get(field.name, "") + ("" if mark is None else " (ours)")
        if isinstance(field.default, bool | int | float | str):
            option["default"] = field.default
        properties[field.name] = option
    described = (inspect.getdoc(cls) or "").partition("\n")[0]
    return {"type": "object", "description": described, "properties": properties, "additionalProperties": False}


def _of(hint: Any) -> Schema:
    """Return the schema of an annotation: config classes by their fields, families by their kinds, the rest as pydantic has it."""
    if isinstance(hint, type) and issubclass(hint, Tagged) and not hint.kind:
        return _either([{"enum": sorted(hint.kinds)}, _choice(hint.kinds)])
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _object(hint)
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _either([_of(part) for part in parts])
    if typing.get_origin(hint) is tuple:
        inner = [part for part in parts if part is not Ellipsis]
        return {"type": "array", "items": _either([_of(part) for part in inner])}
    if typing.get_origin(hint) in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(parts[1])}
    schema: Schema = TypeAdapter(hint).json_schema()
    return schema


def _either(options: list[Schema]) -> Schema:
    different = [option for number, option in enumerate(options) if option not in options[:number]]
    return dict(different[0]) if len(different) == 1 else {"anyOf": different}
