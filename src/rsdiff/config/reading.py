"""Which options of a config are read: some have an effect only with certain values of another option.

A config class declares them in the class variable `read_with`: option -> (the other option, the values with which it is read), e.g.

    read_with: ClassVar[ReadWith] = {"milestones": ("shape", ("multistep",))}

Where an option depends on several others, it is read if all of these conditions hold: {"steps": (("stride", (0,)), ("grid", ("edm",)))};
where one of them is enough, they stand in Either.
An option of a config inside is named with its place ("unet.width"), on either side; one of another group with it ("sampler.solver").
No values say that an option is never read here: one that its class has for other users. An option that is not read, with all options
inside it, is left out of what identifies a run (unless another group decides), and typing one is refused. Where the files decide, see
DependsOnFiles.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from rsdiff.config.errors import ConfigError, UserError


@dataclasses.dataclass(frozen=True)
class Such:
    """Values that a condition accepts besides single ones; `typed` stands for them in messages."""

    typed: str
    holds: Callable[[Any], bool]


ANY_VALUE = Such("VALUE", lambda value: value is not None)
NOT_EMPTY = Such("NAME", bool)
ABOVE_1 = Such("NUMBER (above 1)", lambda value: isinstance(value, int | float) and value > 1)
BELOW_1 = Such("NUMBER (below 1)", lambda value: isinstance(value, int | float) and value < 1)
ABOVE_0 = Such("NUMBER (above 0)", lambda value: isinstance(value, int | float) and value > 0)


def one_of(*names: str) -> Such:
    """Return the lists that hold one of some names."""
    return Such(f"[{names[0]},..]", lambda chosen: not set(names).isdisjoint(chosen))


Condition = tuple[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Either:
    """Conditions of which one is enough."""

    conditions: tuple[Condition, ...]


Rule = Condition | Either
ReadWith = Mapping[str, Rule | tuple[Rule, ...]]
"""Rules of a class replace those of its bases for the same option; () says that it is read whatever the others are."""


@runtime_checkable
class LeavesUnread(Protocol):
    """A config beside which some options of other groups are not read."""

    @property
    def leaves_unread(self) -> Mapping[str, str]:
        """Return option, or group -> what it has no effect with and what to do, as a sentence goes on."""
        ...


@runtime_checkable
class DependsOnFiles(Protocol):
    """A config some of whose options are not read beside certain files, which is known once these are looked at."""

    def unread_beside_files(self) -> Mapping[str, str]:
        """Return option -> what it has no effect with and what to do, as a sentence goes on; nothing where the files are not there."""
        ...


def is_read(config: Any, option: str) -> bool:
    """Return whether `option` of a config has any effect beside the config's other options."""
    return _unmet(config, option, {}) is None


def _unmet(config: Any, option: str, groups: Mapping[str, Any], cls: type[Any] | None = None) -> Rule | None:
    """Return the first condition of `option` that does not hold, or None where it is read; other groups than `groups` are not asked.

    cls  the class of `config`, where that is a stand-in
    """
    return next((rule for rule in _conditions(cls or type(config), option) if not _holds(config, rule, groups)), None)


def _holds(config: Any, rule: Rule, groups: Mapping[str, Any]) -> bool:
    if isinstance(rule, Either):
        return any(_holds(config, condition, groups) for condition in rule.conditions)
    other, values = rule
    owner, name = _owner(config, other, groups)
    if owner is None:
        return True
    chosen = getattr(owner, name)
    return any(value.holds(chosen) if isinstance(value, Such) else value == chosen for value in values)


def _conditions(cls: Any, option: str) -> tuple[Rule, ...]:
    rule: Any = _rules(cls).get(option, ())
    return (rule,) if isinstance(rule, Either) or (rule and isinstance(rule[0], str)) else rule


def _alternatives(rule: Rule) -> tuple[Condition, ...]:
    return rule.conditions if isinstance(rule, Either) else (rule,)


@functools.cache
def _rules(cls: type[Any]) -> ReadWith:
    """Return the rules of a config class and its bases."""
    return {option: rule for base in reversed(cls.__mro__) for option, rule in vars(base).get("read_with", {}).items()}


