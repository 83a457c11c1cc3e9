"""Every option, set to another legal value, changes the result, or is refused, or is known not to: then it is no part of what a run is."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.preconditioning import EdmDenoiser, EdmPreconditioning
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig, make_betas
from rsdiff.runs.identity import settings_of
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig
from rsdiff.training.learning_rate import learning_rate_factor
from tests.unit.test_trainer import options, trainer_of

OTHER: dict[str, list[Any]] = {
    "sigmas": [(50.0, 3.0, 0.2)],
    "milestones": [(1, 4)],
    "gammas": [(0.1,), (0.1, 0.3)],
    "periods": [(3, 7)],
    "restart_weights": [(0.5,), (0.5, 0.25)],
    "decays": [(0.9,)],
    "half_lives_images": [(3,)],
    "betas": [(0.99, 0.5)],
    "eps": [0.1],
    "ramp_up": [None, 1.0],
    "start_step": [5],
    "churn_min": [1.0],
    "churn_max": [1.0],
    "rho": [3.0],
}
"""Other values of options whose legal ones do not follow from their type."""
ALIKE = {("grid", "table"), ("solver", "euler"), ("solver", "ddim")}
"""grid=model is the table of a model that has one; Euler's step along sigma is DDIM's."""


def others(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield (option, another value) for every option of a config."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if field.name in OTHER:
            values = OTHER[field.name]
        elif typing.get_origin(hint) is Literal:
            values = list(typing.get_args(hint))
        elif isinstance(value, bool):
            values = [not value]
        elif isinstance(value, int):
            values = [value + 1, value + 3]
        else:
            values = [value / 2, value + 0.3]
        yield from ((field.name, other) for other in values if other != value)


def require_effects(base: Any, effect: Callable[[Any], Any]) -> int:
    """Require of every option of `base` what the module says; return how many changed something."""
    before, changed = effect(base), 0
    for option, value in others(base):
        try:
            other = dataclasses.replace(base, **{option: value})
            after = effect(other)
        except UserError:
            continue
        is_part = settings_of(other) != settings_of(base)
        if is_part:
            assert (option, value) in ALIKE or after != before, f"{option}={value} of {base} changes the run's name and nothing else"
            changed += after != before
        else:
            assert after == before, f"{option}={value} of {base} changes the result and not the run's name"
    return changed


def sampled(config: SamplerConfig) -> tuple[list[float], int]:
    """Return an image and how many numbers were drawn for it, from the denoiser that the config's grid asks for."""
    drawn = 0

    class Counted(SeededNoise):
        def normal(self, *given: Any, **named: Any) -> Tensor:
            nonlocal drawn
            drawn += 1
            return super().normal(*given, **named)

    def predict(x: Tensor, time: Tensor) -> Tensor:
        return 0.5 * x * time.reshape(-1, 1, 1, 1)

    table = DiscreteSchedule(make_betas("linear", 64, 1e-4, 0.3))
    is_continuous = config.grid not in ("model", "table")
    denoiser: Any = EdmDenoiser(lambda x, time: 0.1 * x, EdmPreconditioning()) if is_continuous else DiscreteDenoiser(predict, table)
    denoiser.data_range = (-0.1, 0.1)
    image = sample(config, denoiser, (1, 1, 2, 2), Counted([("a",)]), device="cpu", image=torch.full((1, 1, 2, 2), 0.4))
    return image.flatten().tolist(), drawn


SAMPLERS: list[dict[str, Any]] = [
    {"solver": "ddpm", "steps": 6},
    {"solver": "ddim", "eta": 0.5, "steps": 6, "spacing": "strided"},
    {"solver": "ddim", "steps": 6, "spacing": "strided", "stride": 11},
    {"solver": "euler", "grid": "edm", "steps": 5, "start": "edm"},
    {"solver": "heun", "grid": "edm", "steps": 5, "start": "edm", "churn": 0.8, "churn_min": 0.05, "churn_max": 50.0},
    {"solver": "ddim", "grid": "list", "sigmas": (40.0, 4.0, 0.4)},
    {"solver": "dpmpp_2m", "grid": "ve", "steps": 5},
    {"solver": "ddim", "steps": 5, "start": "image_vp", "start_deviation": 0.5},
]


@pytest.mark.parametrize("given", SAMPLERS, ids=lambda given: f"{given['solver']}-{given.get('grid', given.get('stride', 'model'))}")
def test_every_option_of_a_sampler(given: dict[str, Any]) -> None:
    assert require_effects(SamplerConfig(**given), sampled) > 5


@pytest.mark.parametrize("name", typing.get_args(typing.get_type_hints(ScheduleConfig)["name"]))
def test_every_option_of_a_schedule(name: Any) -> None:
    base = ScheduleConfig(name=name, steps=20, start=0.001, end=0.4)
    assert require_effects(base, lambda config: make_betas(config.name, config.steps, config.start, config.end, config.offset).tolist()) > 1


RATES = [{}, {"shape": "multistep", "milestones": (2, 5)}, {"shape": "cosine"}, {"shape": "cosine_restarts", "periods": (4, 6)}]


@pytest.mark.parametrize("given", RATES, ids=lambda given: given.get("shape", "constant"))
def test_every_option_of_the_learning_rate(given: dict[str, Any]) -> None:
    def curve(config: LearningRateConfig) -> list[float]:
        return [learning_rate_factor(config, step, step, 10) for step in range(10)]

    assert require_effects(LearningRateConfig(**given), curve)


AVERAGES: list[dict[str, Any]] = [
    {"rule": "constant", "decays": (0.5,)},
    {"rule": "rising", "decays": (0.45,)},
    {"rule": "half_life", "half_lives_images": (2,), "ramp_up": 0.7},
    {},
]


@pytest.mark.parametrize("given", AVERAGES, ids=lambda given: given.get("rule", "off"))
def test_every_option_of_the_averages(given: dict[str, Any], tmp_path: Path) -> None:
    def trained(config: EmaConfig) -> list[float]:
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        trainer_of(run, options(ema=config, steps=8, save_every_steps=8, validate_every_steps=0)).fit()
        return [float(weights["weight"]) for weights in read_checkpoint(run).averages]

    require_effects(EmaConfig(**given), trained)


@pytest.mark.parametrize("algorithm", ["adam", "adamw", "lion", "sgd"])
def test_every_option_of_an_optimiser(algorithm: Any, tmp_path: Path) -> None:
    def trained(config: OptimiserConfig) -> float:
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        trainer_of(run, options(optimiser=config, steps=12, save_every_steps=12, validate_every_steps=0)).fit()
        return float(read_checkpoint(run).weights["weight"])

    assert require_effects(OptimiserConfig(algorithm=algorithm, lr=0.5, weight_decay=0.1), trained) > 2
