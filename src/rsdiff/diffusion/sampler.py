"""One sampler for every diffusion method: a level grid, a start state, a solver and its options, exchangeable on the command line."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith, is_read
from rsdiff.diffusion import solvers as grids
from rsdiff.diffusion.noise import NoiseSource, ReplayNoise
from rsdiff.diffusion.solvers import SILENT, Clamped, Denoiser, Observers, SteppingDenoiser, ddim, ddpm, dpmpp_2m, native

ALONG_PATHS = ("solver", ("euler", "heun"))
WITH_CHURN = (ALONG_PATHS, ("churn", (ABOVE_0,)))
FROM_TABLE, IN_RANGE = ("grid", ("model", "table")), ("grid", ("edm", "vp", "ve", "iddpm"))

MULTISTEP = ("dpmpp_2m", "dpmpp_3m", "unipc", "deis")
"""Solvers that extrapolate past evaluations."""


@config
class SamplerConfig:
    """How a diffusion is run backwards; methods that restore without a sampler refuse its options."""

    read_with: ClassVar[ReadWith] = {
        "steps": (
            ("stride", (0,)),
            ("grid", ("model", "table", "edm", "vp", "ve", "iddpm", "fastdpm_quadratic", "fastdpm_linear")),
        ),
        "spacing": FROM_TABLE,
        "stride": (("spacing", ("strided",)), FROM_TABLE),
        "sigma_min": IN_RANGE,
        "sigma_max": IN_RANGE,
        "rho": ("grid", ("edm",)),
        "sigmas": ("grid", ("list",)),
        "start_deviation": ("start", ("vp", "image_vp")),
        "eta": ("solver", ("ddim",)),
        "variance": ("solver", ("ddpm",)),
        "churn": ALONG_PATHS,
        "churn_min": WITH_CHURN,
        "churn_max": WITH_CHURN,
        "churn_noise": WITH_CHURN,
        "time_schedule": ALONG_PATHS,
        "scaling": ALONG_PATHS,
        "alpha": ("solver", ("heun",)),
        "draw_unused": ("solver", ("ddpm", "ddim", "euler", "heun")),
        "clip": ("solver", ("ddpm", "ddim", "euler", "heun", *MULTISTEP)),
        "order": ("solver", ("unipc", "deis")),
    }

    solver: Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "native"] = "ddim"
    """Rule of a step; `native` is the model's own, where it published one."""
    steps: int = 50
    """Levels of the grid; `heun` evaluates the network twice per level, the others once."""
    grid: Literal["model", "table", "edm", "vp", "ve", "iddpm", "fastdpm_quadratic", "fastdpm_linear", "list"] = "model"
    """Where the levels come from; `model` is the table of the model, or the edm grid from 0.002 to 80 if it has none."""
    spacing: grids.Spacing = "trailing"
    """How levels are picked from the table."""
    stride: int = 0
    """Distance of the levels picked by spacing strided; 0 means (levels of the table) // steps."""
    sigma_min: float = 0.002
    """Lowest level before 0 of the edm, vp, ve and iddpm grids, clipped to the model's range."""
    sigma_max: float = 80.0
    """Highest level of these grids, clipped to the model's range."""
    rho: float = 7.0
    """Exponent of the edm grid: larger means more steps at low noise."""
    sigmas: tuple[float, ...] = ()
    """Levels of grid list, descending; a final 0 is added unless `end` says otherwise."""
    end: Literal["clean", "lowest", "lowest_vp"] = "clean"
    """Where the last step goes: `clean` to sigma 0; `lowest` stops at the lowest level and returns y, `lowest_vp` y / sqrt(1 + sigma^2)."""
    start: Literal["vp", "edm", "image", "image_times_sigma", "image_vp", "image_edm"] = "vp"
    """y at the highest level s: `vp` sqrt(1 + s^2) n, `edm` s n, `image` the model's enlarged input (or times s, or plus either noise)."""
    start_deviation: float = 1.0
    """Standard deviation of the variance-preserving prior, the 1 in sqrt(1 + s^2)."""
    eta: float = 0.0
    """Stochasticity of ddim, 0 (none) to 1 (ancestral)."""
    variance: Literal["posterior", "beta"] = "posterior"
    """Variance of a ddpm step."""
    churn: float = 0.0
    """EDM's S_churn: noise added over the run, 0 for a deterministic solver."""
    churn_min: float = 0.0
    """EDM's S_min: no churn below this level."""
    churn_max: float = float("inf")
    """EDM's S_max: no churn above this level."""
    churn_noise: float = 1.0
    """EDM's S_noise: factor on the churned noise."""
    order: int = 2
    """Order of unipc and deis, 2 or 3."""
    alpha: float = 1.0
    """Where heun takes its second slope, as a share of the step: 1 Heun, 0.5 midpoint."""
    time_schedule: Literal["linear", "ve", "vp"] = "linear"
    """sigma(t) along which euler and heun discretise."""
    scaling: Literal["none", "vp"] = "none"
    """s(t) along which euler and heun discretise."""
    clip: bool = False
    """Clamp the clean estimate at every evaluation to the range of the model's images, where it has one (latents have none)."""
    draw_unused: bool = False
    """Draw noise in steps that do not use it, for the order of random draws of published code."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision of the state; networks run in their own. Choose float32 on devices without float64."""

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise UserError(problem)


