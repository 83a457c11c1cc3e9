"""The diffusion layer: schedules, denoisers, level grids, solvers, guidance, noise sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import Kinds, on_demand

if TYPE_CHECKING:
    from rsdiff.diffusion.edm import EdmDenoiser as EdmDenoiser
    from rsdiff.diffusion.noise import (
        NoiseSource as NoiseSource,
    )
    from rsdiff.diffusion.noise import (
        ReplayNoise as ReplayNoise,
    )
    from rsdiff.diffusion.noise import (
        SeededNoise as SeededNoise,
    )
    from rsdiff.diffusion.noise import (
        TileNoise as TileNoise,
    )
    from rsdiff.diffusion.sampler import SamplerConfig as SamplerConfig
    from rsdiff.diffusion.sampler import sample as sample
    from rsdiff.diffusion.schedules import (
        DiscreteDenoiser as DiscreteDenoiser,
    )
    from rsdiff.diffusion.schedules import (
        DiscreteSchedule as DiscreteSchedule,
    )
    from rsdiff.diffusion.schedules import (
        ScheduleConfig as ScheduleConfig,
    )
    from rsdiff.diffusion.solvers import Denoiser as Denoiser
    from rsdiff.diffusion.solvers import Observers as Observers

SAMPLERS = Kinds(
    {
        "solver": "rsdiff.diffusion.sampler:SamplerConfig",
    }
)
"""Sampler config classes by kind."""
BASES = Kinds(
    {
        "enlarged": "rsdiff.diffusion.bases:EnlargedConfig",
        "none": "rsdiff.diffusion.bases:NoBaseConfig",
        "regression": "rsdiff.diffusion.regression_base:RegressionConfig",
    }
)
"""Kinds of `rsdiff.diffusion.bases.BaseConfig`: model.base=enlarged."""

_MODULES = {
    "Denoiser": "solvers",
    "DiscreteDenoiser": "schedules",
    "DiscreteSchedule": "schedules",
    "EdmDenoiser": "edm",
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
