"""DANv2: a restorer and a kernel estimator with shared weights, called in turn (Luo et al., arXiv 2105.06878)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.config.reading import require_at_least
from rsdiff.data.problem import Problem
from rsdiff.degradations.pca import encode_kernels
from rsdiff.networks.layers import DualPathGroup, shuffle_upscale

SLOPE = 0.2
ESTIMATOR_WIDTH = 64
"""Published code gives its estimator no width option; image and condition streams have half of it."""


@config
class DANv2NetConfig:
    """Sizes of restorer and estimator. The defaults are those of setting 1."""

    width: int = 64
    """Channels of the restorer."""
    groups: int = 5
    """Dual-path groups of the restorer; each doubles its streams, so more than 5 overflow easily."""
    blocks: int = 10
    """Dual-path blocks per group."""
    estimator_width: int = ESTIMATOR_WIDTH
    """Channels before the kernel's taps; the estimator's streams have half as many."""
    estimator_blocks: int = 5
    """Dual-path blocks of the estimator."""
    loops: int = 4
    """Turns of restorer and estimator."""

    def __post_init__(self) -> None:
        require_at_least(self, width=1, groups=1, blocks=1, estimator_blocks=1, loops=1)


class DualPathBlock(nn.Module):
    """The condition stream gates the image stream: a <- a + g(a) h(b), b <- b + h(b); g and h are two convolutions each.

    width            channels of both streams
    image_kernel     side of g's kernels
    condition_kernel side of h's; 1 where b is a vector (B, width, 1, 1), which then gates channels
    """

    def __init__(self, width: int, image_kernel: int, condition_kernel: int) -> None:
        super().__init__()
        self.image = _two_convolutions(width, image_kernel)
        self.condition = _two_convolutions(width, condition_kernel)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        h = self.condition(condition)
        return image + self.image(image) * h, condition + h


def _two_convolutions(width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=kernel // 2),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(width, width, kernel, padding=kernel // 2),
    )


class Restorer(nn.Module):
    """LR image (B, c, h, w) and kernel code (B, L) -> image (B, C, scale h, scale w), unbounded; no skip from the input."""

    def __init__(self, options: DANv2NetConfig, problem: Problem, code_length: int) -> None:
        super().__init__()
        width = options.width
        self.head_image = nn.Conv2d(problem.lr_bands, width, 3, padding=1)
        self.head_code = nn.Conv2d(code_length, width, 1)
        self.groups = nn.ModuleList(DualPathGroup(DualPathBlock(width, 3, 1) for _ in range(options.blocks)) for _ in range(options.groups))
        self.fusion = nn.Conv2d(width, width, 3, padding=1)
        self.upscale = shuffle_upscale(width, problem.bands, int(problem.scale))

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        image, condition = self.head_image(lr), self.head_code(code[:, :, None, None])
        for group in self.groups:
            image, condition = group(image, condition)
        enlarged: Tensor = self.upscale(self.fusion(image))
        return enlarged


class Estimator(nn.Module):
    """Restored image (B, C, scale h, scale w) and LR image (B, c, h, w) -> kernel (B, k * k), row by row, >= 0, sum 1."""

    def __init__(self, options: DANv2NetConfig, problem: Problem, kernel_size: int) -> None:
        super().__init__()
        half, scale = options.estimator_width // 2, int(problem.scale)
        self.head_lr = nn.Conv2d(problem.lr_bands, half, 5, padding=2)
        self.head_sr = nn.Conv2d(problem.bands, half, 4 * scale + 1, stride=scale, padding=2 * scale)
        self.group = DualPathGroup(DualPathBlock(half, 3, 3) for _ in range(options.estimator_blocks))
        self.widen = nn.Conv2d(half, options.estimator_width, 3, padding=1)
        self.taps = nn.Conv2d(options.estimator_width, kernel_size**2, 1)

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        feature, _ = self.group(self.head_lr(lr), self.head_sr(sr))
        pooled = self.widen(feature).mean(dim=(-2, -1), keepdim=True)
        return F.softmax(self.taps(pooled).flatten(1), dim=1)


@dataclass
class Unrolled:
    """What every loop returns: images (B, C, H, W), kernels (B, k * k) and their codes (B, L)."""

    images: list[Tensor]
    kernels: list[Tensor]
    codes: list[Tensor]


class DANv2(nn.Module):
    """`loops` turns of restorer and estimator, starting from a delta kernel.

    basis  (k * k, L), the kernel's principal directions (rsdiff.degradations.pca), a buffer
    Neither network sees the other's graph: kernel codes and images are detached on their way from one to the other.
    """

    basis: Tensor

    def __init__(self, options: DANv2NetConfig, problem: Problem, basis: Tensor) -> None:
        super().__init__()
        taps, code_length = basis.shape
        self.kernel_size = round(taps**0.5)
        self.loops = options.loops
        self.register_buffer("basis", basis)
        self.restorer = Restorer(options, problem, code_length)
        self.estimator = Estimator(options, problem, self.kernel_size)

    def unroll(self, lr: Tensor, train_last: bool = False) -> Unrolled:
        """Return the results of every loop for lr (B, c, h, w) in [0, 1].

        train_last  record gradients of the last loop only, the one that the published objective trains
        """
        delta = lr.new_zeros(len(lr), self.kernel_size, self.kernel_size)
        delta[:, self.kernel_size // 2, self.kernel_size // 2] = 1
        code = encode_kernels(delta, self.basis)
        results = Unrolled([], [], [])
        for loop in range(self.loops):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (loop == self.loops - 1 or not train_last)):
                image = self.restorer(lr, code.detach())
                kernel = self.estimator(image.detach(), lr)
                code = encode_kernels(kernel.view_as(delta), self.basis)
            results.images.append(image)
            results.kernels.append(kernel)
            results.codes.append(code)
        return results

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last loop's image (B, C, H, W) and kernel (B, k, k)."""
        results = self.unroll(lr, train_last=True)
        return results.images[-1], results.kernels[-1].view(len(lr), self.kernel_size, self.kernel_size)
