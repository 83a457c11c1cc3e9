"""The sampler's options: grids, starts and ends, and the sentences that refuse what cannot work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from rsdiff.config import UserError, config_from_mapping
from rsdiff.config.reading import require_effect
from rsdiff.diffusion import solvers as grids
from rsdiff.diffusion.edm import EdmDenoiser, EdmPreconditioning
from rsdiff.diffusion.fastdpm import fastdpm_betas
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, calls_of, make_levels, require_stable, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig, make_betas

SHAPE = (2, 3, 4, 4)
SHIPPED = sorted((Path(__file__).parents[2] / "conf" / "sampler").glob("*.yaml"))


def predict(x: Tensor, time: Tensor) -> Tensor:
    return 0.5 * x * time.reshape(-1, 1, 1, 1)


def sr3_like(steps: int = 100, **options: Any) -> DiscreteDenoiser:
    return DiscreteDenoiser(predict, DiscreteSchedule(make_betas("linear", steps, 1e-4, 0.1)), **options)


def edm_like() -> EdmDenoiser:
    return EdmDenoiser(lambda x, time: 0.1 * x, EdmPreconditioning())


def noise_of(names: str) -> SeededNoise:
    return SeededNoise([("test", name) for name in names])


CONFIGS: list[dict[str, Any]] = [
    {"solver": "ddpm", "steps": 8},
    {"solver": "ddim", "eta": 0.7, "steps": 8, "clip": True},
    {"solver": "heun", "grid": "edm", "steps": 6, "churn": 4.0, "start": "edm"},
    {"solver": "dpmpp_2m", "steps": 8, "dtype": "float32"},
    {"solver": "unipc", "order": 3, "steps": 8},
    {"solver": "deis", "order": 3, "steps": 8, "clip": True},
    {"solver": "dpmpp_3m", "steps": 20},
]


@pytest.mark.parametrize("options", CONFIGS, ids=lambda options: options["solver"])
def test_an_image_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    config = SamplerConfig(**options)
    together = sample(config, sr3_like(), (3, 3, 4, 4), noise_of("abc"), device="cpu")
    alone = sample(config, sr3_like(), (1, 3, 4, 4), noise_of("b"), device="cpu")
    assert torch.equal(together[1:2], alone)
    assert together.dtype == getattr(torch, config.dtype)


def options_of(path: Path) -> dict[str, Any]:
    """Return the options of a sampler file, with those of the file it inherits from."""
    values = yaml.safe_load(path.read_text())
    inherited: dict[str, Any] = {}
    for name in values.pop("defaults"):
        if name not in ("_self_", "/schema/sampler/solver@_here_"):
            inherited |= options_of(path.with_name(f"{name}.yaml"))
    return inherited | values


@pytest.mark.parametrize("path", [path for path in SHIPPED if options_of(path)["solver"] != "native"], ids=lambda path: path.stem)
def test_shipped_samplers_run_on_a_table_model_and_on_a_continuous_one(path: Path) -> None:
    values = options_of(path)
    assert values.pop("kind") == "solver"
    config = config_from_mapping(SamplerConfig, {**values, "steps": min(values.get("steps", 6), 20)}, "sampler")
    denoisers = [sr3_like(), edm_like()] if config.spacing != "strided" else [sr3_like()]
    image = torch.zeros(SHAPE)
    for denoiser in denoisers:
        result = sample(config, denoiser, SHAPE, noise_of("ab"), device="cpu", image=image)
        assert bool(torch.isfinite(result).all())


def test_strided_sampling_equals_the_published_loop_with_its_wasted_evaluation() -> None:
    schedule, steps = ScheduleConfig(steps=20, start=1e-4, end=0.02).build(), list(range(0, 20, 4))
    draws = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(6)]
    x, bar = draws[0], schedule.alphas_bar
    for k, t in enumerate(reversed(steps)):
        following = bar[max(t - 4, 0)]
        eps = predict(x, bar[t].sqrt().expand(2))
        x0 = ((x - (1 - bar[t]).sqrt() * eps) / bar[t].sqrt()).clamp(-1, 1)
        eps = (x - bar[t].sqrt() * x0) / (1 - bar[t]).sqrt()
        spread = ((1 - following) / (1 - bar[t]) * (1 - bar[t] / following)).sqrt()
        x = following.sqrt() * x0 + (1 - following - spread**2).sqrt() * eps + spread * draws[k + 1]
    config = SamplerConfig(solver="ddim", eta=1.0, spacing="strided", steps=5, end="lowest_vp", clip=True)
    denoiser = DiscreteDenoiser(predict, schedule, dtype=torch.float64)
    result = sample(config, denoiser, SHAPE, ReplayNoise(draws[:5]), device="cpu")
    torch.testing.assert_close(result, x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("vp", lambda s, n, image: math.sqrt(1 + s**2) * n),
        ("edm", lambda s, n, image: s * n),
        ("image", lambda s, n, image: image),
        ("image_times_sigma", lambda s, n, image: s * image),
        ("image_vp", lambda s, n, image: image + math.sqrt(1 + s**2) * n),
        ("image_edm", lambda s, n, image: image + s * n),
    ],
)
def test_start_states(start: str, expected: Any) -> None:
    seen: list[Tensor] = []

    class Recorder(DiscreteDenoiser):
        def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
            seen.append(y)
            return super().__call__(y, sigma)

    denoiser = Recorder(predict, DiscreteSchedule([0.1, 0.3]), "clean")
    image, n = torch.full(SHAPE, 0.25), torch.ones(SHAPE)
    draws = [] if start in ("image", "image_times_sigma") else [n]
    config = SamplerConfig(solver="ddim", steps=2, start=start)  # type: ignore[arg-type]
    sample(config, denoiser, SHAPE, ReplayNoise(draws), device="cpu", image=image)
    torch.testing.assert_close(seen[0], expected(denoiser.sigma_max, n.double(), image.double()))


def test_model_grid_is_the_table_where_there_is_one_and_edms_otherwise() -> None:
    config = SamplerConfig(steps=100)
    table = sr3_like()
    assert torch.equal(make_levels(config, table), grids.to_zero(table.table.flip(0)))  # type: ignore[union-attr]
    assert torch.equal(make_levels(config, edm_like()), grids.to_zero(grids.edm_levels(100, 0.002, 80.0)))


def test_levels_that_round_to_the_same_entry_are_walked_once() -> None:
    denoiser = sr3_like(10, time="index")
    levels = make_levels(SamplerConfig(solver="euler", grid="edm", steps=60), denoiser)
    assert denoiser.table is not None
    assert set(levels[:-1].tolist()) <= set(denoiser.table.tolist())
    assert bool((levels[1:] < levels[:-1]).all())


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("linspace", [9, 6, 3, 0]),
        ("leading", [6, 4, 2, 0]),
        ("trailing", [9, 7, 4, 1]),
        ("strided", [8, 6, 4, 2, 0]),
        ("fastdpm_linear", [9, 6, 3, 0]),
        ("fastdpm_quadratic", [8, 3, 0, 0]),
    ],
)
def test_table_spacings(spacing: Any, expected: list[int]) -> None:
    assert grids.table_indices(10, 4, spacing) == expected


def test_an_explicit_stride_overrides_the_steps() -> None:
    assert grids.table_indices(10, 4, "strided", stride=3) == [9, 6, 3, 0]


@pytest.mark.parametrize("name", ["edm_levels", "vp_levels", "ve_levels"])
def test_continuous_grids_descend_from_end_to_end(name: str) -> None:
    levels = getattr(grids, name)(9, 0.02, 70.0)
    assert levels.dtype == torch.float64
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([70.0, 0.02], dtype=torch.float64), rtol=1e-9, atol=0)
    assert bool((levels[1:] < levels[:-1]).all())
    assert float(getattr(grids, name)(1, 0.02, 70.0)) == pytest.approx(70.0)


@pytest.mark.parametrize("shape", ["quadratic", "linear"])
def test_fastdpm_variances_keep_the_signal_of_the_long_chain(shape: Any) -> None:
    betas = fastdpm_betas(40, shape, 1e-4, 0.02, 1000)
    target = float(torch.prod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)))
    assert target <= float((1 - betas).prod()) <= 1.0001 * target


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 3, "spacing": "trailing"}, "set spacing=strided"),
        ({"stride": 3, "spacing": "strided", "grid": "edm"}, "set spacing=strided and grid=table"),
        ({"grid": "list", "sigmas": (1.0, 2.0)}, "descending"),
        ({"grid": "list"}, "set sigmas"),
        ({"steps": 0}, "at least 1"),
        ({"eta": 1.5}, "choose 0 to 1"),
        ({"sigma_min": 90.0, "grid": "edm"}, "below sigma_max"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplerConfig(**options)


@pytest.mark.parametrize(
    ("options", "typed", "words"),
    [
        ({"solver": "euler"}, "eta", "set sampler.solver=ddim"),
        ({"solver": "ddim"}, "churn", "set sampler.solver=euler or sampler.solver=heun"),
        ({"solver": "heun"}, "churn_max", r"sampler.churn=NUMBER \(above 0\)"),
        ({"grid": "table"}, "rho", "set sampler.grid=edm"),
        ({"grid": "model"}, "sigma_max", "has no effect with sampler.grid=model"),
        ({"solver": "native"}, "clip", "no effect with sampler.solver=native"),
        ({"start": "image"}, "start_deviation", "set sampler.start=vp"),
    ],
)
def test_options_that_nothing_reads_are_refused_where_they_are_typed(options: dict[str, Any], typed: str, words: str) -> None:
    groups = {"sampler": SamplerConfig(**options)}
    require_effect(groups, ["sampler.steps", "sampler.solver"])
    with pytest.raises(ValueError, match=words):
        require_effect(groups, [f"sampler.{typed}"])


@pytest.mark.parametrize(
    ("options", "denoiser", "words"),
    [
        ({"grid": "table"}, edm_like(), "choose grid edm, ve or vp"),
        ({"steps": 101}, sr3_like(), "choose 1 to 100 steps"),
        ({"start": "image"}, sr3_like(), "choose start vp or edm"),
        ({"solver": "native"}, sr3_like(), "choose ddpm"),
        ({"grid": "list", "sigmas": (5000.0, 1.0)}, sr3_like(), "leaves the model's range"),
        ({"grid": "edm", "sigma_min": 1000.0, "sigma_max": 2000.0}, sr3_like(), "outside the model's range"),
        ({"steps": 1, "end": "lowest"}, sr3_like(), "take more sampler.steps"),
    ],
)
def test_samplers_that_do_not_fit_the_model_are_refused(options: dict[str, Any], denoiser: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sample(SamplerConfig(**options), denoiser, SHAPE, noise_of("ab"), device="cpu")


MULTISTEP_FILES = [path for path in SHIPPED if options_of(path)["solver"] in ("dpmpp_2m", "dpmpp_3m", "unipc", "deis")]


@pytest.mark.parametrize("solver", ["dpmpp_2m", "dpmpp_3m", "unipc"])
def test_a_multistep_solver_refuses_a_grid_on_which_it_is_unstable_and_the_advice_works(solver: str) -> None:
    denoiser = DiscreteDenoiser(predict, DiscreteSchedule(make_betas("linear", 2000, 1e-6, 1e-2)))
    options = {"solver": solver, "steps": 10, "spacing": "linspace"}
    with pytest.raises(UserError, match=rf"{solver} is unstable on this grid of 10 levels.*solver=ddim.*spacing=trailing") as refused:
        sample(SamplerConfig(**options), denoiser, SHAPE, noise_of("ab"), device="cpu")
    assert "0." in str(refused.value)
    for advice in ({"solver": "ddim"}, {"spacing": "trailing"}):
        sample(SamplerConfig(**(options | advice)), denoiser, SHAPE, noise_of("ab"), device="cpu")


@pytest.mark.parametrize("path", MULTISTEP_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_shipped_multistep_samplers_are_nearer_the_exact_solution_than_ddim(path: Path, steps: int) -> None:
    values = options_of(path) | {"steps": steps}
    values.pop("kind")
    config = config_from_mapping(SamplerConfig, values, "sampler")
    require_stable(config, tuple(make_levels(config, sr3_like(1000)).tolist()))


@pytest.mark.parametrize("solver", ["euler", "heun", "ddim", "dpmpp_2m", "unipc", "deis"])
def test_a_sampler_makes_as_many_calls_of_the_network_as_are_told(solver: str) -> None:
    made = []

    def counted(x: Tensor, time: Tensor) -> Tensor:
        made.append(time)
        return 0.1 * x

    config = SamplerConfig(solver=solver, grid="edm", start="edm", steps=5)
    sample(config, EdmDenoiser(counted, EdmPreconditioning()), (1, 3, 4, 4), noise_of("a"), device="cpu")
    assert len(made) == calls_of(config)
