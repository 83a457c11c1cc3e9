"""HAT as a trained regression around spandrel's network, and its released files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.regression import HATConfig
from rsdiff.methods.spandrel import SpandrelConfig
from rsdiff.weights import export_weights, import_weights
from tests.method_losses import losses_of
from tests.unit.test_rrdb import batch_of, method_of, problem

SMALL = HATConfig(width=12, blocks=(2, 1), heads=(2, 3), window=4, compression=4, squeeze=6, conv_scale=0.01, drop_path=0.0)
SAMPLER, NO_NOISE = SamplerConfig(), ReplayNoise([])


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_every_scale_of_the_head_restores_any_number_of_bands_and_any_size(scale: int) -> None:
    image = method_of(SMALL, scale, bands=4).eval().restore(batch_of(scale, (9, 14), bands=4), SAMPLER, NO_NOISE)
    assert image.shape == (2, 4, 9 * scale, 14 * scale)


def test_what_the_head_cannot_make_is_one_sentence() -> None:
    assert "set scale=2, 3, 4 or 8" in str(SMALL.refuse(problem(scale=6)))
    assert "enlarges by whole numbers" in str(SMALL.refuse(Problem(scale=2.5, bands=3, lr_bands=3)))
    assert "as many bands as it is given" in str(SMALL.refuse(Problem(scale=1, bands=31, lr_bands=3)))
    assert SMALL.refuse(problem(scale=8)) is None
    with pytest.raises(ValueError, match=r"trainer\.patch as a multiple of 16"):
        losses_of(method_of(SMALL), batch_of(lr_size=(6, 8)), NO_NOISE)


@pytest.mark.parametrize("wrong", [{"blocks": (2,)}, {"width": 13}, {"overlap": 0.3}, {"squeeze": 24}, {"drop_path": 1.0}])
def test_settings_that_make_no_network_are_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choose|give"):
        replace(SMALL, **wrong)


def test_training_lowers_the_error_of_every_parameter_that_it_uses() -> None:
    method, batch = method_of(SMALL), batch_of()
    first = losses_of(method, batch, NO_NOISE).total
    first.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-3)
    for _ in range(5):
        optimiser.step()
        optimiser.zero_grad()
        last = losses_of(method, batch, NO_NOISE).total
        last.backward()
    assert last < first


def test_a_released_file_tells_its_network_and_restores_like_spandrel_s(tmp_path: Path) -> None:
    method = method_of(SMALL).eval()
    file = tmp_path / "hat.pth"
    torch.save({"params_ema": export_weights("hat", SMALL, method.state_dict())}, file)
    config, state = import_weights("hat", file)
    assert replace(config, drop_path=0.0) == SMALL
    again = method_of(config).eval()
    again.load_state_dict(state)
    batch = batch_of(lr_size=(16, 20))  # spandrel extends smaller images, which the channel attention sees
    ours = again.restore(batch, SAMPLER, NO_NOISE)
    assert torch.equal(ours, method.restore(batch, SAMPLER, NO_NOISE))
    theirs = SpandrelConfig(weights=str(file)).build(problem()).restore(batch, SAMPLER, NO_NOISE)
    torch.testing.assert_close(theirs, ours.clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_index_tables_may_be_missing_and_must_be_right() -> None:
    published = export_weights("hat", SMALL, method_of(SMALL).state_dict())
    table = published.pop("relative_position_index_OCA")
    _, state = import_weights("hat", published)
    assert torch.equal(state["network.relative_position_index_OCA"], table)
    with pytest.raises(ValueError, match="relative_position_index_OCA"):
        import_weights("hat", published | {"relative_position_index_OCA": table + 1})
    with pytest.raises(ValueError, match="shape"):
        import_weights("hat", published, replace(SMALL, width=24))
