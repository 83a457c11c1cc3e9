"""Names that are imported when they are asked for: a command imports what it uses and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any


class Kinds(MutableMapping[str, type[Any]]):
    """Config classes by `kind`: what `kind:` may name in the files of a group. A class is imported when it is asked for.

    A class is given as it is, or as 'module:Class'. `METHODS["mine"] = MyConfig` adds one of your own.
    """

    def __init__(self, places: Mapping[str, str | type[Any]]) -> None:
        self._places: dict[str, str | type[Any]] = dict(places)

    def joined(self, places: Mapping[str, str | type[Any]]) -> Kinds:
        """Return a table with these kinds as well, none of which is imported for it."""
        return Kinds({**self._places, **places})

    def kind_of(self, config: Any) -> str:
        """Return the kind of a config object; raises KeyError where its class is none of these."""
        cls = type(config)
        for kind, place in self._places.items():
            if place in (cls, f"{cls.__module__}:{cls.__qualname__}"):
                return kind
        raise KeyError(f"{cls.__name__} is none of {', '.join(sorted(self._places))}")

    def not_imported(self, kind: str) -> str | None:
        """Return where the class of a kind is, as 'module:Class', if nobody has asked for it yet; else None."""
        place = self._places[kind]
        return place if isinstance(place, str) else None

    def __getitem__(self, kind: str) -> type[Any]:
        place = self._places[kind]
        if isinstance(place, str):
            module, _, name = place.partition(":")
            place = self._places[kind] = getattr(importlib.import_module(module), name)
        return place

    def __setitem__(self, kind: str, cls: type[Any]) -> None:
        self._places[kind] = cls

    def __delitem__(self, kind: str) -> None:
        del self._places[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, kind: object) -> bool:
        return kind in self._places


def on_demand(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for `package`, whose public names are in its modules: {'SamplerConfig': 'sampler'}."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(importlib.import_module(package), name, value)
        return value

    return find
