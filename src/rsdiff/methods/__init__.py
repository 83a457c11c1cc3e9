"""Methods: networks, objective and restoration put together, one module each."""

from rsdiff.methods.bicubic import BicubicMethodConfig
from rsdiff.methods.blinddiff import BlindDiffConfig
from rsdiff.methods.blindsrsnf import BlindSRSNFConfig
from rsdiff.methods.continuous import LIIFConfig, MetaSRConfig
from rsdiff.methods.danv2 import DANv2Config
from rsdiff.methods.dasr import DASRConfig
from rsdiff.methods.dcls import DCLSConfig
from rsdiff.methods.diffbsr import DiffBSRConfig
from rsdiff.methods.diffbsr_ablations import DiffBSRDDPMConfig, DiffBSRSRDiffConfig
from rsdiff.methods.drsr import DRSRConfig
from rsdiff.methods.ediffsr import EDiffSRConfig
from rsdiff.methods.edm_sr import EdmSrConfig
from rsdiff.methods.esrgan import ESRGANConfig
from rsdiff.methods.idm import IDMConfig
from rsdiff.methods.implicit import CiaoSRConfig, LMFCiaoSRConfig, LMFLIIFConfig, LMFLTEConfig, LTEConfig
from rsdiff.methods.lcmsr import LCMSRConfig
from rsdiff.methods.ldcsr import LDCSRConfig
from rsdiff.methods.ldcsr_vae import LDCSRVaeConfig
from rsdiff.methods.refdiff import RefDiffConfig
from rsdiff.methods.regression import (
    AWANConfig,
    HATConfig,
    HSCNNPlusConfig,
    MSTLConfig,
    MSTPlusPlusConfig,
    RRDBMethodConfig,
    SpectralCNNConfig,
)
from rsdiff.methods.sadn import SADNConfig
from rsdiff.methods.scdm import SCDMConfig
from rsdiff.methods.spandrel import SpandrelConfig
from rsdiff.methods.spectral_linear import SpectralLinearConfig
from rsdiff.methods.spsr import SPSRConfig
from rsdiff.methods.sr3 import SR3Config

METHODS: dict[str, type] = {
    "awan": AWANConfig,
    "bicubic": BicubicMethodConfig,
    "blinddiff": BlindDiffConfig,
    "blindsrsnf": BlindSRSNFConfig,
    "ciaosr": CiaoSRConfig,
    "danv2": DANv2Config,
    "dasr": DASRConfig,
    "dcls": DCLSConfig,
    "diffbsr": DiffBSRConfig,
    "diffbsr_ddpm": DiffBSRDDPMConfig,
    "diffbsr_srdiff": DiffBSRSRDiffConfig,
    "drsr": DRSRConfig,
    "ediffsr": EDiffSRConfig,
    "edm_sr": EdmSrConfig,
    "idm": IDMConfig,
    "esrgan": ESRGANConfig,
    "hat": HATConfig,
    "hscnn_plus": HSCNNPlusConfig,
    "lcmsr": LCMSRConfig,
    "ldcsr": LDCSRConfig,
    "ldcsr_vae": LDCSRVaeConfig,
    "liif": LIIFConfig,
    "lmf_ciaosr": LMFCiaoSRConfig,
    "lmf_liif": LMFLIIFConfig,
    "lmf_lte": LMFLTEConfig,
    "lte": LTEConfig,
    "metasr": MetaSRConfig,
    "mst_l": MSTLConfig,
    "mstpp": MSTPlusPlusConfig,
    "refdiff": RefDiffConfig,
    "rrdb": RRDBMethodConfig,
    "sadn": SADNConfig,
    "scdm": SCDMConfig,
    "spandrel": SpandrelConfig,
    "spectral_cnn": SpectralCNNConfig,
    "spectral_linear": SpectralLinearConfig,
    "spsr": SPSRConfig,
    "sr3": SR3Config,
}
"""Config class of every method by `kind`."""

__all__ = [
    "METHODS",
    "AWANConfig",
    "BicubicMethodConfig",
    "BlindDiffConfig",
    "BlindSRSNFConfig",
    "CiaoSRConfig",
    "DANv2Config",
    "DASRConfig",
    "DCLSConfig",
    "DRSRConfig",
    "DiffBSRConfig",
    "DiffBSRDDPMConfig",
    "DiffBSRSRDiffConfig",
    "EDiffSRConfig",
    "ESRGANConfig",
    "EdmSrConfig",
    "HSCNNPlusConfig",
    "IDMConfig",
    "LCMSRConfig",
    "LDCSRConfig",
    "LDCSRVaeConfig",
    "LIIFConfig",
    "LMFCiaoSRConfig",
    "LMFLIIFConfig",
    "LMFLTEConfig",
    "LTEConfig",
    "MSTLConfig",
    "MSTPlusPlusConfig",
    "MetaSRConfig",
    "RRDBMethodConfig",
    "RefDiffConfig",
    "SADNConfig",
    "SCDMConfig",
    "SPSRConfig",
    "SR3Config",
    "SpandrelConfig",
    "SpectralCNNConfig",
    "SpectralLinearConfig",
]
