"""Several LR images of one place, the task of HighRes-net and WorldStrat: sub-pixel shifts, another light, noise and clouds in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.modality import Modality
from rsdiff.data.transfer import like
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue, common_lr_size


@config
class LooksConfig(DegradationConfig):
    """Area averages of the shifted target; the first image, which is not shifted, is also the LR."""

    count: int = 8
    """Images of a place."""
    shift: float = 1.0
    """Largest shift along rows and columns, in LR pixels."""
    light: float = 0.05
    """Largest relative difference of an image's brightness."""
    noise: float = 0.01
    """Standard deviation of the noise, in units of [0, 1]."""
    clouded: float = 0.0
    """Probability that a square of half the sides is missing in an image other than the first."""

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.shift, self.light, self.noise) < 0 or not 0 <= self.clouded <= 1:
            raise UserError(
                f"count={self.count}, shift={self.shift}, light={self.light}, noise={self.noise} and clouded={self.clouded} were given; "
                "choose at least 1 image, numbers of 0 or more, and a probability."
            )

    def build(self) -> Looks:
        return Looks(self)


@dataclass(frozen=True)
class LooksDecisions:
    """lr_size (h, w); shifts (K, 2) in LR pixels, rows first; light (K,); noise (K, c, h, w); known (K, 1, h, w) of 0/1."""

    lr_size: tuple[int, int]
    shifts: Tensor
    light: Tensor
    noise: Tensor
    known: Tensor


@dataclass(frozen=True)
class Looks:
    """The `Degradation` of a `LooksConfig`."""

    config: LooksConfig

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"looks"})

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[LooksDecisions]:
        options, (h, w) = self.config, lr_size
        made = []
        for _ in range(views):
            shifts = options.shift * (2 * torch.rand(options.count, 2, generator=generator) - 1)
            light = 1 + options.light * (2 * torch.rand(options.count, generator=generator) - 1)
            shifts[0], light[0] = 0, 1
            noise = options.noise * torch.randn(options.count, hr_shape[0], h, w, generator=generator)
            known = torch.ones(options.count, 1, h, w)
            for image in range(1, options.count):
                is_clouded = float(torch.rand((), generator=generator)) < options.clouded
                top, left = (int(torch.randint(0, side - side // 2 + 1, (), generator=generator)) for side in (h, w))
                if is_clouded:
                    known[image, :, top : top + h // 2, left : left + w // 2] = 0
            made.append(LooksDecisions(lr_size, shifts, light, noise, known))
        return made

    def apply(self, hr: Tensor, decisions: Sequence[LooksDecisions]) -> Degraded:
        size = common_lr_size(len(hr), [d.lr_size for d in decisions])

        def put(tensors: Sequence[Tensor]) -> Tensor:
            return like(torch.stack(list(tensors)), hr)

        shifts, count = put([d.shifts for d in decisions]), self.config.count
        images = hr[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
        lr = F.interpolate(shifted(images, shifts.flatten(0, 1) * (hr.shape[-2] / size[0])), size=size, mode="area")
        looks = lr.unflatten(0, (len(hr), count)) * put([d.light for d in decisions])[..., None, None, None]
        looks = (looks + put([d.noise for d in decisions])).clamp(0, 1)
        known = put([d.known for d in decisions])
        valid = None if bool(torch.stack([d.known.amin() for d in decisions]).amin() > 0) else known.expand_as(looks)
        return Degraded(lr=looks[:, 0], hr=hr, modalities={"looks": Modality(looks, valid)})

    def reach(self, decisions: LooksDecisions, scale: float) -> Reach:
        return Reach(int(scale))  # of the LR; of the other images there is a validity of their own

    def record(self, decisions: LooksDecisions) -> dict[str, RecordValue]:
        return {"looks": len(decisions.shifts)}


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose ground moved by shifts (N, 2), rows and columns in pixels; bilinear, borders repeat."""
    height, width = images.shape[-2:]
    theta = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2], theta[:, 1, 2] = -2 * shifts[:, 1] / width, -2 * shifts[:, 0] / height
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
