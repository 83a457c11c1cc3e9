"""Quantiles of the errors of a regression: what a fresh head says, what a trained one learns, and how they are scored."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from hydra import compose
from torch import Tensor

from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of
from rsdiff.app.schemas import register_schemas
from rsdiff.config import UserError, plain_values
from rsdiff.data.modality import Modality
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.draws import in_turn
from rsdiff.methods import METHODS
from rsdiff.methods.base import MethodConfig, Problem, Stage
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.methods.residual_quantiles import INITIAL_SPREAD, ResidualQuantiles, ResidualQuantilesConfig
from rsdiff.metrics import MetricsConfig
from rsdiff.metrics.uncertainty import crps
from rsdiff.networks.encoder_heads import EDSRNetConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.weights import export_weights
from tests.conftest import REPOSITORY

CONF = REPOSITORY / "conf"
NOISE = SeededNoise([(0,)], shared=(0,))
STAGE = Stage("train", ("restorer",))


def fresh() -> ResidualQuantiles:
    torch.manual_seed(0)
    small = EDSRNetConfig(width=12, blocks=1)
    options = ResidualQuantilesConfig(network=small, base=EnlargedConfig(), head=EDSRNetConfig(width=16, blocks=1))
    return ResidualQuantiles(options, Problem(2, 1, 1))


def batch_of(lr: Tensor, hr: Tensor | None = None) -> Batch:
    h, w = lr.shape[-2:]
    return Batch([SampleMeta(str(index)) for index in range(len(lr))], (2 * h, 2 * w), (h, w), lr=lr, hr=hr)


def at(method: ResidualQuantiles, level: float, batch: Batch) -> Tensor:
    return method.at_level(level).restore(batch, SamplerConfig(), NOISE)


def test_a_fresh_head_says_a_normal_distribution_around_the_image_at_every_level() -> None:
    method, batch = fresh().eval(), batch_of(torch.rand(2, 1, 8, 10))
    image = method.restore(batch, SamplerConfig(), NOISE)
    for level in (0.01, 0.05, 0.2, 0.5, 0.6, 0.95, 0.99):
        expected = image + INITIAL_SPREAD * NormalDist().inv_cdf(level)
        torch.testing.assert_close(at(method, level, batch), expected, atol=1e-6, rtol=0)
    assert [one.level for one in in_turn((method,), 4)] == [0.125, 0.375, 0.625, 0.875]  # type: ignore[attr-defined]
    assert [one.level for one in in_turn((method, method), 3)] == [0.25, 0.5, 0.75]  # type: ignore[attr-defined]
    assert in_turn((method,), 1) == (method,)
    for wrong in ((0.5,), (0.25, 0.75), (0.5, 0.25), (0.0, 0.5)):
        with pytest.raises(UserError, match="give two or more ascending levels between 0 and 1"):
            ResidualQuantilesConfig(quantiles=wrong)


def test_the_head_learns_errors_that_differ_from_pixel_to_pixel_and_leaves_the_regression_alone() -> None:
    method, generator = fresh().train(), torch.Generator().manual_seed(1)
    kept = {name: value.clone() for name, value in method.state_dict().items() if not name.startswith("head.")}

    def drawn(count: int) -> tuple[Batch, Tensor]:
        """Return images whose errors are normal, of the deviation of their pixel and off by half of it."""
        lr = torch.nn.functional.interpolate(torch.rand(count, 1, 4, 4, generator=generator), (8, 8), mode="nearest")
        image, deviation = method.regression.images.estimate(lr).detach(), 0.02 + 0.1 * torch.nn.functional.interpolate(lr, (16, 16))
        return batch_of(lr, image + deviation * (0.5 + torch.randn(image.shape, generator=generator))), deviation

    optimiser = torch.optim.Adam(method.groups()["restorer"], lr=8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        method.losses(drawn(8)[0], STAGE, NOISE)["restorer"].total.backward()
        optimiser.step()
        schedule.step()
    method.eval()
    batch, deviation = drawn(16)
    image = method.restore(batch, SamplerConfig(), NOISE)
    ends = [(at(method, level, batch) - image) / deviation for level in (0.05, 0.5, 0.95)]
    for found, score in zip(ends, (-1.645, 0.0, 1.645), strict=True):
        assert float(found.mean()) == pytest.approx(0.5 + score, abs=0.08), score
        assert float((found - 0.5 - score).square().mean().sqrt()) < 0.3, score  # of deviations between 0.02 and 0.12
    for name, value in kept.items():
        assert torch.equal(value, method.state_dict()[name]), name


STEPS = 150


def regressions(file: Path) -> dict[str, MethodConfig]:
    """The smallest config of every kind of method that restores without drawing."""
    register_schemas()
    plain = RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1))
    torch.save({"params_ema": export_weights("rrdb", plain, plain.build(Problem(4, 3, 3)).state_dict())}, file)
    names, files = {"hat": "hat_l_tiny"}, options_of(CONF / "model")
    found = {}
    with composing(CONF):
        for kind in METHODS:
            if not METHODS[kind].samples:
                name = names.get(kind) or next(n for n in (f"{kind}_tiny", f"{kind}_quick", kind) if n in files)
                more = [f"model.weights={file}"] if kind == "spandrel" else []
                found[kind] = group_config(compose(CONFIG_NAME, [f"model={name}", *more]), "model")
    return found


def test_every_regression_is_taught_its_errors_and_restores_as_before(tmp_path: Path) -> None:
    head, tried = EDSRNetConfig(width=8, blocks=1), set()
    for kind, own in regressions(tmp_path / "x4.pth").items():
        options = ResidualQuantilesConfig(regression={"kind": kind, **plain_values(own)}, head=head)
        bands = 8 if kind == "awan" else 3
        problem = Problem(own.usual_scale, bands, bands)
        if kind == "residual_quantiles":
            assert "has a spread of its own" in str(options.refuse(problem))
            continue
        assert options.refuse(problem) is None, kind
        torch.manual_seed(0)
        method, alone = options.build(problem).train(), own.build(problem).eval()
        method.begin_from(alone.state_dict())
        scale = 2.5 if own.any_scale else own.usual_scale
        side, size = 16, (round(16 * scale), round(16 * scale))
        like = torch.rand(1, bands, *size)
        looks = {"looks": Modality(torch.rand(1, 2, bands, side, side))} if kind == "highresnet" else {}
        lr, mask = torch.rand(1, bands, side, side), torch.zeros(1, 1, *size)
        batch = Batch([SampleMeta("a")], size, (side, side), lr=lr, hr=like, ref=like.flip(2), change_mask=mask, modalities=looks)
        method.losses(batch, STAGE, NOISE)["restorer"].total.backward()
        assert all(parameter.grad is None for parameter in method.regression.parameters()), kind
        assert any(parameter.grad is not None for parameter in method.head.parameters()), kind
        image = method.eval().restore(batch, SamplerConfig(), NOISE)
        assert torch.equal(image, alone.restore(batch, SamplerConfig(), NOISE)), kind
        torch.testing.assert_close(at(method, 0.95, batch) - image, torch.full_like(image, 1.644854 * INITIAL_SPREAD), atol=1e-5, rtol=0)
        tried.add(kind)
    assert {"sadn", "liif", "lte", "hat", "dasr", "drsr", "danv2", "dcls", "spandrel", "mstpp", "spectral_linear", "esrgan"} <= tried
    drawn = ResidualQuantilesConfig(regression={"kind": "sr3"}, head=head)
    assert "it learns the errors of regressions, and 'sr3' has" in str(drawn.refuse(Problem(4, 3, 3)))


def test_the_head_sees_the_lr_where_its_own_pixels_lie() -> None:
    """Of a ramp, at a scale that does not divide the target; beside the last pixel's centre the border goes on."""
    options = ResidualQuantilesConfig(regression={"kind": "bicubic"}, head=EDSRNetConfig(width=4, blocks=1))
    method = options.build(Problem(4, 1, 1))
    lr = ((torch.arange(10.0) + 0.5) / 10).expand(1, 1, 10, 10)
    found = method.on_grid(lr, (7, 7), (25, 25))[0, 0, 0]
    centres = (torch.arange(7) * 4 + 2) / 25
    torch.testing.assert_close(found, centres.clamp(0.05, 0.95), atol=1e-6, rtol=0)
    assert method.on_grid(lr, (10, 10), (40, 40)) is lr


