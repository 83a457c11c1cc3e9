"""A protocol: the choices that move a score by more than most papers' gains. A metric is a formula under a named protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith, one_of
from rsdiff.metrics.colour import Border, Quantisation, Space


@config
class ProtocolConfig:
    """How images are made comparable before PSNR, SSIM and their relatives are computed, and how values are averaged."""

    read_with: ClassVar[ReadWith] = {
        "epsilon": ("metrics.metrics", (one_of("psnr"),)),
        "psnr_of_identical": ("metrics.metrics", (one_of("psnr"),)),
        "ssim_space": ("metrics.metrics", (one_of("ssim"),)),
        "crop_for_perceptual": ("metrics.metrics", (one_of("lpips_alex", "lpips_vgg", "lpips_alex_01", "dists"),)),
    }

    name: str = "litsr"
    """Name printed with every table."""
    space: Space = "bands"
    """What is compared: all bands, or a luma of the red, green and blue band (see rsdiff.metrics.colour.luma)."""
    ssim_space: Space | Literal["same"] = "same"
    """What SSIM compares where that differs from `space` (only DASR's does)."""
    quantise: Quantisation = "round"
    """round: scored as the 8-bit file it would be saved as; clip: float clamped to the peak; none: float as the network gave it."""
    border: Border = "ceil_scale"
    """Pixels removed on each side before scoring: a number, or by the scale of the image: nothing, scale, ceil(scale), ceil(scale) + 6."""
    peak: float = 255.0
    """Largest pixel value: images are multiplied by it before rounding, and it is the unit of MSE and of the average gradient."""
    epsilon: float = 0.0
    """Added to the mean squared error on [0, 1] inside PSNR; 1e-8 in pyiqa, which caps PSNR at 80 dB."""
    psnr_of_identical: float = math.inf
    """PSNR of an image equal to its reference (dB); infinite values are counted apart and left out of means, DRSR writes 100."""
    average: Literal["mean_of_images", "pooled_error"] = "mean_of_images"
    """mean_of_images: unweighted mean of per-image values (the field); pooled_error: PSNR of the mean error (torchmetrics)."""
    crop_for_perceptual: bool = False
    """Whether LPIPS and DISTS also see images without their border (BlindDiff); the field shows them the whole image."""

    def __post_init__(self) -> None:
        if self.peak <= 0:
            raise UserError(f"peak must be positive and is {self.peak}.")
        if isinstance(self.border, int) and self.border < 0:
            raise UserError(f"border={self.border} was given; choose 0 or more pixels, or a rule.")
        if self.epsilon < 0:
            raise UserError(f"epsilon must be 0 or more and is {self.epsilon}.")

    def for_values(self, low: Sequence[float], high: Sequence[float]) -> ProtocolConfig:
        """Return the protocol for images whose stored values `low` and `high` are 0 and 1: only those of 8 bits are rounded to 8 bits."""
        is_8_bit = all(value == 0 for value in low) and all(value == 255 for value in high)
        return self if is_8_bit or self.quantise != "round" else replace(self, quantise="clip")

    def describe(self) -> str:
        """Return the protocol in a line for tables and reports, e.g. 'litsr: 8-bit, all bands, border ceil(scale), mean of images'."""
        precision = {"round": f"rounded to 0..{self.peak:g}", "clip": f"float clipped to 0..{self.peak:g}", "none": "float, not clipped"}[
            self.quantise
        ]
        space = "all bands" if self.space == "bands" else f"luma {self.space}"
        borders = {
            "none": "no border crop",
            "scale": "border scale px",
            "ceil_scale": "border ceil(scale) px",
            "scale_plus_6": "border ceil(scale)+6 px",
        }
        border = f"border {self.border} px" if isinstance(self.border, int) else borders[self.border]
        parts = [precision, space, border, "mean of images" if self.average == "mean_of_images" else "pooled error"]
        if self.epsilon:
            parts.append(f"epsilon {self.epsilon:g}")
        return f"{self.name}: " + ", ".join(parts)
