"""What each option of the data and degradation groups gives to a batch, for messages that say what to choose instead."""

from __future__ import annotations

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import loader_at_hand, options_of_group
from rsdiff.config import UserError
from rsdiff.runs.compatibility import Offers, fields_given


class _Images:
    """A data set of images, which every degradation can be applied to."""

    gives = frozenset({"hr"})


def offers_of_hydra() -> Offers:
    """Return what each option of the data and degradation groups gives; nothing where Hydra is not at hand (a launcher's worker)."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    loader = loader_at_hand()
    offers: dict[str, dict[str, frozenset[str]]] = {"dataset": {}, "degradation": {}}
    for group, given in offers.items():
        for option in options_of_group(group):
            try:
                composed = OmegaConf.create({"scale": 4, "seed": 0, group: option_node(loader, group, option)})
                given[option] = fields_given({"dataset": _Images(), group: group_config(composed, group)}, group)
            except (UserError, OmegaConfBaseException):  # needs a setting of its own
                continue
    return offers


def option_node(loader: ConfigLoader, group: str, option: str) -> DictConfig:
    """Return an option of a group with the options of the same group that it extends, as its files have it, without composing a run."""
    path = f"{group}/{option}"
    source = next((source for source in loader.get_sources() if source.is_config(path)), None)
    if source is None:
        return OmegaConf.create()
    own = source.load_config(path).config
    assert isinstance(own, DictConfig)
    parents = [str(entry) for entry in own.get("defaults") or [] if isinstance(entry, str) and entry != "_self_"]
    names = [entry.removeprefix("/").partition("@")[0].rpartition("/")[::2] for entry in parents]
    nodes = [option_node(loader, folder or group, name) for folder, name in names]
    merged = OmegaConf.merge(*nodes, {key: own._get_node(key) for key in own if key != "defaults"})
    assert isinstance(merged, DictConfig)
    return merged
