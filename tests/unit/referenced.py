"""What the tests of methods with a reference share."""

import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise


def batch(scale: int = 4, side: int = 32, ref_side: int | None = None) -> Batch:
    """Return two targets of a side, their LR images and references (of another side, if given), all random."""
    generator = torch.Generator().manual_seed(1)
    return Batch(
        metas=[SampleMeta("a"), SampleMeta("b")],
        size=(side, side),
        lr_size=(side // scale, side // scale),
        hr=torch.rand(2, 3, side, side, generator=generator),
        lr=torch.rand(2, 3, side // scale, side // scale, generator=generator),
        ref=torch.rand(2, 3, ref_side or side, ref_side or side, generator=generator),
    )


def noise() -> SeededNoise:
    """Return the noise of two images."""
    return SeededNoise([(0, 0), (0, 1)])
