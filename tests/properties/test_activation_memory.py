"""Activations in place: the same losses and gradients to the last bit, and less that is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.degradations import degrade
from tests.properties.trials import TRAINED, losses_and_gradients, trial

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once
LESS = {"danv2_tiny": 0.9, "dcls_tiny": 0.9, "drsr_tiny": 0.9, "diffbsr_tiny": 0.98, "spsr_tiny": 0.98}
"""Methods that are tried in every run, and the share of the bytes kept without it that they keep at most."""


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Count the bytes of the tensors that are saved for the backward pass, each storage once."""
    seen: dict[int, int] = {}
    found: list[int] = []
    keep: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        keep.append(tensor)  # so that no address is used twice
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found
    found.append(sum(seen.values()))


@pytest.mark.parametrize("model", [name if name in LESS else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED])
def test_activations_in_place_change_no_bit_and_keep_less(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = trial(model)
    torch.manual_seed(0)
    batch = degrade(given.batch, given.degradation)
    with kept_bytes() as here:
        found = losses_and_gradients(given.method, batch)
    plain = F.leaky_relu
    monkeypatch.setattr(F, "leaky_relu", lambda x, slope=0.01, inplace=False: plain(x, slope))
    with kept_bytes() as before:
        expected = losses_and_gradients(given.method, batch)
    assert set(found) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert here[0] <= LESS.get(model, 1.0) * before[0], f"{here[0] / before[0]:.3f}"
