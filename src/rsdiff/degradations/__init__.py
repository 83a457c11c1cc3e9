"""Kernels, resizing, noise, JPEG, camera; composed pipelines. `DEGRADATIONS` names the kinds that a config file may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.degradations.array import degrade_array
    from rsdiff.degradations.bands import BandsConfig, FewerBands
    from rsdiff.degradations.base import Degradation, DegradationConfig, Degraded, RecordValue, degrade
    from rsdiff.degradations.bicubic import Bicubic, BicubicConfig
    from rsdiff.degradations.bsrgan import BsrganConfig
    from rsdiff.degradations.bsrgan_plus import BsrganPlusConfig
    from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradation, GaussianDegradationConfig, GaussianParameters
    from rsdiff.degradations.grid import DegradationGrid, GridConfig, NamedCase, named_cases
    from rsdiff.degradations.paired import Paired, PairedConfig
    from rsdiff.degradations.pool import PairPool
    from rsdiff.degradations.practical import PracticalDecisions, PracticalDegradation
    from rsdiff.degradations.real_esrgan import RealEsrganConfig
    from rsdiff.degradations.refdiff_training import RefDiffTraining, RefDiffTrainingConfig
    from rsdiff.degradations.spectral_response import SrfConfig
    from rsdiff.degradations.table import DEGRADATIONS

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

__all__ = [
    "DEGRADATIONS",
    "BandsConfig",
    "Bicubic",
    "BicubicConfig",
    "BsrganConfig",
    "BsrganPlusConfig",
    "Degradation",
    "DegradationConfig",
    "DegradationGrid",
    "Degraded",
    "FewerBands",
    "GaussianDecisions",
    "GaussianDegradation",
    "GaussianDegradationConfig",
    "GaussianParameters",
    "GridConfig",
    "NamedCase",
    "PairPool",
    "Paired",
    "PairedConfig",
    "PracticalDecisions",
    "PracticalDegradation",
    "RealEsrganConfig",
    "RecordValue",
    "RefDiffTraining",
    "RefDiffTrainingConfig",
    "SrfConfig",
    "degrade",
    "degrade_array",
    "named_cases",
]