def _problem(config: SamplerConfig) -> str | None:
    """Return one sentence on values that cannot work, or None."""
    checks = (
        (config.steps >= 1, f"steps={config.steps} was given; choose at least 1."),
        (config.stride >= 0, f"stride={config.stride} was given; choose at least 1, or 0 to derive it from steps."),
        (
            config.stride == 0 or (config.spacing == "strided" and is_read(config, "spacing")),
            f"stride={config.stride} has no effect with spacing={config.spacing} and grid={config.grid}; leave it at 0, or set "
            "spacing=strided and grid=table.",
        ),
        (0 <= config.eta <= 1, f"eta={config.eta} was given; choose 0 to 1."),
        (0 < config.alpha <= 1, f"alpha={config.alpha} was given; choose a share of the step above 0 and up to 1."),
        (config.order in (2, 3), f"order={config.order} was given; choose 2 or 3."),
        (config.churn >= 0, f"churn={config.churn} was given; choose 0 or more."),
        (0 < config.sigma_min < config.sigma_max, f"sigma_min={config.sigma_min} must be positive and below sigma_max={config.sigma_max}."),
        (config.rho > 0, f"rho={config.rho} was given; choose a positive number."),
        (config.grid != "list" or len(config.sigmas) > 0, "grid=list was given without levels; set sigmas, for example [80,10,1,0.1]."),
        (
            all(a > b > 0 for a, b in zip(config.sigmas, config.sigmas[1:], strict=False)),
            f"sigmas={list(config.sigmas)} must be positive and descending.",
        ),
    )
    return next((sentence for holds, sentence in checks if not holds), None)


@runtime_checkable
class BlendingNoise(Protocol):
    """Noise of tiles that are sampled together, see rsdiff.diffusion.fusion."""

    def fuse(self, denoiser: Denoiser) -> Denoiser:
        """Return `denoiser` with the estimates of overlapping tiles blended."""
        ...


def sigma_range(config: SamplerConfig, denoiser: Denoiser) -> tuple[float, float]:
    """Return (sigma_min, sigma_max) of the continuous grids, clipped to the model's range."""
    asked = config if is_read(config, "sigma_min") else SamplerConfig()
    low, high = max(asked.sigma_min, denoiser.sigma_min), min(asked.sigma_max, denoiser.sigma_max)
    if not low < high:
        raise UserError(
            f"sampler.sigma_min={asked.sigma_min} to sampler.sigma_max={asked.sigma_max} lies outside the model's range "
            f"{denoiser.sigma_min} to {denoiser.sigma_max}; choose levels inside it."
        )
    return low, high


