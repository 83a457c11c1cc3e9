"""Every option of a config, set to other legal values, changes a result, or is refused, or is no part of what a run is."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from rsdiff.config import UserError
from rsdiff.config.reading import require_effect
from rsdiff.runs.identity import settings_of

OTHER: dict[str, list[Any]] = {
    "sigmas": [(50.0, 3.0, 0.2)],
    "milestones": [(1, 4)],
    "gammas": [(0.1,), (0.1, 0.3)],
    "periods": [(3, 7)],
    "restart_weights": [(0.5,), (0.5, 0.25)],
    "decays": [(0.9,)],
    "half_lives_images": [(3,)],
    "betas": [(0.99, 0.5)],
    "eps": [0.1],
    "ramp_up": [None, 1.0],
    "start_step": [5],
    "churn_min": [1.0],
    "churn_max": [1.0],
    "rho": [3.0],
}
"""Other values of options whose legal ones, or those that matter, do not follow from their type."""


def others(config: Any, given: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield (option, what makes the config with another value of it) for every option, those of configs inside too ('normaliser.rule')."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for option, make in others(value, given):
                yield f"{field.name}.{option}", partial(_replaced, config, field.name, make)
        else:
            for other in values_of(field.name, value, hint, given):
                if other != value:
                    yield field.name, partial(dataclasses.replace, config, **{field.name: other})


def _replaced(config: Any, option: str, make: Callable[[], Any]) -> Any:
    return dataclasses.replace(config, **{option: make()})


def values_of(name: str, value: Any, hint: Any, given: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Return values of an option to try."""
    if name in given:
        return given[name]
    if words := literals(hint):
        return words
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 3]
    return [f"{value}x"] if isinstance(value, str) else [value / 2, value + 0.3]


def literals(hint: Any) -> list[Any]:
    """Return the words and numbers that an annotation lists."""
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    return [word for part in typing.get_args(hint) for word in literals(part)]


def require_effects(
    base: Any,
    effect: Callable[[Any], Any],
    given: Mapping[str, Sequence[Any]] = OTHER,
    group: str = "",
    content: Callable[[Any], Any] = lambda config: None,
) -> int:
    """Require of every option of `base` what the module says; return how many changed something.

    given    other values of options; none for one that nothing here can show
    group    of the config, where options of other groups or of configs inside may be refused beside it
    content  what a run is besides its settings
    """
    before, name = effect(base), (settings_of(base), content(base))
    had_effect: dict[str, bool] = {}
    wrong = []
    for option, changed in others(base, given):
        had_effect.setdefault(option, False)
        try:
            other = changed()
            require_effect({group: other}, [f"{group}.{option}"])
            after = effect(other)
        except UserError:
            had_effect[option] = True
            continue
        if (settings_of(other), content(other)) == name:
            if after != before:
                wrong.append(f"{option} changes the result and not the run's name: {other}")
            had_effect[option] = True
        else:
            had_effect[option] |= after != before
    wrong += [f"{option} changes the run's name and nothing else" for option, had in had_effect.items() if not had]
    assert not wrong, f"{base}:\n" + "\n".join(wrong)
    return len(had_effect)
