"""What several restorations say of what is not known: exact in a Gaussian world, calibrated where they say too little."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.metrics import METRICS, MetricsConfig
from rsdiff.metrics.calibration import LEVELS, Calibration, Pixels, as_drawn, coverages, fitted
from rsdiff.metrics.evaluator import Row
from rsdiff.metrics.uncertainty import UNCERTAINTY, crps, pooled_ratio
from tests.learning.world import GaussianWorld

SAMPLES = 6
WORLD = GaussianWorld(side=16, scale=2, bands=1)


def world_draws(images: int, seed: int, count: int = SAMPLES) -> tuple[Batch, Tensor]:
    """Return images of the world and perfect samples (N, B, C, H, W) of them given their LR."""
    batch = WORLD.batch(images, seed)
    posterior = WORLD.posterior(batch.need("lr"))
    generator = torch.Generator().manual_seed(seed + 1)
    return batch, torch.stack([WORLD.shaped(posterior.sample(generator)) for _ in range(count)])


def scored(batch: Batch, draws: Tensor, calibration: Calibration | None = None, fitted_on: frozenset[str] = frozenset()) -> list[Row]:
    config = replace(MetricsConfig(metrics=("psnr",), baseline=False).for_samples())
    evaluator = config.build(WORLD.bands, samples=len(draws), calibration=calibration, fitted_on=fitted_on)
    return evaluator.rows(batch, draws[0], 0.0, draws)


def column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def test_crps_is_the_fair_pairwise_formula_and_its_mean_does_not_depend_on_the_number_of_draws() -> None:
    draws, hr = torch.randn(5, 2, 6, 7, generator=torch.Generator().manual_seed(0)), torch.randn(2, 6, 7)
    pairs = sum((draws[i] - draws[j]).abs() for i in range(5) for j in range(5)) / (2 * 5 * 4)
    torch.testing.assert_close(crps(draws, hr), ((draws - hr).abs().mean(0) - pairs).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(crps(hr[None].expand(3, -1, -1, -1) + 1, hr), torch.ones_like(hr).double())
    many = torch.randn(8, 200_000, generator=torch.Generator().manual_seed(1))
    for count in (2, 4, 7):  # of a standard normal: 1 / sqrt(pi)
        found = crps(many[:count, None, None], many[7, None, None])
        assert float(found.mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=4 * float(found.std()) / math.sqrt(found.numel()))


def test_perfect_samples_are_found_perfect_in_every_octave_and_at_every_level() -> None:
    batch, draws = world_draws(96, seed=5)
    rows = scored(batch, draws)
    for level in LEVELS:
        shares = column(rows, f"reliability_{round(100 * level)}")
        assert shares.mean() == pytest.approx(level, abs=4 * shares.std() / math.sqrt(len(shares))), level
    for error, spread in (("mean_rmse", "spread"), *((f"error_octave_{k}", f"spread_octave_{k}") for k in (1, 2, 3))):
        ratio = pooled_ratio(column(rows, error).tolist(), column(rows, spread).tolist(), SAMPLES)
        assert ratio == pytest.approx(1, abs=0.03), error
    for name in ["coverage", *(f"octave_coverage_{octave}" for octave in (1, 2, 3))]:
        shares = column(rows, name)
        assert shares.mean() == pytest.approx(0.9, abs=4 * shares.std() / math.sqrt(len(shares))), name
    variance = WORLD.posterior(batch.need("lr")).pixel_variance(torch.full((96,), math.inf, dtype=torch.float64))
    scores = column(rows, "crps")
    assert scores.mean() == pytest.approx(float(variance.sqrt().mean()) / math.sqrt(math.pi), abs=4 * scores.std() / math.sqrt(96))
    assert "coverage" in {metric.name for metric in UNCERTAINTY} <= set(METRICS)


def too_sure(draws: Tensor) -> Tensor:
    """Return draws whose spread is half of what it should be."""
    return draws.mean(0) + 0.5 * (draws - draws.mean(0))


def pixels(batch: Batch, draws: Tensor) -> list[Pixels]:
    error, spread = batch.need("hr") - draws.mean(0), draws.std(0)
    return [Pixels(e.flatten().double().numpy(), s.flatten().double().numpy()) for e, s in zip(error, spread, strict=True)]


def test_calibrated_intervals_hold_on_images_they_were_not_fitted_on() -> None:
    batch, draws = world_draws(40, seed=11)
    calibration = fitted(pixels(batch, too_sure(draws)), SAMPLES)
    batch, draws = world_draws(120, seed=12)
    unseen = pixels(batch, too_sure(draws))
    assert coverages(unseen, as_drawn(SAMPLES))[0.9] < 0.7
    held = coverages(unseen, calibration)
    for level in (0.5, 0.9, 0.95):
        assert level - 0.02 < held[level] < level + 1 / 31 + 0.02, level  # 30 images tell how far the intervals reach
    assert Calibration.from_json(calibration.to_json()) == calibration
    rows = scored(batch, too_sure(draws), calibration, frozenset({batch.metas[0].name}))
    first, second = rows[:2]
    assert float(second["reliability_90"]) == pytest.approx(coverages(unseen[1:2], calibration)[0.9], abs=1e-3)
    assert "coverage" not in first
    assert "reliability_50" not in first
    assert "crps" in first
    assert "coverage" in second


def test_intervals_hold_what_they_name_whatever_the_errors_are_like() -> None:
    generator = np.random.default_rng(0)

    def image() -> Pixels:  # some images are five times harder than others, and the spread knows nothing of it
        return Pixels(generator.standard_cauchy(50) * generator.choice([1, 1, 5]), np.full(50, 0.01))

    held = []
    for _ in range(300):
        calibration = fitted([image() for _ in range(16)], 2)
        unseen = image()
        held.append(np.mean(np.abs(unseen.error) <= calibration.reach(0.9) * calibration.deviation(unseen.spread)))
        assert math.isinf(calibration.reaches[0.95])
    assert np.mean(held) > 0.9 - 3 * np.std(held) / math.sqrt(len(held))
    assert np.mean(held) < 0.99
    with pytest.raises(UserError, match=r"level=0.95 was not calibrated; choose among .*0.9 \(higher levels take more images\)"):
        calibration.reach(0.95)
    with pytest.raises(UserError, match="11 images were given to calibrate on and 12 are needed"):
        fitted([image() for _ in range(11)], 2)


def test_pixels_on_which_all_samples_agree_do_not_widen_the_intervals_of_the_others() -> None:
    generator = np.random.default_rng(1)

    def image() -> Pixels:  # a fifth of it is water, where the samples agree and are a little wrong
        spread = np.where(np.arange(500) < 100, 0.0, 0.01)
        return Pixels(generator.normal(0, 1, 500) * np.hypot(3 * spread, 0.002), spread)

    calibration = fitted([image() for _ in range(24)], 2)
    spread = np.array([0.0, 0.01])
    narrow, wide = calibration.reach(0.9) * calibration.deviation(spread)
    assert 0.002 < narrow < 0.02
    assert 0.03 < wide < 0.07


def test_what_stands_in_missing_pixels_changes_no_judgement() -> None:
    batch, draws = world_draws(2, seed=3)
    valid = torch.ones_like(batch.need("hr"))
    valid[:, :, 3:9, 5:12] = 0
    rows = []
    for value in (0.0, 7.0):
        hidden = torch.where(valid > 0, batch.need("hr"), torch.tensor(value))
        seen = torch.where(valid > 0, draws, torch.tensor(value))
        rows.append(scored(replace(batch, hr=hidden, valid=valid), seen))
    assert rows[0] == rows[1]


def test_metrics_of_draws_are_left_out_where_there_are_none() -> None:
    evaluator = MetricsConfig(metrics=("psnr", "crps")).build(1)
    assert [entry.name for entry in evaluator.unavailable] == ["crps"]
    assert "task.samples=8" in evaluator.check()[0]
    assert as_drawn(SAMPLES).reach(0.9) == pytest.approx(2.015048, abs=1e-6)  # Student's t of five degrees of freedom, 95 %
