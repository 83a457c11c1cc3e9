"""The config groups: which config classes an option of each group may name, and their registration with Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rsdiff.config import default_values, former
from rsdiff.config.tagged import Tagged, choices_of
from rsdiff.data import DATASETS
from rsdiff.degradations import DEGRADATIONS
from rsdiff.diffusion import SAMPLERS
from rsdiff.diffusion.bases import BaseConfig
from rsdiff.methods import METHODS
from rsdiff.methods.adversaries import DiscriminatorConfig
from rsdiff.methods.base import MethodConfig
from rsdiff.metrics import MetricsConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.tasks import TASKS
from rsdiff.tracking import LOGGERS
from rsdiff.training.config import TrainerConfig

GROUPS: Mapping[str, Mapping[str, type]] = {
    "task": TASKS,
    "model": METHODS,
    "dataset": DATASETS,
    "degradation": DEGRADATIONS,
    "sampler": SAMPLERS,
    "trainer": {"trainer": TrainerConfig},
    "metrics": {"metrics": MetricsConfig},
    "logger": LOGGERS,
}
"""Config classes by group and `kind`. Every YAML file of a group names one: `defaults: [/schema/<group>/<kind>@_here_, _self_]`."""


class _Shared(dict[str, Any]):
    """Hydra's store of schemas. It copies the whole store for each of its compositions, a third of their time, and none writes to it."""

    def __deepcopy__(self, memo: object) -> _Shared:
        return self


FAMILIES: Mapping[str, type[Tagged]] = {family.family: family for family in (RestorerConfig, BaseConfig, DiscriminatorConfig)}
"""Families of nested choices by name, which is that of their group: `model.network=hat` chooses the option hat of the group network."""


def register_schemas() -> None:
    """Tell Hydra the options of every config class and their defaults, as `schema/<group>/<kind>`, and the kinds of every family."""
    store = ConfigStore.instance()
    store.repo = _Shared(store.repo)
    for group, table in GROUPS.items():
        for kind, cls in table.items():
            store.store(name=kind, group=f"schema/{group}", node=_node(kind, cls), provider="rsdiff")
    for name, family in FAMILIES.items():
        for kind in family.kinds:
            store.store(name=kind, group=name, node=_node(kind, family.class_of(kind)), provider="rsdiff")
    OmegaConf.register_new_resolver("usual_scale", usual_scale, replace=True)


def _node(kind: str, cls: type[Any]) -> dict[str, Any]:
    """Return what Hydra is told of a config class: its defaults, and which options of families it composes them of."""
    nested = [{f"/{family}@{path}": chosen} for path, (family, chosen) in choices_of(cls).items()]
    return {**({"defaults": [*nested, "_self_"]} if nested else {}), "kind": kind, **default_values(cls)}


def nested_choices() -> Mapping[str, str]:
    """Return the settings that choose of a family, as they are typed, with its name: {'model.network': 'network'}."""
    return {
        f"{group}.{path}": family
        for group, table in GROUPS.items()
        for cls in table.values()
        for path, (family, _) in choices_of(cls).items()
    }


def present_words(word: str) -> list[str]:
    """Return what Hydra is given for a word of the command line: a former name under its present one, a nested choice as one of its group.

    'model.network=hat' -> ['network@model.network=hat'], an override of Hydra's defaults list, so that hat's own options are there.
    """
    families, words = nested_choices(), []
    for present in former.present_words(word):
        name, equals, value = present.partition("=")
        nested = equals and name in families and not value.startswith("{")
        words.append(f"{families[name]}@{present}" if nested else present)
    return words


def usual_scale(kind: str) -> int:
    """Return the scale of models of `kind` where none is given; in config files ${usual_scale:...}."""
    cls: Any = METHODS.get(kind, MethodConfig)
    return int(cls.usual_scale)
