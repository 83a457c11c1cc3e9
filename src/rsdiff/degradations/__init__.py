"""Kernels, resizing, noise, JPEG, camera; composed pipelines. `DEGRADATIONS` names the kinds that a config file may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.degradations.array import degrade_array as degrade_array
    from rsdiff.degradations.bands import BandsConfig as BandsConfig
    from rsdiff.degradations.bands import FewerBands as FewerBands
    from rsdiff.degradations.base import (
        Degradation as Degradation,
    )
    from rsdiff.degradations.base import (
        DegradationConfig as DegradationConfig,
    )
    from rsdiff.degradations.base import (
        Degraded as Degraded,
    )
    from rsdiff.degradations.base import (
        RecordValue as RecordValue,
    )
    from rsdiff.degradations.base import (
        degrade as degrade,
    )
    from rsdiff.degradations.bicubic import Bicubic as Bicubic
    from rsdiff.degradations.bicubic import BicubicConfig as BicubicConfig
    from rsdiff.degradations.bsrgan import BsrganConfig as BsrganConfig
    from rsdiff.degradations.bsrgan_plus import BsrganPlusConfig as BsrganPlusConfig
    from rsdiff.degradations.gaussian import (
        GaussianDecisions as GaussianDecisions,
    )
    from rsdiff.degradations.gaussian import (
        GaussianDegradation as GaussianDegradation,
    )
    from rsdiff.degradations.gaussian import (
        GaussianDegradationConfig as GaussianDegradationConfig,
    )
    from rsdiff.degradations.gaussian import (
        GaussianParameters as GaussianParameters,
    )
    from rsdiff.degradations.grid import (
        DegradationGrid as DegradationGrid,
    )
    from rsdiff.degradations.grid import (
        GridConfig as GridConfig,
    )
    from rsdiff.degradations.grid import (
        NamedCase as NamedCase,
    )
    from rsdiff.degradations.grid import (
        named_cases as named_cases,
    )
    from rsdiff.degradations.paired import Paired as Paired
    from rsdiff.degradations.paired import PairedConfig as PairedConfig
    from rsdiff.degradations.pool import PairPool as PairPool
    from rsdiff.degradations.practical import PracticalDecisions as PracticalDecisions
    from rsdiff.degradations.practical import PracticalDegradation as PracticalDegradation
    from rsdiff.degradations.real_esrgan import RealEsrganConfig as RealEsrganConfig
    from rsdiff.degradations.refdiff_training import RefDiffTraining as RefDiffTraining
    from rsdiff.degradations.refdiff_training import RefDiffTrainingConfig as RefDiffTrainingConfig
    from rsdiff.degradations.spectral_response import SrfConfig as SrfConfig
    from rsdiff.degradations.table import DEGRADATIONS as DEGRADATIONS

_MODULES = {
    "DEGRADATIONS": "table",
    "BandsConfig": "bands",
    "Bicubic": "bicubic",
    "BicubicConfig": "bicubic",
    "BsrganConfig": "bsrgan",
    "BsrganPlusConfig": "bsrgan_plus",
    "Degradation": "base",
    "DegradationConfig": "base",
    "DegradationGrid": "grid",
    "Degraded": "base",
    "FewerBands": "bands",
    "GaussianDecisions": "gaussian",
    "GaussianDegradation": "gaussian",
    "GaussianDegradationConfig": "gaussian",
    "GaussianParameters": "gaussian",
    "GridConfig": "grid",
    "NamedCase": "grid",
    "PairPool": "pool",
    "Paired": "paired",
    "PairedConfig": "paired",
    "PracticalDecisions": "practical",
    "PracticalDegradation": "practical",
    "RealEsrganConfig": "real_esrgan",
    "RecordValue": "base",
    "RefDiffTraining": "refdiff_training",
    "RefDiffTrainingConfig": "refdiff_training",
    "SrfConfig": "spectral_response",
    "degrade": "base",
    "degrade_array": "array",
    "named_cases": "grid",
}
__getattr__ = on_demand(__name__, _MODULES)
