"""BSRGAN's extended degradation: thirteen stages with Real-ESRGAN's ingredients (Poisson and speckle noise, enlarging, sharpened targets).

Source: degradation_bsrgan_plus of BSRGAN and KAIR (utils_blindsr.py); not in the paper. Deviations as in rsdiff.degradations.bsrgan.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsdiff.config import config
from rsdiff.degradations.bsrgan import (
    SharedOptions,
    Size,
    check_probabilities,
    draw_blur,
    draw_gaussian_noise,
    draw_speckle,
    size_after,
)
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.interpolation import INTERPOLATIONS
from rsdiff.degradations.practical import PracticalDegradation
from rsdiff.degradations.stages import PoissonNoise, Resize, Sharpen, Stage


@config
class BsrganPlusConfig(SharedOptions):
    """BSRGAN's extended degradation; the defaults are those of the published training files."""

    shuffle: float = 0.1
    "probability of a random order of all thirteen stages; otherwise only stages 2 to 5 and 9 to 12 are shuffled (function's default: 0.5)"
    sharpen: bool = False
    "sharpen the target before anything else"
    poisson: float = 0.1
    "probability of each of two Poisson noises"
    speckle: float = 0.1
    "probability of each of two multiplicative noises"

    def __post_init__(self) -> None:
        SharedOptions.__post_init__(self)
        check_probabilities(self, "shuffle", "poisson", "speckle")

    def build(self) -> PracticalDegradation:
        return PracticalDegradation(BsrganPlusPlan(self), self.crop, "bsrgan_plus")


@dataclass(frozen=True)
class BsrganPlusPlan:
    """Draws the stages of one image: `StageDraws` of the practical degradations."""

    config: BsrganPlusConfig

    def __call__(self, draws: Draws, bands: int, size: Size, scale: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        options = self.config
        target = (Sharpen(name="sharpen", backend="opencv" if options.backend == "opencv" else "separable"),) if options.sharpen else ()
        final, stages = (size[0] // scale, size[1] // scale), list[Stage]()
        for operation in self._operations(draws):
            stages += self._stage(draws, operation, bands, size, scale)
            size = size_after(stages[-1], size) if stages else size
        # Not limited to [0, 1], as published; the JPEG that follows does that.
        last = Resize(
            name="final_resize", height=final[0], width=final[1], mode=draws.choice(INTERPOLATIONS), backend=options.resizing, limited=False
        )
        return target, (*stages, last, options.jpeg_stage(draws, "final_jpeg"))

    def _operations(self, draws: Draws) -> list[int]:
        """Draw the order of the thirteen operations."""
        if draws.chance(self.config.shuffle):
            return draws.shuffled(range(13))
        return [0, 1, *draws.shuffled(range(2, 6)), 6, 7, 8, *draws.shuffled(range(9, 13))]

    def _stage(self, draws: Draws, operation: int, bands: int, size: Size, scale: int) -> list[Stage]:
        """Draw one operation: one stage, or none where it does not happen."""
        options = self.config
        match operation:
            case 0 | 7:
                return [draw_blur(draws, f"blur{operation}", scale, options.backend)]
            case 1 | 8:
                return self._random_resize(draws, f"resize{operation}", size, scale)
            case 2 | 9:
                return [draw_gaussian_noise(draws, f"noise{operation}", bands, size, options.noise)]
            case 3 | 10:
                return [draw_poisson(draws, f"poisson{operation}")] if draws.chance(options.poisson) else []
            case 4 | 11:
                return [draw_speckle(draws, f"speckle{operation}", bands, size, options.noise)] if draws.chance(options.speckle) else []
            case 5 | 12:
                return [options.camera_stage(draws, f"camera{operation}", bands, size)] if draws.chance(options.camera) else []
            case _:
                return [options.jpeg_stage(draws, "jpeg")]

    def _random_resize(self, draws: Draws, name: str, size: Size, scale: int) -> list[Stage]:
        """Draw an enlargement by up to 2 (probability 0.2), a reduction to as little as 0.5 / scale (0.7), or nothing (0.1)."""
        kind = draws.weighted(("up", "down", "keep"), (0.2, 0.7, 0.1))
        factor = 1.0 if kind == "keep" else draws.uniform(1, 2) if kind == "up" else draws.uniform(0.5 / scale, 1)
        height, width = (max(1, int(factor * side)) for side in size)
        return [Resize(name=name, height=height, width=width, mode=draws.choice(INTERPOLATIONS), backend=self.config.resizing)]


def draw_poisson(draws: Draws, name: str) -> PoissonNoise:
    """Draw 100 to 10,000 photons for a pixel of value 1 (uniform in the exponent), in all bands alike with probability 0.5."""
    return PoissonNoise(name=name, photons=10 ** draws.uniform(2, 4), is_grey=not draws.chance(0.5), seed=draws.seed())
