"""Shows Hydra the options of every config class and their defaults, as the configs schema/<group>/<kind>.

They are made when Hydra asks for them, because making one imports the module of its class; see `rsdiff.app.kept_schemas` for when not.
"""

from __future__ import annotations

import os
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import Container, OmegaConf

from rsdiff.app.groups import FAMILIES, GROUPS
from rsdiff.app.kept_schemas import kept_or_made
from rsdiff.app.plugins import load_plugins
from rsdiff.config import default_values
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import choices_of

SCHEMA = "schema"
CONFIG_PATH = "RSDIFF_CONFIG_PATH"
"""Environment: folders with own options of groups, separated as in PATH."""


class SchemaSource(ConfigSource):
    """Hydra's view of the config classes."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Where a launcher's process reads the source, it has not loaded the plugins yet."""
        self.__dict__.update(state)
        load_plugins()

    @staticmethod
    def scheme() -> str:
        return "rsdiff"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"{config_path} is not the schema of an option")
        group, kind = _parts(config_path)[-2:]
        node = OmegaConf.create(schema_of(FAMILIES[group] if len(_parts(config_path)) == 2 else GROUPS[group], kind)["node"])
        return ConfigResult(provider=self.provider, path=self.full_path(), config=node, header={"package": None})

    def is_group(self, config_path: str) -> bool:
        parts = _parts(config_path)
        nested = len(parts) == 1 and parts[0] in FAMILIES
        return parts in ([], [SCHEMA]) or nested or (len(parts) == 2 and parts[0] == SCHEMA and parts[1] in GROUPS)

    def is_config(self, config_path: str) -> bool:
        parts = _parts(config_path)
        if len(parts) == 2 and parts[0] in FAMILIES:
            return parts[1] in FAMILIES[parts[0]]
        return len(parts) == 3 and parts[0] == SCHEMA and parts[2] in GROUPS.get(parts[1], {})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        parts = _parts(config_path)
        if len(parts) == 1 and parts[0] in FAMILIES:
            return sorted(FAMILIES[parts[0]]) if results_filter != ObjectType.GROUP else []
        if len(parts) == 2 and results_filter != ObjectType.GROUP:
            return sorted(GROUPS.get(parts[1], {}))
        if len(parts) == 1 and results_filter != ObjectType.CONFIG:
            return sorted(GROUPS)
        return sorted([SCHEMA, *FAMILIES]) if not parts and results_filter != ObjectType.CONFIG else []


class SchemaPath(SearchPathPlugin):
    """Lets Hydra find, after everything else, own folders of configs, those of plugins, and the schemas."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in filter(None, os.environ.get(CONFIG_PATH, "").split(os.pathsep)):
            search_path.append("environment", f"file://{os.path.abspath(folder)}")
        for path in load_plugins():
            search_path.append("plugin", f"file://{path}")
        search_path.append("rsdiff", f"{SchemaSource.scheme()}://")


def schema_of(kinds: Kinds, kind: str) -> dict[str, Any]:
    """Return what a command line needs to know of a config class.

    node         its options with their defaults, and in 'defaults' the choices inside them, as Hydra reads a config
    usual_scale  see `rsdiff.methods.base.MethodConfig`; null for classes of other groups
    """

    def make() -> dict[str, Any]:
        cls = kinds[kind]
        nested = [{f"/{family}@{path}": chosen} for path, (family, chosen) in choices_of(cls).items()]
        node = {**({"defaults": [*nested, "_self_"]} if nested else {}), "kind": kind, **default_values(cls)}
        return {"node": node, "usual_scale": getattr(cls, "usual_scale", None)}

    return kept_or_made(kinds.not_imported(kind), make)


def register_schemas() -> None:
    """Tell Hydra where schemas and plugins are, and how ${usual_scale:} is resolved."""
    for plugin in (SchemaSource, SchemaPath):
        Plugins.instance().register(plugin)
    OmegaConf.register_new_resolver("usual_scale", usual_scale, replace=True)


def usual_scale(*, _root_: Container) -> int:
    """Return the scale of a run that gives none: that of the model chosen, 4 without one; in config files ${usual_scale:}."""
    kind = str(OmegaConf.select(_root_, "model.kind"))
    return int(schema_of(GROUPS["model"], kind)["usual_scale"] or 4) if kind in GROUPS["model"] else 4


def _parts(config_path: str) -> list[str]:
    return [part for part in config_path.removesuffix(".yaml").split("/") if part]
