"""The diffusion layer: schedules, denoisers, level grids, solvers, hooks, noise sources."""

from rsdiff.diffusion.denoisers import Denoiser, EdmDenoiser, EpsDenoiser, VDenoiser, X0Denoiser
from rsdiff.diffusion.noise import NoiseSource, ReplayNoise, SeededNoise, TileNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.diffusion.solvers import Observers

SAMPLERS: dict[str, type] = {"solver": SamplerConfig}
"""Sampler config classes by kind."""

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "DiscreteSchedule",
    "EdmDenoiser",
    "EpsDenoiser",
    "NoiseSource",
    "Observers",
    "ReplayNoise",
    "SamplerConfig",
    "ScheduleConfig",
    "SeededNoise",
    "TileNoise",
    "VDenoiser",
    "X0Denoiser",
    "sample",
]