def make_levels(config: SamplerConfig, denoiser: Denoiser) -> Tensor:
    """Return the float64 levels that a solver walks: rounded to what the model knows, strictly descending, ending as `end` says."""
    grid = config.grid
    if grid == "model":
        grid = "edm" if denoiser.table is None else "table"
        if denoiser.table is None and config.spacing != "trailing":
            raise UserError(
                f"sampler.spacing={config.spacing} picks levels from a model's table, and this model knows any level; leave it out, or "
                "choose grid edm, ve or vp."
            )
    match grid:
        case "table":
            if denoiser.table is None:
                raise UserError(
                    "sampler.grid=table needs a model with a table of levels, and this one is continuous; choose grid edm, ve or vp."
                )
            indices = grids.table_indices(len(denoiser.table), config.steps, config.spacing, config.stride)
            chosen = denoiser.table[indices]
        case "edm":
            rho = config.rho if is_read(config, "rho") else SamplerConfig().rho
            chosen = grids.edm_levels(config.steps, *sigma_range(config, denoiser), rho=rho)
        case "vp":
            chosen = grids.vp_levels(config.steps, *sigma_range(config, denoiser))
        case "ve":
            chosen = grids.ve_levels(config.steps, *sigma_range(config, denoiser))
        case "iddpm":
            chosen = grids.iddpm_grid(config.steps, *sigma_range(config, denoiser))
        case "fastdpm_quadratic" | "fastdpm_linear":
            from rsdiff.diffusion.fastdpm import fastdpm_levels  # other grids are read without it

            chosen = fastdpm_levels(config.steps, "quadratic" if grid == "fastdpm_quadratic" else "linear")
        case "list":
            chosen = torch.tensor(config.sigmas, dtype=torch.float64)
            if config.sigmas[0] > denoiser.sigma_max or config.sigmas[-1] < denoiser.sigma_min:
                raise UserError(
                    f"sampler.sigmas={list(config.sigmas)} leaves the model's range {denoiser.sigma_min} to {denoiser.sigma_max}; "
                    "choose levels inside it."
                )
    chosen = denoiser.round_sigma(chosen).to(torch.float64)
    chosen = torch.unique_consecutive(chosen)  # neighbouring levels of a fine grid may round to the same entry: a step of nothing
    chosen = grids.to_zero(chosen) if config.end == "clean" else chosen
    if len(chosen) < 2:
        raise UserError(
            "sampler.end stops at the only level of the grid, so nothing would be sampled; take more sampler.steps or end=clean."
        )
    return chosen


def calls_of(sampler: SamplerConfig) -> int:
    """Return how often a sampler that ends at sigma 0 calls the network for an image."""
    levels = len(sampler.sigmas) if sampler.grid == "list" else sampler.steps
    return 2 * levels - 1 if sampler.solver == "heun" else levels  # Heun's last step, to 0, is Euler's


_WALKS: ContextVar[list[list[float]] | None] = ContextVar("walks", default=None)


@contextmanager
def walked_levels(walks: list[list[float]] | None = None) -> Iterator[list[list[float]]]:
    """Collect the levels of every sampling inside the block, whatever method does it, in `walks` or in a new list."""
    walks = [] if walks is None else walks
    token = _WALKS.set(walks)
    try:
        yield walks
    finally:
        _WALKS.reset(token)


def start_state(
    config: SamplerConfig, sigma: float, shape: Sequence[int], noise: NoiseSource, device: torch.device | str, image: Tensor | None
) -> Tensor:
    """Return y (B, C, H, W) at the highest level `sigma`; noise is drawn only where the start has any."""
    dtype = torch.float64 if config.dtype == "float64" else torch.float32
    y = torch.zeros(tuple(shape), dtype=dtype, device=device)
    if config.start.startswith("image"):
        if image is None:
            raise UserError(f"sampler.start={config.start} needs an image, and this model starts from noise only; choose start vp or edm.")
        y = image.to(y) * (sigma if config.start == "image_times_sigma" else 1.0)
    if config.start.endswith("vp"):
        return y + (sigma**2 + config.start_deviation**2) ** 0.5 * noise.normal(shape, device, dtype)
    if config.start.endswith("edm"):
        return y + sigma * noise.normal(shape, device, dtype)
    return y


