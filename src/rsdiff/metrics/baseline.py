"""The baselines that stand beside every method: bicubic interpolation, or for methods that add bands a regression per pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


def bicubic(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `lr` (C, h, w) enlarged to (C, H, W) as MATLAB's imresize does (a = -0.5, symmetric border); may leave [0, 1]."""
    from rsdiff.degradations.resizing import resize  # with Pillow, which the options of metrics do without

    return resize(lr[None].float(), size, "matlab")[0]


@dataclass(frozen=True)
class Baseline:
    """What is scored beside a method, on the same images.

    name      begins its columns (`bicubic_psnr`) and heads its column of the tables
    restore   (LR (c, h, w) in [0, 1], size (H, W)) -> (C, H, W)
    any_bands whether C may differ from c; without it, images with other bands than their LR have no baseline
    """

    name: str
    restore: Callable[[Tensor, tuple[int, int]], Tensor]
    any_bands: bool = False


BICUBIC = Baseline("bicubic", bicubic)
