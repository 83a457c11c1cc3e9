"""What is asked of a method with a perfect network: its samples, its training levels and its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tests.learning.cases import Case, world
from tests.learning.world import GaussianWorld

GROUPS = 4  # bands of principal axes, from the most to the least uncertain
MEAN_TOLERANCE = 0.22  # of the mean's deviation in its standard errors: 3.7 of its own
MISFIT_TOLERANCE = 0.05
LAW_LIMIT = 1.95  # Kolmogorov and Smirnov's statistic, exceeded once in 1000 when the law holds; seeds are fixed
GAIN, GAIN_TOLERANCE = 0.05, 0.01
DRAWS, BINS, BIN_LIMIT = 800, 20, 43.8  # chi square of 19 degrees of freedom, exceeded once in 1000


@dataclass(frozen=True)
class Samples:
    """Samples beside the posterior, in units of its own deviations; and what the published sampler is worth with a perfect network.

    spread, expected_spread  root mean squared deviation from the true mean, by band of axes: what the LR leaves open comes first
    shift                    deviation of the mean over all targets, relative to its standard error
    misfit, expected_misfit  distance of the degraded samples from the LR, in [0, 1]
    """

    spread: list[float]
    expected_spread: list[float]
    shift: float
    misfit: float
    expected_misfit: float


def samples_of(case: Case) -> Samples:
    """Restore, and compare with the posterior."""
    made, batch = case.restored()
    lr, place = batch.need("lr"), world()
    posterior = place.posterior(lr)
    factor = case.build()[1].space.factor
    kept = case.spread(posterior.variances * factor**2)
    standard = ((made.double().flatten(1) - posterior.mean) @ posterior.axes) / posterior.variances.sqrt()
    misfit = made.double().flatten(1) @ place.operator.T - lr.double().flatten(1)
    seen = (place.operator @ posterior.axes).square() * (posterior.variances * kept.square())
    off = posterior.mean @ place.operator.T - lr.double().flatten(1)
    return Samples(
        spread=[root_mean_square(part) for part in standard.chunk(GROUPS, dim=1)],
        expected_spread=[root_mean_square(part) for part in kept.chunk(GROUPS)],
        shift=float((standard / kept).mean(0).square().mean() * len(made)) ** 0.5,
        misfit=root_mean_square(misfit),
        expected_misfit=float(off.square().mean() + seen.sum(1).mean()) ** 0.5,
    )


def root_mean_square(values: Tensor) -> float:
    """Return the root of the mean square."""
    return float(values.square().mean().sqrt())


def check_samples(case: Case) -> Samples:
    """Assert that the published sampler gives samples of the posterior, as far as it can."""
    found = samples_of(case)
    for band, (spread, expected) in enumerate(zip(found.spread, found.expected_spread, strict=True)):
        assert abs(spread / expected - 1) < case.tolerance, f"band {band}: spread {spread:.3f}, expected {expected:.3f}"
    assert abs(found.shift - 1) < MEAN_TOLERANCE, f"the mean is off by {found.shift:.2f} standard errors"
    assert abs(found.misfit / found.expected_misfit - 1) < MISFIT_TOLERANCE, f"LR misfit {found.misfit}, expected {found.expected_misfit}"
    return found


@dataclass(frozen=True)
class Loss:
    """The published loss of a perfect network, what it must be, and the share of its estimate of the noise at which it is least."""

    mean: float
    expected: float
    best_share: float


def check_loss(case: Case) -> Loss:
    """Assert that a perfect network has the loss of the Bayes error, and that less or more noise than it predicts is worse."""
    losses, levels, network = case.losses()
    assert len(levels) == case.batch * case.batches, "the network was asked more than once for an image"
    place: GaussianWorld = world()
    mean, expected = float(losses.mean()), float(case.expected(place, network.space, levels.double()).mean())
    assert abs(mean / expected - 1) < case.loss_tolerance, f"loss {mean:.5g}, of the Bayes error {expected:.5g}"
    less, more = (float(case.losses(1 + change)[0].mean()) for change in (-GAIN, GAIN))
    assert min(less, more) > mean, f"another share of the best estimate of the noise has a lower loss: {less}, {mean}, {more}"
    best = 1 + GAIN / 2 * (less - more) / (less - 2 * mean + more)  # of the parabola through the three
    assert abs(best - 1) < GAIN_TOLERANCE, f"the loss is least at {best:.3f} of the best estimate of the noise"
    return Loss(mean, expected, best)


def check_levels(case: Case) -> float:
    """Assert that training draws its levels by the published law; return the statistic."""
    size = 1 if case.shared else case.batch
    levels = replace(case, batch=size, batches=DRAWS // size).losses()[1].double()
    found = case.law(levels).sort().values
    middle = (torch.arange(len(found)) + 0.5) / len(found)
    statistic = float((found - middle).abs().max()) * len(found) ** 0.5
    assert statistic < LAW_LIMIT, f"levels are not drawn by the published law: statistic {statistic:.2f}"
    counts, each = torch.histc(found.float(), BINS, 0, 1), len(found) / BINS
    square = float(((counts - each).square() / each).sum())
    assert square < BIN_LIMIT, f"levels are not drawn by the published law: chi square {square:.1f} of {BINS} bins"
    return statistic


CHECKS = {"samples": check_samples, "loss": check_loss, "levels": check_levels}
