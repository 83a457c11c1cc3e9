"""The config groups: which config classes a choice of each group may name, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Mapping

from rsdiff.config.kinds import Kinds
from rsdiff.data import DATASETS
from rsdiff.degradations import DEGRADATIONS
from rsdiff.diffusion import BASES, SAMPLERS
from rsdiff.methods import METHODS
from rsdiff.networks import DISCRIMINATORS, NETWORKS
from rsdiff.tasks import TASKS
from rsdiff.tracking import LOGGERS

GROUPS: Mapping[str, Kinds] = {
    "task": TASKS,
    "model": METHODS,
    "dataset": DATASETS,
    "degradation": DEGRADATIONS,
    "sampler": SAMPLERS,
    "trainer": Kinds({"trainer": "rsdiff.training.config:TrainerConfig"}),
    "metrics": Kinds({"metrics": "rsdiff.metrics.options:MetricsConfig"}),
    "logger": LOGGERS,
}
"""Config classes by group and `kind`. Every YAML file of a group names one: `defaults: [/schema/<group>/<kind>@_here_, _self_]`."""

FAMILIES: Mapping[str, Kinds] = {"base": BASES, "discriminator": DISCRIMINATORS, "network": NETWORKS}
"""Kinds of choices inside an option, by the name of their family and group: `model.network=hat` chooses the option hat of network."""
