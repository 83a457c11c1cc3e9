"""The diffusion layer: schedules, denoisers, level grids, solvers, guidance, noise sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import Kinds, on_demand

if TYPE_CHECKING:
    from rsdiff.diffusion.denoisers import Denoiser
    from rsdiff.diffusion.noise import NoiseSource, ReplayNoise, SeededNoise, TileNoise
    from rsdiff.diffusion.preconditioning import EdmDenoiser
    from rsdiff.diffusion.sampler import SamplerConfig, sample
    from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig
    from rsdiff.diffusion.solvers import Observers

SAMPLERS = Kinds(
    {
        "solver": "rsdiff.diffusion.sampler:SamplerConfig",
    }
)
"""Sampler config classes by kind."""

_MODULES = {
    "Denoiser": "denoisers",
    "DiscreteSchedule": "schedules",
    "DiscreteDenoiser": "denoisers",
    "EdmDenoiser": "denoisers",
    "NoiseSource": "noise",
    "Observers": "solvers",
    "ReplayNoise": "noise",
    "SamplerConfig": "sampler",
    "ScheduleConfig": "schedules",
    "SeededNoise": "noise",
    "TileNoise": "noise",
    "sample": "sampler",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "DiscreteDenoiser",
    "DiscreteSchedule",
    "EdmDenoiser",
    "NoiseSource",
    "Observers",
    "ReplayNoise",
    "SamplerConfig",
    "ScheduleConfig",
    "SeededNoise",
    "TileNoise",
    "sample",
]
