"""The mark of options that the published method does not have, and what a config holds of them.

Write it in the option's annotation, beside the type:

    residual: Annotated[bool, Ours("weights")] = False
    mask: Annotated[Literal["given", "checked", "unchanged"], Ours("sampling", published=("given", "unchanged"))] = "given"

From it derive the refusals of task=import and task=export, the notes of help and docs, and the test that `<name>_tiny` is the published
method. A new option of ours needs the mark and nothing else.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rsdiff.config.tagged import Tagged

Changes = Literal["weights", "training", "sampling"]


@dataclass(frozen=True)
class Ours:
    """Marks an option of a config class as ours.

    changes    what is no longer as published once the option has a value of ours: 'weights', what trained weights compute, so that they
               cannot be exchanged with the published code; 'training', how they are trained; 'sampling', how images are restored
    published  the values that the published code knows; () stands for the option's default alone
    """

    changes: Changes
    published: tuple[Any, ...] = ()


@dataclass(frozen=True)
class OursOption:
    """An option that has a value of ours; as text what one types for it: 'first_stage.decoder.initial=enlarged'.

    path       its place in the config, ('first_stage', 'decoder', 'initial')
    published  the published value to go back to
    """

    path: tuple[str, ...]
    value: Any
    published: Any
    changes: Changes

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}={typed(self.value)}"

    @property
    def back(self) -> str:
        """What one types for the published value."""
        return f"{'.'.join(self.path)}={typed(self.published)}"


def options_of_ours(config: Any) -> list[OursOption]:
    """Return the options of a config, and of those inside it, whose values the published method does not know."""
    found = []
    for field, mark in marks_of(type(config)):
        value = getattr(config, field.name)
        published = (mark.published or (_default(field),)) if mark is not None else ()
        if mark is not None and value not in published:
            found.append(OursOption((field.name,), value, published[0], mark.changes))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += [dataclasses.replace(inner, path=(field.name, *inner.path)) for inner in options_of_ours(value)]
    return found


def marks_of(cls: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Ours | None]]:
    """Yield every option of a config class with its mark, or None where it is the published method's own."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        found = [part for part in getattr(hints[field.name], "__metadata__", ()) if isinstance(part, Ours)]
        yield field, found[0] if found else None


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def typed(value: Any) -> str:
    """Return a value of an option as it is typed on the command line."""
    if isinstance(value, tuple | list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Tagged):
        return value.kind
    return "null" if value is None else str(value)
