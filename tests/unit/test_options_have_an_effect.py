"""Every option, set to another legal value, changes the result, or is refused, or is known not to: then it is no part of what a run is."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.diffusion.edm import EdmDenoiser, EdmPreconditioning
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig, make_betas
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig
from rsdiff.training.learning_rate import learning_rate_factor
from tests.effects import require_effects
from tests.unit.test_trainer import options, trainer_of


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
