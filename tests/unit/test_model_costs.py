"""The costs in the table of models: counted without the products, and extended from few steps, they are those of the whole restoration."""

from __future__ import annotations

import pytest
import torch

from documentation import model_costs
from documentation.model_costs import WithoutProducts, batch_for, cost_of, counted
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_seeded
from rsdiff.inference.memory import count_operations
from rsdiff.methods.base import Problem
from tests.learning.cases import build, published_sampler


@pytest.mark.parametrize(
    ("model", "sampler", "steps"), [pytest.param("sr3_tiny", "sr3_strided", 39, marks=pytest.mark.slow), ("edm_sr_tiny", "edm", 18)]
)
def test_the_operations_of_an_image_are_those_of_all_its_steps(
    model: str, sampler: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_costs, "SIDE", 32)
    problem, options = Problem(4.0, 3, 3), published_sampler(sampler)
    method = build(model, {}, problem)
    found = cost_of(method, problem, options)
    batch = batch_for(problem)

    def restore(chosen: SamplerConfig) -> None:
        with torch.no_grad():
            restore_seeded(method, batch, chosen, 0)

    whole = counted(restore, options)
    assert found.steps == whole.steps == steps
    assert found.operations == whole.operations
    assert found.per_step * (steps - 1) < found.operations <= found.per_step * steps
    assert found.memory > sum(weight.nbytes for weight in method.parameters())


def test_products_are_counted_and_not_computed() -> None:
    layer, image = torch.nn.Conv2d(3, 5, 3, padding=1), torch.ones(1, 3, 8, 8)
    with count_operations() as real:
        expected = layer(image)
    with WithoutProducts(), count_operations() as counted_alone:
        answer = layer(image)
    assert answer.shape == expected.shape
    assert not answer.any()
    assert counted_alone.get_total_flops() == real.get_total_flops() > 0