def sample(
    config: SamplerConfig,
    denoiser: Denoiser,
    shape: Sequence[int],
    noise: NoiseSource,
    *,
    device: torch.device | str,
    image: Tensor | None = None,
    observers: Observers = SILENT,
) -> Tensor:
    """Return clean images of `shape` (B, C, H, W) in the denoiser's range and the config's dtype.

    image  (B, C, H, W) in that range, for starts that need one: usually the enlarged input
    Estimates of tiles whose noise source is a `BlendingNoise` are blended.
    The first draw is the start state, then come the solver's. Differentiable, for methods that train through their sampler.
    """
    levels = make_levels(config, denoiser)
    if (walks := _WALKS.get()) is not None:
        walks.append(levels.tolist())
    if config.solver in MULTISTEP:
        require_stable(config, tuple(levels.tolist()))
    if config.clip and is_read(config, "clip") and denoiser.data_range is not None:
        denoiser = Clamped(denoiser, *denoiser.data_range)
    if isinstance(noise, BlendingNoise):
        if config.solver == "native":
            raise UserError("tiles cannot be fused with sampler.solver=native, whose steps are the model's own; set task.fuse=1.")
        denoiser = noise.fuse(denoiser)
    y = start_state(config, float(levels[0]), shape, noise, device, image)
    result = _solve(config, denoiser, levels, y, noise, observers)
    return result / (1 + float(levels[-1]) ** 2) ** 0.5 if config.end == "lowest_vp" else result


class UnstableGridError(UserError):
    """A multistep solver was given levels on which it is worse than a first-order one."""


@functools.lru_cache(maxsize=64)
def require_stable(config: SamplerConfig, levels: tuple[float, ...]) -> None:
    """Raise UnstableGridError where a multistep solver is worse on these levels than a first-order one, see rsdiff.diffusion.stability."""
    from rsdiff.diffusion.stability import errors_where_unstable

    plain = replace(config, clip=False)

    def solve(denoiser: Denoiser, grid: Tensor, y: Tensor) -> Tensor:
        return _solve(plain, denoiser, grid, y, ReplayNoise([]), SILENT)

    errors = errors_where_unstable(solve, torch.tensor(levels, dtype=torch.float64))
    if errors is not None:
        raise UnstableGridError(
            f"sampler.solver={config.solver} is unstable on this grid of {len(levels) - 1} levels: on Gaussian data, whose exact solution "
            f"is known, it ends {errors[0]:.2g} of the range from it, and ddim {errors[1]:.2g}. Some of its steps are much longer in log "
            "sigma than the steps before them; choose sampler.solver=ddim, or sampler.spacing=trailing where the model has a table."
        )


def _solve(config: SamplerConfig, denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, observers: Observers) -> Tensor:
    unused = config.draw_unused
    match config.solver:
        case "ddpm":
            return ddpm(denoiser, levels, y, noise, variance=config.variance, draw_unused=unused, observers=observers)
        case "ddim":
            return ddim(denoiser, levels, y, noise, eta=config.eta, draw_unused=unused, observers=observers)
        case "dpmpp_2m":
            return dpmpp_2m(denoiser, levels, y, noise, observers=observers)
        case "dpmpp_3m" | "unipc" | "deis":
            return _solve_multistep(config, denoiser, levels, y, noise, observers)
        case "native":
            if not hasattr(denoiser, "step"):
                raise UserError(
                    "sampler.solver=native needs a model that published a step of its own; choose ddpm, ddim, heun or dpmpp_2m."
                )
            return native(cast(SteppingDenoiser, denoiser), levels, y, noise, observers=observers)
        case "euler" | "heun":
            return _solve_ode(config, denoiser, levels, y, noise, observers)


def _solve_multistep(
    config: SamplerConfig, denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, observers: Observers
) -> Tensor:
    from rsdiff.diffusion.multistep import deis, dpmpp_3m, unipc

    if config.solver == "dpmpp_3m":
        return dpmpp_3m(denoiser, levels, y, noise, observers=observers)
    solve = unipc if config.solver == "unipc" else deis
    return solve(denoiser, levels, y, noise, order=config.order, observers=observers)


def _solve_ode(config: SamplerConfig, denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, observers: Observers) -> Tensor:
    from rsdiff.diffusion.edm import Churn, Trajectory, euler, heun  # the others are read without it

    churn = Churn(config.churn, config.churn_min, config.churn_max, config.churn_noise)
    trajectory = Trajectory(config.time_schedule, config.scaling)
    if config.time_schedule == "vp":
        trajectory = Trajectory("vp", config.scaling, *grids.vp_betas(*sigma_range(config, denoiser)))
    if config.solver == "euler":
        return euler(denoiser, levels, y, noise, churn=churn, trajectory=trajectory, draw_unused=config.draw_unused, observers=observers)
    return heun(
        denoiser,
        levels,
        y,
        noise,
        alpha=config.alpha,
        churn=churn,
        trajectory=trajectory,
        draw_unused=config.draw_unused,
        observers=observers,
    )
