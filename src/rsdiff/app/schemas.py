"""Shows Hydra the options of every config class and their defaults, as the configs schema/<group>/<kind>.

They are made when Hydra asks for them, because making one imports the module of its class.
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
from rsdiff.app.plugins import load_plugins
from rsdiff.config import default_values
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
        cls = FAMILIES[group].class_of(kind) if len(_parts(config_path)) == 2 else GROUPS[group][kind]
        nested = [{f"/{family}@{path}": chosen} for path, (family, chosen) in choices_of(cls).items()]
        node = OmegaConf.create({**({"defaults": [*nested, "_self_"]} if nested else {}), "kind": kind, **default_values(cls)})
        return ConfigResult(provider=self.provider, path=self.full_path(), config=node, header={"package": None})

    def is_group(self, config_path: str) -> bool:
        parts = _parts(config_path)
        nested = len(parts) == 1 and parts[0] in FAMILIES
        return parts in ([], [SCHEMA]) or nested or (len(parts) == 2 and parts[0] == SCHEMA and parts[1] in GROUPS)

    def is_config(self, config_path: str) -> bool:
        parts = _parts(config_path)
        if len(parts) == 2 and parts[0] in FAMILIES:
            return parts[1] in FAMILIES[parts[0]].kinds
        return len(parts) == 3 and parts[0] == SCHEMA and parts[2] in GROUPS.get(parts[1], {})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        parts = _parts(config_path)
        if len(parts) == 1 and parts[0] in FAMILIES:
            return sorted(FAMILIES[parts[0]].kinds) if results_filter != ObjectType.GROUP else []
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


def register_schemas() -> None:
    """Tell Hydra where schemas and plugins are, and how ${usual_scale:} is resolved."""
    for plugin in (SchemaSource, SchemaPath):
        Plugins.instance().register(plugin)
    OmegaConf.register_new_resolver("usual_scale", usual_scale, replace=True)


def usual_scale(*, _root_: Container) -> int:
    """Return the scale of a run that gives none: that of the model chosen, 4 without one; in config files ${usual_scale:}."""
    kind = OmegaConf.select(_root_, "model.kind")
    cls: Any = GROUPS["model"].get(str(kind))
    return int(getattr(cls, "usual_scale", 4))


def _parts(config_path: str) -> list[str]:
    return [part for part in config_path.removesuffix(".yaml").split("/") if part]
