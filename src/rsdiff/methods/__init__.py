"""Methods: networks, objective and restoration put together, one module each."""

from rsdiff.config.kinds import Kinds

METHODS = Kinds(
    {
        "awan": "rsdiff.methods.regression:AWANConfig",
        "bicubic": "rsdiff.methods.bicubic:BicubicMethodConfig",
        "blinddiff": "rsdiff.methods.blinddiff:BlindDiffConfig",
        "blindsrsnf": "rsdiff.methods.blindsrsnf:BlindSRSNFConfig",
        "ciaosr": "rsdiff.methods.implicit:CiaoSRConfig",
        "danv2": "rsdiff.methods.danv2:DANv2Config",
        "dasr": "rsdiff.methods.dasr:DASRConfig",
        "dcls": "rsdiff.methods.dcls:DCLSConfig",
        "datsr": "rsdiff.methods.datsr:DATSRConfig",
        "diffbsr": "rsdiff.methods.diffbsr:DiffBSRConfig",
        "diffbsr_ddpm": "rsdiff.methods.diffbsr_ablations:DiffBSRDDPMConfig",
        "diffbsr_srdiff": "rsdiff.methods.diffbsr_ablations:DiffBSRSRDiffConfig",
        "drsr": "rsdiff.methods.drsr:DRSRConfig",
        "ediffsr": "rsdiff.methods.ediffsr:EDiffSRConfig",
        "edm_sr": "rsdiff.methods.edm_sr:EdmSrConfig",
        "idm": "rsdiff.methods.idm:IDMConfig",
        "esrgan": "rsdiff.methods.esrgan:ESRGANConfig",
        "flow": "rsdiff.methods.flow:FlowConfig",
        "hat": "rsdiff.methods.regression:HATConfig",
        "highresnet": "rsdiff.methods.highresnet:HighResNetConfig",
        "hscnn_plus": "rsdiff.methods.regression:HSCNNPlusConfig",
        "lcmsr": "rsdiff.methods.ldcsr:LCMSRConfig",
        "ldcsr": "rsdiff.methods.ldcsr:LDCSRConfig",
        "ldcsr_vae": "rsdiff.methods.ldcsr_vae:LDCSRVaeConfig",
        "liif": "rsdiff.methods.implicit:LIIFConfig",
        "lmf_ciaosr": "rsdiff.methods.implicit:LMFCiaoSRConfig",
        "lmf_liif": "rsdiff.methods.implicit:LMFLIIFConfig",
        "lmf_lte": "rsdiff.methods.implicit:LMFLTEConfig",
        "lte": "rsdiff.methods.implicit:LTEConfig",
        "masa_sr": "rsdiff.methods.masa_sr:MASASRConfig",
        "metasr": "rsdiff.methods.implicit:MetaSRConfig",
        "mst_l": "rsdiff.methods.regression:MSTLConfig",
        "mstpp": "rsdiff.methods.regression:MSTPlusPlusConfig",
        "refdiff": "rsdiff.methods.refdiff:RefDiffConfig",
        "residual_quantiles": "rsdiff.methods.residual_quantiles:ResidualQuantilesConfig",
        "resshift": "rsdiff.methods.resshift:ResShiftConfig",
        "rrdb": "rsdiff.methods.regression:RRDBMethodConfig",
        "sadn": "rsdiff.methods.sadn:SADNConfig",
        "scdm": "rsdiff.methods.scdm:SCDMConfig",
        "spandrel": "rsdiff.methods.spandrel:SpandrelConfig",
        "spectral_cnn": "rsdiff.methods.regression:SpectralCNNConfig",
        "spectral_linear": "rsdiff.methods.spectral_linear:SpectralLinearConfig",
        "spsr": "rsdiff.methods.spsr:SPSRConfig",
        "sr3": "rsdiff.methods.sr3:SR3Config",
        "ttsr": "rsdiff.methods.ttsr:TTSRConfig",
    }
)
"""Config class of every method by `kind`."""

__all__ = ["METHODS"]
