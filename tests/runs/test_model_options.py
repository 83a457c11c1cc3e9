"""Every option of every model is read where the model is built, trains or restores, or is known not to be and then refused where typed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import rsdiff
from rsdiff.config import UserError
from rsdiff.config.reading import unread_options
from rsdiff.diffusion.sampler import SamplerConfig
from tests.runs.pairs import (
    MODELS,
    SIDES,
    fresh,
    material_of,
    options,
    pairs,
    restore_an_image,
    sampler_of,
    train_a_step,
    without_downloads,
)

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once
SOURCE = str(Path(rsdiff.__file__).parent)
CHECKS = ("__post_init__", "is_read")
Option = tuple[type[Any], str]


def options_inside(config: Any) -> Iterator[tuple[str, Option]]:
    """Yield (path, (class, name)) of the options that are read beside the others, those of configs inside too."""
    unread = {option for option, _ in unread_options(config, "model", {})}

    def inside(part: Any, path: str) -> Iterator[tuple[str, Option]]:
        for field in dataclasses.fields(part):
            value, place = getattr(part, field.name), f"{path}.{field.name}"
            if place in unread:
                continue
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                yield from inside(value, place)
            else:
                yield place.removeprefix("model."), (type(part), field.name)

    yield from inside(config, "model")


@contextmanager
def reads() -> Iterator[set[Option]]:
    """Collect which options of any config the code of rsdiff reads, but for checks of their values and the general handling of configs."""
    found: set[Option] = set()
    names: dict[type[Any], frozenset[str]] = {}
    plain = object.__getattribute__

    def read(self: Any, name: str) -> Any:
        cls = type(self)
        if cls not in names:
            names[cls] = frozenset(field.name for field in dataclasses.fields(cls))
        if name in names[cls]:
            code = sys._getframe(1).f_code
            if code.co_filename.startswith(SOURCE) and "/rsdiff/config/" not in code.co_filename and code.co_name not in CHECKS:
                found.add((cls, name))
        return plain(self, name)

    watched: list[Any] = []
    for module in list(sys.modules.values()):
        for cls in list(vars(module).values()) if getattr(module, "__name__", "").startswith("rsdiff.") else ():
            if isinstance(cls, type) and hasattr(cls, "__pydantic_config__") and cls not in watched and dataclasses.is_dataclass(cls):
                watched.append(cls)
                cls.__getattribute__ = read
    try:
        yield found
    finally:
        for cls in watched:
            del cls.__getattribute__


def read_by(model: str) -> set[Option]:
    """Return what building, a training step and a restoration read."""
    config = without_downloads(options().models[model])
    pair = next(iter(pairs([model])))
    fresh.cache_clear()  # a method built before was built unobserved
    with reads() as found:
        for side in SIDES:
            try:
                given = material_of(pair, side)
                method = deepcopy(fresh(model, given.problem))
                method.prepare_training()
                if given.batch is not None:
                    train_a_step(method, given.batch)
                sampler = sampler_of(model)
                if sampler.start.startswith("image") and not config.starts_at_image(given.problem):
                    sampler = dataclasses.replace(sampler, start="edm")
                restore_an_image(method, given, sampler)
            except UserError:  # too small for the network
                continue
            return found
    raise AssertionError(f"no size of {SIDES} suits {model}")


def other_value(config: Any, path: str) -> Any:
    """Return the config with another value of the option at a path."""
    name, _, rest = path.partition(".")
    value = getattr(config, name)
    if rest:
        return dataclasses.replace(config, **{name: other_value(value, rest)})
    if isinstance(value, bool):
        return dataclasses.replace(config, **{name: not value})
    return dataclasses.replace(config, **{name: tuple(part + 1 for part in value) if isinstance(value, tuple) else value + 1})


def is_refused(config: Any, path: str) -> bool:
    try:
        other_value(config, path)
    except UserError:
        return True
    return False


@pytest.mark.parametrize("model", MODELS)
def test_every_option_of_a_model_is_read_or_refused(model: str) -> None:
    config = without_downloads(options().models[model])
    found = read_by(model)
    unread = [path for path, option in options_inside(config) if option not in found and not is_refused(config, path)]
    assert not unread, f"{model}: nothing reads {unread}; add them to `read_with`"
    assert config.samples == ((SamplerConfig, "solver") in found), "`samples` says whether restoring reads the sampler"


def test_an_option_that_nothing_reads_would_be_found() -> None:
    model, option = "idm_quick", "width"
    found = read_by(model)
    config = without_downloads(options().models[model])
    assert any(path.endswith(option) for path, _ in options_inside(config))
    assert [path for path, read in options_inside(config) if read not in found - {(type(config.encoder), option)}] == [f"encoder.{option}"]
