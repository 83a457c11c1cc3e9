"""The kinds of degradation that a config file may choose."""

from typing import Any

from rsdiff.degradations.bands import BandsConfig
from rsdiff.degradations.bicubic import BicubicConfig
from rsdiff.degradations.bsrgan import BsrganConfig
from rsdiff.degradations.bsrgan_plus import BsrganPlusConfig
from rsdiff.degradations.gaussian import GaussianDegradationConfig
from rsdiff.degradations.grid import GridConfig
from rsdiff.degradations.paired import PairedConfig
from rsdiff.degradations.real_esrgan import RealEsrganConfig
from rsdiff.degradations.refdiff_training import RefDiffTrainingConfig
from rsdiff.degradations.spectral_response import SrfConfig

DEGRADATIONS: dict[str, type[Any]] = {
    "bands": BandsConfig,
    "bicubic": BicubicConfig,
    "bsrgan": BsrganConfig,
    "bsrgan_plus": BsrganPlusConfig,
    "gaussian": GaussianDegradationConfig,
    "grid": GridConfig,
    "paired": PairedConfig,
    "real_esrgan": RealEsrganConfig,
    "refdiff_training": RefDiffTrainingConfig,
    "srf": SrfConfig,
}
"""Kind -> config class. Every class has `build()`, which returns a `Degradation`, or for "grid" a `DegradationGrid`."""
