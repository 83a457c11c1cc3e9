"""Planted faults: each family of mistakes that a diffusion can have is put in, and the checks of `test_exact` must find it.

A fault is one plausible slip of a line: a wrong constant, a missing factor, an index that is off by one. A check that a fault passes is no
check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.diffusion import (
    edm,
    learned_variance,
    mean_reverting,
    preconditioning,
    sampler,
    schedules,
    solvers,
)
from tests.learning.cases import CASES
from tests.learning.checks import CHECKS

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """A slip, the methods it is planted in, and the checks that must find it."""

    cases: tuple[str, ...]
    found_by: tuple[str, ...]
    plant: Patch


def returned(owner: Any, name: str, change: Callable[[Any], Any]) -> Patch:
    """Return a patch after which owner.name returns something else."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments, **named: change(original(*arguments, **named)))

    return plant


def replaced(owner: Any, name: str, value: Any) -> Patch:
    """Return a patch after which owner.name is something else."""
    return lambda patch: patch.setattr(owner, name, value)


def rule_of(name: str, change: Callable[[float, float], tuple[float, float]]) -> Patch:
    """Return a patch after which steps of a solver's rule go elsewhere."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(solvers, name)

        def made(*arguments: Any) -> Any:
            rule = original(*arguments)
            return lambda sigma, sigma_next: change(*rule(sigma, sigma_next))

        patch.setattr(solvers, name, made)

    return plant


def coefficients(owner: Any, change: Callable[[Any, Tensor], Any]) -> Patch:
    """Return a patch after which a preconditioning has other coefficients."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = owner.coefficients
        patch.setattr(owner, "coefficients", lambda self, sigma: change(original(self, sigma), sigma))

    return plant


def cosine_without_offset(steps: int, start: float, end: float, offset: float) -> Tensor:
    """The cosine schedule with the offset forgotten in one of its places."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos(time * math.pi / 2 * 0.97).square()
    return (1 - curve[1:] / curve[:-1]).clamp(max=0.999)


def swapped_euler_step(self: Any, y: Tensor, sigma: float, sigma_next: float, noise: Any) -> tuple[Tensor, Tensor]:
    """EDiffSR's step with noise of deviation sqrt(tau) in place of sqrt(2 tau)."""
    quieter: Any = _Quieter(noise)
    return ORIGINAL_STEP(self, y, sigma, sigma_next, quieter)


ORIGINAL_STEP = mean_reverting.EulerDenoiser.step


class _Quieter:
    def __init__(self, noise: Any) -> None:
        self.noise = noise

    def normal(self, *arguments: Any) -> Tensor:
        return self.noise.normal(*arguments) / math.sqrt(2)


