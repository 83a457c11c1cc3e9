"""Which options of a config are read: some have an effect only with certain values of another option.

A config class declares them in the class variable `read_with`: option -> (the other option, the values with which it is read), e.g.

    read_with: ClassVar[ReadWith] = {"milestones": ("shape", ("multistep",))}

An option that is not read is left out of what identifies a run, and typing one is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rsdiff.config.errors import ConfigError, UserError

ANY_VALUE = "any value"
"""Among the values of `read_with`: every one but None."""
ReadWith = Mapping[str, tuple[str, tuple[Any, ...]]]


def is_read(config: Any, option: str) -> bool:
    """Return whether `option` of a config has any effect beside the config's other options."""
    rules: ReadWith = getattr(type(config), "read_with", {})
    if option not in rules:
        return True
    other, values = rules[option]
    chosen = getattr(config, other)
    return chosen in values or (ANY_VALUE in values and chosen is not None)


def unread_options(config: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (option, sentence that says what it has no effect with) for the options that are not read; `path` is the config's own."""
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), f"{path}.{field.name}"
        if not is_read(config, field.name):
            other, values = type(config).read_with[field.name]
            accepted = " or ".join(f"{path}.{other}={'VALUE' if value == ANY_VALUE else _typed(value)}" for value in values)
            yield place, f"{place} has no effect with {path}.{other}={_typed(getattr(config, other))}; leave it out, or set {accepted}."
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from unread_options(value, place)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if dataclasses.is_dataclass(item) and not isinstance(item, type):
                    yield from unread_options(item, f"{place}.{key}")


def require_effect(groups: Mapping[str, Any], typed: Iterable[str]) -> None:
    """Raise ConfigError where an option that was typed ('trainer.learning_rate.floor') is not read beside the other options chosen."""
    wanted = set(typed)
    for group, config in groups.items():
        if dataclasses.is_dataclass(config) and not isinstance(config, type):
            for option, sentence in unread_options(config, group):
                if option in wanted:
                    raise ConfigError(sentence)


def require_at_least(config: Any, **lowest: float) -> None:
    """Raise UserError where an option of a config, or a number of its list, is too low; None and words are passed over."""
    for name, low in lowest.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float) and not number >= low:
                raise UserError(f"{name} is {number:g}; it must be at least {low:g}.")


def require_above(config: Any, **bounds: float) -> None:
    """Raise UserError where an option of a config, or a number of its list, is not above its bound; None is passed over."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None and not number > bound:
                raise UserError(f"{name} is {number:g}; it must be above {bound:g}.")


def require_below(config: Any, **bounds: float) -> None:
    """Raise UserError where an option of a config, or a number of its list, is not below its bound; None is passed over."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None and not number < bound:
                raise UserError(f"{name} is {number:g}; it must be below {bound:g}.")


def _typed(value: Any) -> str:
    """Return a value as one types it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
