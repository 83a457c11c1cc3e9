"""The config groups: which config classes an option of each group may name, and their registration with Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rsdiff.config import default_values
from rsdiff.data import DATASETS
from rsdiff.degradations import DEGRADATIONS
from rsdiff.diffusion import SAMPLERS
from rsdiff.methods import METHODS
from rsdiff.methods.base import MethodConfig
from rsdiff.metrics import MetricsConfig
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


def register_schemas() -> None:
    """Tell Hydra the options of every config class and their defaults, as `schema/<group>/<kind>`."""
    store = ConfigStore.instance()
    store.repo = _Shared(store.repo)
    for group, table in GROUPS.items():
        for kind, cls in table.items():
            store.store(name=kind, group=f"schema/{group}", node={"kind": kind, **default_values(cls)}, provider="rsdiff")
    OmegaConf.register_new_resolver("usual_scale", usual_scale, replace=True)


def usual_scale(kind: str) -> int:
    """Return the scale of models of `kind` where none is given; in config files ${usual_scale:...}."""
    cls: Any = METHODS.get(kind, MethodConfig)
    return int(cls.usual_scale)
