"""Typed configs: frozen dataclasses are the only place where an option's type, range and default are written.

A YAML file names the dataclass (`kind: sr3`) and overrides; `default_values` gives Hydra the remaining keys, so that every option can be
set on the command line without `+`; `config_from_mapping` turns the composed mapping back into the dataclass and checks it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rsdiff.config.errors import ConfigError
from rsdiff.config.tagged import Tagged

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass whose construction from a mapping refuses unknown keys and wrong types.

    Ranges are checked in `__post_init__`, which raises `ValueError` with one sentence.
    """
    cls.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=False)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def default_values(cls: type[Any]) -> dict[str, Any]:
    """Return the options of a config class as plain values; a required option is '???' (Hydra's mark for a missing value).

    Of an option that is a choice of a family, only what differs from the chosen kind's own defaults is there: Hydra composes the rest.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if isinstance(field.default, Tagged):
            own = {inner.name: inner.default for inner in dataclasses.fields(field.default)}  # type: ignore[arg-type]
            differing = {name: value for name in own if (value := getattr(field.default, name)) != own[name]}
            if differing:
                values[field.name] = plain_values(differing)
        elif field.default is not dataclasses.MISSING:
            values[field.name] = plain_values(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = plain_values(field.default_factory())
        else:
            values[field.name] = "???"
    return values


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    """Return what checks values for a config class; making one takes as long as a hundred checks."""
    return TypeAdapter(cls)


WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "mapping": "options of its own",
    "dict": "options of its own",
    "dataclass": "options of its own",
}
"""What pydantic's kinds of errors mean to a user, by what they begin with."""


_MEMBER = re.compile(r"int|float|str|bool|none|.*[\[\]].*|function-.*|constrained-.*")
"""pydantic's names of the members of a union: 'float', 'tuple[float,float]'."""