def test_an_image_has_ascending_quantiles_whatever_the_head_answers() -> None:
    method = fresh().eval()
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.normal_(0, 0.5)
        lr = torch.rand(1, 1, 8, 8)
        found = method.residuals(lr, method.regression.images.estimate(lr))
    assert (found.diff(dim=0) >= 0).all()
    assert float(found.std()) > INITIAL_SPREAD


@pytest.mark.parametrize("count", [8, 16])
def test_quantiles_of_the_right_distribution_are_found_right(count: int) -> None:
    generator = torch.Generator().manual_seed(3)
    deviation = 0.02 + 0.1 * torch.rand(1, 1, 200, 200, generator=generator)
    scores = torch.tensor([NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)])
    levels = 0.5 + scores.view(-1, 1, 1, 1, 1) * deviation
    hr = 0.5 + deviation * torch.randn(deviation.shape, generator=generator)
    batch = batch_of(torch.zeros(1, 1, 100, 100), hr)
    evaluator = MetricsConfig(metrics=("psnr",), baseline=False).for_samples(are_quantiles=True).build(1, samples=count, are_quantiles=True)
    (row,) = evaluator.rows(batch, levels[0], 0.0, levels)
    assert float(row["crps"]) == pytest.approx(float(deviation.mean()) / math.sqrt(math.pi), rel=0.02)
    assert float(row["spread_skill"]) == pytest.approx(1, abs=0.03)
    assert float(row["coverage"]) == pytest.approx(0.9, abs=0.01)
    assert not [name for name in row if "octave" in name]
    pinball = sum((2 * torch.maximum(u * (hr - q), (u - 1) * (hr - q)) for u, q in zip(levels_of(count), levels, strict=True)))
    torch.testing.assert_close(crps(levels[:, 0], hr[0], are_quantiles=True), (pinball[0] / count).double(), atol=1e-6, rtol=0)
    asked = MetricsConfig(metrics=("octave_coverage_1",)).build(1, samples=count, are_quantiles=True)
    assert "quantiles of pixels do not say how neighbours go together" in asked.check()[0]


def levels_of(count: int) -> list[float]:
    return [(index + 0.5) / count for index in range(count)]
