"""LIIF's and MetaSR's released checkpoints, {"model": {"name", "args", "sd"}}, and the encoders they share with later methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rsdiff.methods.base import Problem
from rsdiff.methods.continuous import LIIFConfig, MetaSRConfig
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.rdn import RDNConfig
from rsdiff.weights.keymaps.renaming import Name, Rule, ours_from_published, published_from_ours, renamed

DEAD = (r"encoder\.(sub|add)_mean\.(weight|bias)",)
RDN_RULES: tuple[Rule, ...] = (
    (r"^shallow(\d)\.", r"SFENet\1."),
    (r"^dense\.(\d+)\.convs\.(\d+)\.", r"RDBs.\1.convs.\2.conv.0."),
    (r"^dense\.(\d+)\.fuse\.", r"RDBs.\1.LFF."),
    (r"^fuse\.", "GFF."),
)


def edsr_name(blocks: int) -> Name:
    """Return the naming of an EDSR encoder with so many blocks."""
    rules: tuple[Rule, ...] = (
        (r"^head\.", "head.0."),
        (r"^body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"^body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"^tail\.", f"body.{blocks}."),
    )
    return lambda key: renamed(key, rules)


def rdn_name(key: str) -> str:
    """Return the published name of a parameter of RDN."""
    return renamed(key, RDN_RULES)


def encoder_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options encoder, edsr or rdn that the shapes of a published state dict under 'encoder.' tell."""
    if "encoder.SFENet1.weight" in state:
        layers = _numbers(state, r"encoder\.RDBs\.0\.convs\.(\d+)\.")
        first = state["encoder.RDBs.0.convs.0.conv.0.weight"]
        blocks = _numbers(state, r"encoder\.RDBs\.(\d+)\.")
        return {"encoder": "rdn", "rdn": RDNConfig(width=first.shape[1], blocks=blocks, layers=layers, growth=first.shape[0])}
    if "encoder.head.0.weight" not in state:
        raise ValueError("the file has neither an EDSR nor an RDN encoder; choose the model it belongs to.")
    blocks = _numbers(state, r"encoder\.body\.(\d+)\.") - 1
    return {"encoder": "edsr", "edsr": EDSRConfig(width=state["encoder.head.0.weight"].shape[0], blocks=blocks)}


def _numbers(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))


@dataclass(frozen=True)
class QueryKeyMap:
    """The `KeyMap` of LIIF and of MetaSR."""

    model: Literal["liif", "metasr"]

    def to_ours(
        self, content: Mapping[str, Any], config: LIIFConfig | MetaSRConfig | None
    ) -> tuple[LIIFConfig | MetaSRConfig, dict[str, Tensor]]:
        arguments, published = self._unwrapped(content)
        config = config or self._config(arguments, published)
        bands, lr_bands = self._bands(published, config)
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=lr_bands)).state_dict()
        return config, ours_from_published(published, own, self._name(config), DEAD)

    def to_published(self, config: LIIFConfig | MetaSRConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean shifts of EDSR, which nothing applies, are left out."""
        return published_from_ours(state_dict, self._name(config))

    def _unwrapped(self, content: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """Return (constructor arguments, state dict); a bare state dict has no arguments."""
        inner = content.get("model", content)
        if isinstance(inner, Mapping) and "sd" in inner:
            if inner.get("name") != self.model:
                raise ValueError(f"the file holds a model '{inner.get('name')}' and model {self.model} was chosen; choose the other.")
            return inner.get("args", {}), dict(inner["sd"])
        return {}, {key: value for key, value in inner.items() if isinstance(value, Tensor)}

    def _config(self, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> LIIFConfig | MetaSRConfig:
        options = encoder_options(state)
        linear = sorted((int(found[1]), key) for key in state if (found := re.match(r"imnet\.layers\.(\d+)\.weight", key)))
        hidden = tuple(state[key].shape[0] for _, key in linear[:-1])
        if self.model == "metasr":
            return MetaSRConfig(hidden=hidden, **options)
        inputs, width = state[linear[0][1]].shape[1], options[options["encoder"]].width
        unfold = bool(arguments.get("feat_unfold", inputs >= 9 * width))
        cell = bool(arguments.get("cell_decode", inputs == width * (9 if unfold else 1) + 4))
        return LIIFConfig(hidden=hidden, unfold=unfold, cell=cell, ensemble=bool(arguments.get("local_ensemble", True)), **options)

    def _bands(self, state: Mapping[str, Tensor], config: LIIFConfig | MetaSRConfig) -> tuple[int, int]:
        first = "encoder.head.0.weight" if config.encoder == "edsr" else "encoder.SFENet1.weight"
        if first not in state:
            raise ValueError(f"the file has no encoder {config.encoder}; set model.encoder to the other one.")
        last: Sequence[str] = sorted(
            (key for key in state if re.match(r"imnet\.layers\.\d+\.weight", key)), key=lambda k: int(k.split(".")[2])
        )
        outputs = state[last[-1]].shape[0]
        width = config.edsr.width if config.encoder == "edsr" else config.rdn.width
        return outputs // (9 * width) if self.model == "metasr" else outputs, state[first].shape[1]

    def _name(self, config: LIIFConfig | MetaSRConfig) -> Name:
        encoder = edsr_name(config.edsr.blocks) if config.encoder == "edsr" else rdn_name

        def name(key: str) -> str:
            part, _, rest = key.partition(".")
            return f"encoder.{encoder(rest)}" if part == "encoder" else rest.replace("mlp.", "imnet.", 1)

        return name
