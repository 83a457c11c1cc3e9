"""The kinds of degradation that a config file may choose."""

from rsdiff.config.kinds import Kinds

DEGRADATIONS = Kinds(
    {
        "bands": "rsdiff.degradations.bands:BandsConfig",
        "bicubic": "rsdiff.degradations.bicubic:BicubicConfig",
        "bsrgan": "rsdiff.degradations.bsrgan:BsrganConfig",
        "bsrgan_plus": "rsdiff.degradations.bsrgan_plus:BsrganPlusConfig",
        "gaussian": "rsdiff.degradations.gaussian:GaussianDegradationConfig",
        "grid": "rsdiff.degradations.grid:GridConfig",
        "looks": "rsdiff.degradations.looks:LooksConfig",
        "paired": "rsdiff.degradations.paired:PairedConfig",
        "real_esrgan": "rsdiff.degradations.real_esrgan:RealEsrganConfig",
        "refdiff_training": "rsdiff.degradations.refdiff_training:RefDiffTrainingConfig",
        "srf": "rsdiff.degradations.spectral_response:SrfConfig",
    }
)
"""Kind -> config class. Every class has `build()`, which returns a `Degradation`, or for "grid" a `DegradationGrid`."""
