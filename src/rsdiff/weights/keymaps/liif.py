"""Released checkpoints of query networks, {"model": {"name", "args", "sd"}}: LIIF, MetaSR, LTE and the methods of LMF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.ours import typed
from rsdiff.methods.base import Problem
from rsdiff.methods.continuous import QueryConfig
from rsdiff.methods.implicit import LIIFConfig, MetaSRConfig
from rsdiff.weights.keymaps.encoders import DEAD, encoder_name, encoder_options, linear_widths, swinir_constants
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, name_of_parts, ours_from_published, published_from_ours, renamed


class QueryKeyMap:
    """The `KeyMap` of one method; subclasses say how its network is called and what the shapes of a file say."""

    names: ClassVar[tuple[str, ...]]
    """What published files call the model."""
    rules: ClassVar[tuple[Rule, ...]] = ((r"^mlp\.", "imnet."),)
    """Names of the query network's parameters."""
    last: ClassVar[str] = "imnet."
    """What precedes the layers of the MLP whose result are colours."""
    prefix: ClassVar[str] = "encoder."
    """What precedes the encoder's parameters."""

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> QueryConfig:
        """Return the config of constructor arguments and a state dict, whose encoder has the options `encoder`."""
        raise NotImplementedError

    def bands(self, state: Mapping[str, Tensor], config: Any) -> int:
        """Return the bands of the result."""
        return linear_widths(state, self.last)[-1]

    def naming(self, config: Any) -> Name:
        """Return how our parameters are published."""
        query = Part("network.", "", lambda key: renamed(key, self.rules))
        return name_of_parts(Part("encoder.", self.prefix, self.encoder_naming(config)), query)

    def encoder_naming(self, config: QueryConfig) -> Name:
        """Return the naming of a config's encoder."""
        return encoder_name(config)

    def from_published(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        """Return the published tensors in our shapes, less constants that we compute."""
        return state

    def from_ours(self, state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
        """Return tensors under their published names in the published shapes, with constants."""
        return state | (swinir_constants(config.swinir, self.prefix) if config.encoder == "swinir" else {})

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        """See KeyMap."""
        arguments, published = self.unwrapped(content)
        found = encoder_options(published, self.encoder_naming, self.prefix)
        if config is not None and config.encoder != found["encoder"]:
            raise UserError(f"the file has no encoder {config.encoder}; set model.encoder={found['encoder']}.")
        found |= stored_options(arguments, found)
        made = self.infer(arguments, published, found)
        if config is not None:
            require_told(arguments, config, made)
        config = config or made
        name = self.naming(config)
        first = name("encoder.shallow1.weight" if config.encoder == "rdn" else "encoder.head.weight")
        bands, lr_bands = self.bands(published, config), published[first].shape[1]
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=lr_bands)).state_dict()
        return config, ours_from_published(self.from_published(published, config), own, name, DEAD)

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap. The mean shifts of EDSR, which nothing applies, are left out."""
        return self.from_ours(published_from_ours(state_dict, self.naming(config)), config)

    def unwrapped(self, content: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """Return (constructor arguments, state dict); a bare state dict has no arguments."""
        inner = content.get("model", content)
        if isinstance(inner, Mapping) and "sd" in inner:
            if inner.get("name") not in self.names:
                raise UserError(f"the file holds a model '{inner.get('name')}' and this is '{self.names[0]}'; choose the other.")
            return inner.get("args", {}), dict(inner["sd"])
        return {}, {key: value for key, value in inner.items() if isinstance(value, Tensor)}


STORED = {
    "local_ensemble": "ensemble",
    "feat_unfold": "unfold",
    "cell_decode": "cell",
    "softmax_scale": "temperature",
    "multi_scale": "scales",
    "local_size": "neighbourhood",
}
"""Constructor arguments of published files -> our options."""
ENCODER = "encoder_spec"
RESIDUAL_SCALE = {"edsr": 0.1}
"""`res_scale` of published encoders that do not store it; others have 1."""


def stored_options(arguments: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the encoder's options as far as the file stores what no shape says: the factor of EDSR's residual blocks."""
    stored = arguments.get(ENCODER)
    if found["encoder"] != "edsr" or not isinstance(stored, Mapping):
        return {}
    scale = (stored.get("args") or {}).get("res_scale", RESIDUAL_SCALE.get(str(stored.get("name")), 1.0))
    return {"edsr": replace(found["edsr"], residual_scale=float(scale))}


def require_told(arguments: Mapping[str, Any], config: QueryConfig, made: QueryConfig) -> None:
    """Raise UserError where a config contradicts what a file stores of its network; `made` is the config of the file."""
    pairs = {
        option: (getattr(config, option), getattr(made, option))
        for key, option in STORED.items()
        if key in arguments and hasattr(config, option)
    }
    if ENCODER in arguments and config.encoder == "edsr":
        pairs["edsr.residual_scale"] = (config.edsr.residual_scale, made.edsr.residual_scale)
    for option, (chosen, stored) in pairs.items():
        if chosen != stored:
            raise UserError(
                f"the file's network has {option}={typed(stored)} and {typed(chosen)} was chosen; set model.{option} to the file's."
            )


class LIIFKeyMap(QueryKeyMap):
    """The `KeyMap` of LIIF."""

    names = ("liif",)

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> LIIFConfig:
        inputs, *hidden, _ = linear_widths(state, self.last)
        width = encoder_width(encoder)
        unfold = bool(arguments.get("feat_unfold", inputs >= 9 * width))
        cell = bool(arguments.get("cell_decode", inputs == width * (9 if unfold else 1) + 4))
        return LIIFConfig(hidden=tuple(hidden), unfold=unfold, cell=cell, ensemble=bool(arguments.get("local_ensemble", True)), **encoder)


class MetaSRKeyMap(QueryKeyMap):
    """The `KeyMap` of MetaSR."""

    names = ("metasr",)

    def infer(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Mapping[str, Any]) -> MetaSRConfig:
        return MetaSRConfig(hidden=linear_widths(state, self.last)[1:-1], **encoder)

    def bands(self, state: Mapping[str, Tensor], config: MetaSRConfig) -> int:
        width = encoder_width({"encoder": config.encoder, config.encoder: getattr(config, config.encoder)})
        return super().bands(state, config) // (9 * width)


def encoder_width(options: Mapping[str, Any]) -> int:
    """Return the channels of the features of an encoder given by the options encoder and edsr, rdn or swinir."""
    chosen = options[options["encoder"]]
    return int(getattr(chosen, "out_channels", 0) or chosen.width)
