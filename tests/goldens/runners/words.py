"""Inputs that a case describes in a sentence ("fill.image('lr', (2, 3, 12, 10), salt=0): LR image") instead of storing them."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from .. import fill
from ..case import Case

DRAW = re.compile(r"fill\.(image|noise)\('(\w+)',\s*\(([\d, ]+)\)(?:,\s*(?:salt=)?(\d+))?\)(?:/sqrt\((\d+)\))?")


def drawn(words: str) -> np.ndarray:
    """Return the first draw that `words` names, divided as they say."""
    match = DRAW.search(words)
    assert match, f"no draw in {words!r}"
    maker = fill.image if match[1] == "image" else fill.noise
    values = maker(match[2], tuple(int(n) for n in match[3].split(",") if n.strip()), int(match[4] or 0))
    return values / np.float32(np.sqrt(int(match[5]))) if match[5] else values


def given(case: Case, name: str) -> Tensor:
    """Return the input `name`: stored, or drawn as its sentence says."""
    if name in case.arrays:
        return case.tensor(name)
    return torch.from_numpy(np.ascontiguousarray(drawn(case.spec["inputs"][name])))
