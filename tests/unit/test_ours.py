"""What the mark of our own options gives: refusals of import and export, notes in help; no option of ours goes without the mark."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from rsdiff.app.groups import GROUPS
from rsdiff.app.help import field_sentences
from rsdiff.config import Ours, UserError, marks_of, options_of_ours
from rsdiff.config.tagged import family_of
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps import KEY_MAPS

Path = tuple[str, ...]


def marked(cls: type[Any], path: Path = ()) -> Iterator[tuple[Path, Ours, Any, Any]]:
    """Yield the place of every marked option of a config class and of those inside it, its mark, type and default."""
    hints = typing.get_type_hints(cls)
    for field, mark in marks_of(cls):
        if mark is not None:
            yield (*path, field.name), mark, hints[field.name], field.default
        elif dataclasses.is_dataclass(hints[field.name]):
            yield from marked(hints[field.name], (*path, field.name))


def values_of_ours(mark: Ours, kind: Any, default: Any) -> list[Any]:
    """Return values that the published code does not know: all of a choice, one of a number."""
    published = mark.published or (default,)
    if typing.get_origin(kind) is typing.Literal:
        choices: tuple[Any, ...] = typing.get_args(kind)
    elif kind is bool:
        choices = (False, True)
    elif (family := family_of(default)) is not None:
        choices = tuple(family.class_of(name)() for name in family.kinds)
    else:
        choices = ((7,),) if typing.get_origin(kind) is tuple else (0.25,)
    return [value for value in choices if value not in published]


def with_value(config: Any, path: Path, value: Any) -> Any:
    inner = value if len(path) == 1 else with_value(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: inner})


def is_allowed(config: Any, path: Path, value: Any) -> bool:
    """Say whether an option may have a value while the others are as published."""
    try:
        with_value(config, path, value)
    except UserError:
        return False
    return True


OF_WEIGHTS = [
    (kind, path, value)
    for kind, cls in GROUPS["model"].items()
    if kind in KEY_MAPS
    for path, mark, hint, default in marked(cls)
    if mark.changes == "weights"
    for value in values_of_ours(mark, hint, default)
    if is_allowed(cls(), path, value)
]


@pytest.mark.parametrize(
    ("kind", "path", "value"), OF_WEIGHTS, ids=[f"{kind} {'.'.join(path)}={value}" for kind, path, value in OF_WEIGHTS]
)
def test_weights_of_ours_are_neither_imported_nor_exported_as_published(kind: str, path: Path, value: Any) -> None:
    config = with_value(GROUPS["model"][kind](), path, value)
    (option,) = [option for option in options_of_ours(config) if option.changes == "weights"]
    for use in (lambda: import_weights(kind, {}, config), lambda: export_weights(kind, config, {})):
        with pytest.raises(ValueError, match="weights then mean something else") as error:
            use()
        assert f"model.{option}" in str(error.value)
        assert f"choose model.{option.back}" in str(error.value)
    assert not [o for o in options_of_ours(with_value(config, path, option.published)) if o.changes == "weights"]


def test_at_least_the_options_known_when_this_was_written_are_marked() -> None:
    kinds = {kind for kind, _, _ in OF_WEIGHTS}
    assert {"ldcsr", "blinddiff", "refdiff", "blindsrsnf", "rrdb", "esrgan", "spsr", "sadn", "idm", "ediffsr", "scdm"} <= kinds


def test_every_option_that_its_sentence_calls_ours_is_marked_and_defaults_are_as_published() -> None:
    for kind, cls in GROUPS["model"].items():
        for owner in dict.fromkeys([cls, *inner_classes(cls)]):
            sentences = field_sentences(owner)
            for field, mark in marks_of(owner):
                assert mark is not None or not re.search(r"\bours\b", sentences.get(field.name, "")), (
                    f"{kind}: {owner.__name__}.{field.name}"
                )
                if mark is not None and mark.changes == "weights":
                    assert not mark.published or field.default in mark.published, f"{kind}: {owner.__name__}.{field.name}"


def inner_classes(cls: type[Any]) -> list[type[Any]]:
    hints = typing.get_type_hints(cls)
    inner = [hints[field.name] for field in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[field.name])]
    return [found for part in inner for found in (part, *inner_classes(part))]
