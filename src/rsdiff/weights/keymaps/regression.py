"""Released files of the blind regression methods: one flat state dict, at most with DataParallel's `module.` before every key."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, name_of_parts, ours_from_published, published_from_ours, renamed, states_of
from rsdiff.weights.state_dicts import find_state_dict


class RegressionKeyMap:
    """The `KeyMap` of one method; subclasses say how its networks are called and what the shapes of a file say."""

    marker: str
    """A key that every file of the method has."""
    table: tuple[Rule, ...] = ()
    """How the parameters of the method's one network are called."""

    def infer(self, tensors: Mapping[str, Tensor]) -> Any:
        """Return the config a file tells."""
        raise NotImplementedError

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        """Return bands and scale of the file's networks."""
        raise NotImplementedError

    def networks(self, config: Any, problem: Problem) -> dict[str, nn.Module]:
        """Return our prefix -> network with the shapes of `config` (on the meta device)."""
        raise NotImplementedError

    def rules(self, config: Any) -> tuple[Rule, ...]:
        """Return the naming of a network of these sizes."""
        return self.table

    def naming(self, config: Any, keys: Collection[str]) -> Name:
        """Return how entries of our method's state dict are published; `keys` are all of them. Overridden for several networks."""
        rules = self.rules(config)
        return name_of_parts(Part("network.", "", lambda key: renamed(key, rules)))

    def complete(self, tensors: dict[str, Tensor], config: Any | None) -> dict[str, Tensor]:
        """Return the tensors in our shapes, less constants, with what partial files lack."""
        return tensors

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors in the published shapes, with constants."""
        return tensors

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        """See KeyMap."""
        tensors = find_state_dict(content, self.marker).network
        try:
            tensors = self.complete(tensors, config)
            problem = self.problem(tensors)
            made = config if config is not None else self.infer(tensors)
        except KeyError as error:
            raise UserError(f"the file lacks {error}, which this network needs; choose the model the file belongs to.") from None
        with torch.device("meta"):
            own = states_of(self.networks(made, problem))
        return made, ours_from_published(tensors, own, self.naming(made, own))

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap."""
        return self.from_ours(published_from_ours(state_dict, self.naming(config, state_dict)))


def enlargement_of(tensors: Mapping[str, Tensor], prefix: str, width: int) -> int:
    """Return the scale of `shuffle_upscale`, whose layers are published under `prefix` ('Restorer.upscale.' or 'GE.tail.0.')."""
    expansions = [
        tensor.shape[0] // width
        for key, tensor in tensors.items()
        if re.fullmatch(rf"{re.escape(prefix)}\d+\.weight", key) and tensor.shape[0] % width == 0 and tensor.shape[0] > width
    ]
    return math.isqrt(math.prod(expansions))