def _owner(config: Any, option: str, groups: Mapping[str, Any]) -> tuple[Any, str]:
    """Return (the config that has an option, its name there) for 'rule' of `config`, 'unet.width' inside it, or 'sampler.solver'."""
    group, dot, name = option.rpartition(".")
    if not dot:
        return config, name
    return (getattr(config, group) if _is_inside(config, option) else groups.get(group)), name


def _is_inside(config: Any, option: str) -> bool:
    """Return whether an option is one of `config` or of a config inside it, not of another group."""
    group, dot, _ = option.rpartition(".")
    return not dot or isinstance(inside := getattr(config, group, None), _Given) or dataclasses.is_dataclass(inside)


def unread_options(config: Any, path: str, groups: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, what it has no effect with and what to do) for the options that are not read; `path` is the config's own."""
    cls: Any = type(config)
    for option in (option for option in _rules(cls) if "." in option):
        if (unmet := _unmet(config, option, groups)) is not None:
            yield f"{path}.{option}", _why(config, path, unmet, groups)
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), f"{path}.{field.name}"
        unmet = _unmet(config, field.name, groups)
        if unmet is not None:
            yield place, _why(config, path, unmet, groups)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from unread_options(value, place, groups)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if dataclasses.is_dataclass(item) and not isinstance(item, type):
                    yield from unread_options(item, f"{place}.{key}", groups)


def _why(config: Any, path: str, unmet: Rule, groups: Mapping[str, Any]) -> str:
    """Return what an option has no effect with and what to do, as it follows the option's name."""
    present, accepted, way = [], [], "set"
    for other, values in _alternatives(unmet):
        owner, name = _owner(config, other, groups)
        is_own, group = _is_inside(config, other), other.partition(".")[0]
        typed = f"{path}.{other}" if is_own else other
        present.append(f"{typed}={_typed(getattr(owner, name))}")
        accepted += [f"{typed}={_typed(value)}" for value in values]
        way = way if is_own or group == path.partition(".")[0] else f"choose a {group} with"
    beside = f"has no effect with {' and '.join(present)}; leave it out"
    return f"{beside}, or {way} {' or '.join(accepted)}." if accepted else f"{beside}."


def read_beside(cls: type[Any], option: str) -> str:
    """Return beside what an option of a config class is read ('solver=euler or heun'); "" where it is always or never."""
    told = [
        " or ".join(f"{other}={' or '.join(map(_typed, values))}" for other, values in _alternatives(rule) if values)
        for rule in _conditions(cls, option)
    ]
    return " and ".join(filter(None, told))


def unread_beside(cls: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the options of a config class that are not read beside plain values of the others, for help."""
    given = _Given(values)
    return [option for option in _rules(cls) if _unmet(given, option, {}, cls) is not None]


class _Given:
    """Plain values, those inside too, as attributes: a config that need not be complete."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        vars(self).update({name: _Given(value) if isinstance(value, Mapping) else value for name, value in values.items()})


def require_effect(groups: Mapping[str, Any], typed: Iterable[str]) -> None:
    """Raise ConfigError where an option ('trainer.learning_rate.floor') or a group that was typed is not read beside what is chosen."""
    wanted = list(typed)
    for config in groups.values():
        for option, sentence in config.leaves_unread.items() if isinstance(config, LeavesUnread) else ():
            for word in wanted:
                if word == option or word.startswith(f"{option}."):
                    raise ConfigError(f"{word}{'' if '.' in word else '='} {sentence}")
    for group, config in groups.items():
        own = [word for word in wanted if word.startswith(f"{group}.")]
        if own and dataclasses.is_dataclass(config) and not isinstance(config, type):
            beside = config.unread_beside_files() if isinstance(config, DependsOnFiles) else {}
            unread = [*unread_options(config, group, groups), *((f"{group}.{name}", sentence) for name, sentence in beside.items())]
            for option, sentence in unread:
                for word in own:
                    if word == option or word.startswith(f"{option}."):
                        raise ConfigError(f"{word} {sentence}")


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
    """Return a value, or what stands for several, as one types it."""
    if isinstance(value, Such):
        return value.typed
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