EDM = edm.EdmPreconditioning
FAULTS: dict[str, Fault] = {
    # Schedules: other levels than the network was trained for, or than the paper trains for.
    "schedule: betas of SR3 for DDPM's": Fault(("ddpm", "diffbsr_ddpm"), ("loss",), returned(schedules, "make_betas", lambda b: 0.5 * b)),
    "schedule: betas a third too large, told levels": Fault(
        ("sr3",), ("samples", "levels"), returned(schedules, "make_betas", lambda b: 1.3 * b)
    ),
    "schedule: the cosine's betas without their 1.5": Fault(
        ("diffbsr",), ("samples", "levels"), returned(schedules, "make_betas", lambda b: b / 1.5)
    ),
    "schedule: cosine without its offset": Fault(
        ("diffbsr_srdiff",), ("loss",), lambda patch: patch.setitem(schedules.BETAS, "cosine", cosine_without_offset)
    ),
    "schedule: drift that leaves 0.05 of the image": Fault(
        ("ediffsr",), ("loss",), returned(mean_reverting.MeanRevertingConfig, "interval", lambda dt: 0.57 * dt)
    ),
    "schedule: EDM's levels around exp(-0.8)": Fault(
        ("edm", "refdiff"), ("levels",), returned(edm.EdmLevels, "sigma", lambda sigma: sigma * math.exp(0.4))
    ),
    "schedule: VP levels even in sigma's logarithm": Fault(
        ("edm_vp",), ("levels",), replaced(preconditioning.VpLevels, "sigma", lambda self, draw: (10 * (draw - 0.5)).exp())
    ),
    "schedule: levels between t and t + 1": Fault(
        ("diffbsr",),
        ("levels",),
        replaced(
            schedules.DiscreteSchedule,
            "signal_between",
            lambda self, step, share: self.signal_levels[step] * (1 - share) + self.signal_levels[(step + 1).clamp(max=len(self))] * share,
        ),
    ),
    # Weighting and targets.
    "weighting: EDM without sigma_data": Fault(("edm", "refdiff"), ("loss",), replaced(edm.EdmLevels, "weight", lambda self, s: 1 / s**2)),
    "weighting: VP of the clean image": Fault(
        ("edm_vp",), ("loss",), replaced(preconditioning.VpLevels, "weight", lambda self, s: torch.ones_like(s))
    ),
    "weighting: VE by 1 / sigma": Fault(("edm_ve",), ("loss",), replaced(preconditioning.VeLevels, "weight", lambda self, s: 1 / s)),
    "weighting: error not squared": Fault(
        ("edm",),
        ("loss",),
        replaced(edm, "weighted_square", lambda clean, target, w: w[:, None, None, None] * (clean - target).abs()),
    ),
    "target: posterior of EDiffSR's step from the wrong spread": Fault(
        ("ediffsr",),
        ("loss",),
        lambda patch: patch.setattr(
            mean_reverting.ReverseMeans,
            "between",
            classmethod(lambda cls, sigma, sigma_next, rule: wrong_posterior(sigma, sigma_next, rule)),
        ),
    ),
    # Preconditioning.
    "preconditioning: c_skip of another sigma_data": Fault(
        ("edm",), ("samples", "loss"), coefficients(EDM, lambda c, s: c._replace(skip=0.36 / (s**2 + 0.36)))
    ),
    "preconditioning: c_out without sigma_data": Fault(
        ("edm", "refdiff"), ("samples", "loss"), coefficients(EDM, lambda c, s: c._replace(out=s / (s**2 + 0.25).sqrt()))
    ),
    "preconditioning: c_in forgotten": Fault(
        ("edm",), ("samples", "loss"), coefficients(EDM, lambda c, s: c._replace(into=torch.ones_like(s)))
    ),
    "preconditioning: c_noise halved": Fault(("edm",), ("loss",), coefficients(EDM, lambda c, s: c._replace(noise=s.log() / 8))),
    "preconditioning: VP time in 1000 steps": Fault(
        ("edm_vp",),
        ("loss",),
        coefficients(preconditioning.VpPreconditioning, lambda c, s: c._replace(noise=c.noise * 1.02)),
    ),
    "preconditioning: VE told ln(sigma)": Fault(
        ("edm_ve",), ("loss",), coefficients(preconditioning.VePreconditioning, lambda c, s: c._replace(noise=s.log()))
    ),
    "preconditioning: noise prediction scaled by a": Fault(
        ("sr3", "diffbsr_srdiff"),
        ("samples",),
        replaced(schedules, "clean_of", lambda prediction, y, sigma, output: y - sigma / (1 + sigma**2).sqrt() * output),
    ),
    "preconditioning: state not scaled": Fault(
        ("blindsrsnf", "diffbsr"),
        ("samples",),
        replaced(schedules, "variance_preserving_scale", lambda sigma: torch.ones_like(sigma.double())),
    ),
    # Samplers.
    "sampler: ancestral noise added on top": Fault(
        ("blindsrsnf", "sr3"), ("samples",), rule_of("ddim_rule", lambda down, up: (math.hypot(down, up), up))
    ),
    "sampler: ancestral noise left out": Fault(
        ("diffbsr", "diffbsr_srdiff"), ("samples",), rule_of("ddpm_rule", lambda down, up: (down, 0.0))
    ),
    "sampler: variance beta for the posterior's": Fault(
        ("diffbsr",), ("samples",), rule_of("ddpm_rule", lambda down, up: (down, 1.2 * up))
    ),
    "sampler: Heun's correction left out": Fault(("edm",), ("samples",), lambda patch: patch.setattr(edm, "heun", without_correction)),
    "sampler: the level before churn is told": Fault(
        ("refdiff",), ("samples",), replaced(edm, "evaluate", lambda denoiser, y, sigma: solvers.evaluate(denoiser, y, sigma / 1.15))
    ),
    "sampler: grid with rho 3": Fault(
        ("edm",), ("samples",), lambda patch: patch.setattr(solvers, "edm_levels", with_rho(solvers.edm_levels))
    ),
    "sampler: levels picked one place off": Fault(
        ("sr3", "blindsrsnf"),
        ("samples",),
        returned(solvers, "table_indices", lambda indices: [index + 25 if index else 0 for index in indices]),
    ),
    "sampler: Euler-Maruyama with half the variance": Fault(
        ("ediffsr",), ("samples",), replaced(mean_reverting.EulerDenoiser, "step", swapped_euler_step)
    ),
    "sampler: learned variances the wrong way round": Fault(
        ("blinddiff",), ("samples",), lambda patch: patch.setattr(learned_variance.ReverseSteps, "log_variance", inverted_variance)
    ),
    "sampler: start without noise": Fault(("edm",), ("samples",), returned(sampler, "start_state", lambda y: 0.9 * y)),
}


def wrong_posterior(sigma: Tensor, sigma_next: Tensor, rule: Any) -> Any:
    """EDiffSR's coefficients with the posterior's clean part divided by the level before."""
    means = ORIGINAL_MEANS(sigma, sigma_next, rule)
    return mean_reverting.ReverseMeans(
        means.drift, means.euler_state, means.euler_noise, means.posterior_state, 1.2 * means.posterior_clean
    )


ORIGINAL_MEANS = mean_reverting.ReverseMeans.between
ORIGINAL_HEUN = edm.heun


def without_correction(denoiser: Any, grid: Tensor, y: Tensor, noise: Any, *, alpha: float, **named: Any) -> Tensor:
    """Heun's method that keeps the first slope."""
    return edm.euler(denoiser, grid, y, noise, **named)


def with_rho(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """EDM's grid with another exponent."""
    return lambda steps, low, high, rho=7.0: original(steps, low, high, rho=3.0)


def inverted_variance(self: Any, channels: Tensor) -> Tensor:
    """Learned variances with the two bounds exchanged."""
    share = (1 - channels) / 2
    beta, posterior = (values.reshape(-1, 1, 1, 1) for values in (self.log_beta, self.log_posterior))
    return share * beta + (1 - share) * posterior


def planted() -> list[Any]:
    """Return (fault, case, check); all but the first of a fault are slow."""
    listed = []
    for name, fault in FAULTS.items():
        for index, (case, check) in enumerate(product(fault.cases, fault.found_by)):
            listed.append(pytest.param(name, case, check, id=f"{name}-{case}-{check}", marks=[pytest.mark.slow] if index else []))
    return listed


@pytest.mark.parametrize(("name", "case", "check"), planted())
def test_planted_fault_is_found(name: str, case: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name].plant(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[check](CASES[case])