def config_from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build config class `cls` from plain `values`; `where` is the config path ('model') used in error messages.

    Raises ConfigError in one sentence that names the option, what was given, what is accepted and the nearest correct spelling.
    """
    _refuse_no_numbers(cls, values, where)
    try:
        return cast(T, _adapter(cast(Any, cls)).validate_python(dict(values)))
    except ValidationError as error:
        raise ConfigError(_sentence(error, cls, where)) from None


def plain_values(value: Any) -> Any:
    """Return a config as dictionaries, lists and scalars, which `config_from_mapping` turns back into it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {"kind": value.kind} if isinstance(value, Tagged) and value.kind else {}
        return named | {f.name: plain_values(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain_values(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain_values(item) for key, item in value.items()}
    return value


def _sentence(error: ValidationError, cls: type[Any], where: str) -> str:
    first = error.errors()[0]
    location = _typed_location(cls, first["loc"])
    path = ".".join([where, *location] if where else location)
    given = first.get("input")
    match first["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            known, place = _options_at(cls, location[:-1]), path.rpartition(".")[0]
            among = f"the options of {place} are" if place else "the options are"
            return f"{path} is not an option{nearest(location[-1], known)}; {among} {', '.join(sorted(known)) or 'none'}."
        case "missing" if location[-1].isdigit() and isinstance(given, tuple | list):  # a list that is too short
            length = max(int(other["loc"][-1]) for other in error.errors() if other["loc"][:-1] == first["loc"][:-1]) + 1
            return f"{path.rpartition('.')[0]}={_as_typed(list(given))} is not accepted: it needs {length} values."
        case "too_long":
            return f"{path}={_as_typed(list(given or ()))} is not accepted: it needs {first['ctx']['max_length']} values."
        case "missing" | "missing_argument":
            return required(cls, location, path)
        case "literal_error":
            expected = first.get("ctx", {}).get("expected", "")
            options = [option.strip(" '") for option in str(expected).replace(" or ", ", ").split(",")]
            return f"{path}={given} is not one of {', '.join(options)}{nearest(str(given), options)}."
        case "value_error":
            return f"{path}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        case _:
            kinds = [str(other["type"]) for other in error.errors() if _typed_location(cls, other["loc"]) == location]  # several of a union
            wanted = dict.fromkeys(said for kind in kinds for begin, said in WANTED.items() if kind.startswith(begin))
            needed = f"it needs {' or '.join(wanted)}" if wanted else f"{first['msg'][0].lower()}{first['msg'][1:]}"
            simple = first["type"] in ("tuple_type", "list_type") and given is not None and not isinstance(given, dict)
            hint = f"; write a list: {path}=[{given}]" if simple else f"; leave {path}= out for the default" if given is None else ""
            if given is not None and "options of its own" in wanted:
                hint = f": {', '.join(f'{path}.{option}' for option in _options_at(cls, location))}"
            return f"{path}={_as_typed(given)} is not accepted: {needed}{hint}."


def _typed_location(cls: type[Any], location: Sequence[str | int]) -> list[str]:
    """Return the way to a setting as it is typed, without pydantic's names of the members of a union."""
    typed: list[str] = []
    for part in map(str, location):
        if part in _options_at(cls, typed) or not _MEMBER.fullmatch(part):
            typed.append(part)
    return typed


def _as_typed(given: Any) -> str:
    """Return a value as a command line has it."""
    return {None: "null", True: "true", False: "false"}[given] if given is None or isinstance(given, bool) else repr(given)


def required(cls: type[Any], location: Sequence[str], path: str) -> str:
    """Return the sentence for a required option that was not given: `location` leads to it from `cls`, `path` is what is typed."""
    *outer, name = location
    owners = functools.reduce(_inside, outer, [cls])
    hints = [typing.get_type_hints(owner).get(name) for owner in owners]
    value = "[VALUE,..]" if any(typing.get_origin(hint) in (tuple, list) for hint in hints) else "VALUE"
    return f"{path} is required and was not given; set it with {path}={value}."


def _refuse_no_numbers(annotation: Any, value: Any, path: str) -> None:
    """Raise ConfigError for true and false where a number belongs, which Python counts as 1 and 0, and for nan, which no range refuses."""
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{path}=nan is not a number; give one.")
    if isinstance(value, bool) and not _takes_bool(annotation):
        raise ConfigError(f"{path}={str(value).lower()} was given and a number is needed; give one.")
    if isinstance(value, Mapping):
        for owner in _config_classes(annotation) if not isinstance(annotation, type) else [annotation]:
            if dataclasses.is_dataclass(owner):
                hints = typing.get_type_hints(owner)
                for name in (name for name in value if name in hints):
                    _refuse_no_numbers(hints[name], value[name], f"{path}.{name}" if path else str(name))
    elif isinstance(value, tuple | list):
        for item in value:
            _refuse_no_numbers(annotation, item, path)


def _takes_bool(annotation: Any) -> bool:
    """Return whether an annotation accepts true or false, or is no number at all (which pydantic refuses by itself)."""
    if annotation in (int, float):
        return False
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return any(isinstance(part, bool) for part in parts)
    if annotation in (bool, Any) or not parts:
        return annotation in (bool, Any)
    return any(_takes_bool(part) for part in parts)


def _options_at(cls: type[Any], location: list[str]) -> list[str]:
    """Return the option names of the config class found by following `location` through the fields of `cls`."""
    owners = functools.reduce(_inside, location, [cls])
    return list(dict.fromkeys(field.name for owner in owners for field in dataclasses.fields(owner)))


def _inside(owners: list[type[Any]], name: str) -> list[type[Any]]:
    """Return the config classes of the option `name` of any of `owners`."""
    found = [part for owner in owners for part in _config_classes(typing.get_type_hints(owner).get(name))]
    # A step that is not a field (an index, the key of a mapping, pydantic's name of a union member) stays in the same class.
    return found or owners


def _config_classes(annotation: Any) -> list[type[Any]]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _config_classes(argument)]


def nearest(word: str, options: list[str]) -> str:
    """Return ' (did you mean ...?)' for the closest of `options`, or '' when none is close; closest to sr3/quick is quick/sr3."""
    turned = "/".join(reversed(word.lower().split("/")))
    close = [turned] if turned in options else difflib.get_close_matches(word.lower(), options, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
