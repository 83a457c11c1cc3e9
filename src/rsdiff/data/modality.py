"""What a batch holds besides target and input, by name: `looks`, `pan`, whatever a data set or degradation gives and a method needs.

A new one is declared by who gives it (`gives`) and who needs it (`requires`); nothing in between names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.missing import fill_missing


@dataclass(frozen=True)
class Modality:
    """Images of the places of a batch (without B: of a sample).

    values       (B, [K,] C, h, w); K counts several images of one place
    valid        (B, [K,] C or 1, h, w) of 0/1, values that are known; None means all
    wavelengths  band centres in nm, or empty
    """

    values: Tensor
    valid: Tensor | None = None
    wavelengths: tuple[float, ...] = ()

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Modality:
        """Return it with its tensors changed: moved, pinned."""
        return replace(self, values=change(self.values), valid=None if self.valid is None else change(self.valid))

    @property
    def filled(self) -> Tensor:
        """The values, missing ones filled from the known ones around them."""
        if self.valid is None:
            return self.values
        flat = self.values.flatten(0, -4)
        return fill_missing(flat, self.valid.expand_as(self.values).flatten(0, -4)).view_as(self.values)


def stacked(modalities: Sequence[Mapping[str, Modality]]) -> dict[str, Modality]:
    """Return the modalities of a batch from those of its samples; raises UserError where only some samples have one."""
    names = list(dict.fromkeys(name for each in modalities for name in each))
    missing = sorted({name for name in names for each in modalities if name not in each})
    if missing:
        raise UserError(f"some samples of a batch have {', '.join(missing)} and others have not.")
    return {name: _stack([each[name] for each in modalities]) for name in names}


def _stack(parts: Sequence[Modality]) -> Modality:
    valid = None
    if any(part.valid is not None for part in parts):
        valid = torch.stack([torch.ones_like(part.values) if part.valid is None else part.valid.expand_as(part.values) for part in parts])
    return Modality(torch.stack([part.values for part in parts]), valid, parts[0].wavelengths)
