"""Every diffusion with a perfect network: published objective and published sampler, with the degradation's own posterior.

No training: what these find wrong is wrong in schedule, weighting, target, preconditioning or sampler. `tests.learning.test_faults` plants
such faults and asks these checks to find them.
"""

from __future__ import annotations

import pytest

from tests.learning.cases import CASES, LONG_RUNS
from tests.learning.checks import check_levels, check_loss, check_samples

LISTED = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG_RUNS else []) for name in CASES]


@pytest.mark.parametrize("name", LISTED)
def test_published_sampler_draws_from_the_posterior(name: str) -> None:
    check_samples(CASES[name])


@pytest.mark.parametrize("name", LISTED)
def test_published_loss_of_a_perfect_network_is_the_bayes_error_and_the_least(name: str) -> None:
    check_loss(CASES[name])


@pytest.mark.parametrize("name", LISTED)
def test_training_levels_follow_the_published_law(name: str) -> None:
    check_levels(CASES[name])
