"""Options that are a choice with options of its own: `network: {kind: hat, width: 96}`, or `model.network=hat model.network.width=96`.

A family is a class that extends `Tagged` and lists its kinds; each kind is a config class that extends the family. An option of the
family's type takes any of them, so that an option of a kind exists where the kind is chosen and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rsdiff.config.errors import UserError
from rsdiff.config.kinds import Kinds


class Tagged:
    """Base of families.

    family  name of the family, which is that of its group of options in conf/
    kind    name of a kind; empty in the family itself
    kinds   the kinds by name, imported when they are chosen; a user's package adds its own
    """

    family: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    kinds: ClassVar[Kinds] = Kinds({})

    @classmethod
    def class_of(cls, kind: str) -> type[Self]:
        """Return the config class of a kind; raises UserError for one that the family has not."""
        if kind not in cls.kinds:
            raise UserError(
                f"{cls.family}={kind} does not exist; choose one of {', '.join(sorted(cls.kinds))}, "
                "or name the package of yours that brings it: plugins=[PACKAGE]."
            )
        found: type[Self] = cls.kinds[kind]
        return found

    @classmethod
    def from_values(cls, value: Any) -> Self:
        """Return a config from itself, the name of a kind, or a mapping that names one; raises UserError in one sentence."""
        from rsdiff.config.typed import config_from_mapping

        if isinstance(value, cls):
            return value
        options = {"kind": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
        if "kind" not in options:
            raise UserError(f"{value!r} is no {cls.family}; choose one of {', '.join(sorted(cls.kinds))}.")
        return config_from_mapping(cls.class_of(str(options.pop("kind"))), options, "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source) if source.kind else core_schema.no_info_plain_validator_function(cls.from_values)


def family_of(value: Any) -> type[Tagged] | None:
    """Return the family of a config object of one of its kinds, or None."""
    if not isinstance(value, Tagged) or not value.kind:
        return None
    return next(base for base in type(value).__mro__ if issubclass(base, Tagged) and base is not Tagged and not base.kind)


def choices_of(cls: type[Any]) -> dict[str, tuple[str, str]]:
    """Return the options of a config class, and of those inside it, that are of a family: {path: (family, kind of the default)}."""
    found: dict[str, tuple[str, str]] = {}
    for field in dataclasses.fields(cls):
        default = field.default
        family = family_of(default)
        if family is not None:
            found[field.name] = (family.family, str(getattr(default, "kind", "")))
        elif dataclasses.is_dataclass(default) and not isinstance(default, type):
            found |= {f"{field.name}.{path}": choice for path, choice in choices_of(type(default)).items()}
    return found
