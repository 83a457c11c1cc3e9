"""What the practical degradations share: decisions that are lists of stages, and their application to a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.source import Window
from rsdiff.degradations.base import Degraded, Reach, RecordValue, common_lr_size, cut
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.stages import Resize, Stage, reach_of, run_stages


@dataclass(frozen=True, kw_only=True, eq=False)
class PracticalDecisions:
    """Everything drawn for one image.

    target_stages  make the target of the HR image (sharpening); often none
    stages         make the LR of the target, in their order of execution
    scale          target pixels per LR pixel and side
    crop           part of the LR that is kept, in LR pixels; the target is cut to the same ground
    """

    stages: tuple[Stage, ...]
    scale: int
    crop: Window
    target_stages: tuple[Stage, ...] = ()


class StageDraws(Protocol):
    """Draws the plan of one image."""

    def __call__(self, draws: Draws, bands: int, size: tuple[int, int], scale: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        """Return (target_stages, stages) for an image of `bands` bands and size (H, W), a multiple of the scale."""
        ...


@dataclass(frozen=True)
class PracticalDegradation:
    """A `Degradation` whose decisions are plans of stages.

    plan  draws them
    crop  side of the LR patch kept of every image, at a drawn position; None keeps all
    name  its option name, for messages
    """

    plan: StageDraws
    crop: int | None
    name: str

    @property
    def gives(self) -> frozenset[str]:
        return frozenset()

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[PracticalDecisions]:
        """Draw one plan for all views, and for each view its own noise (of the plan's levels) and position.

        Raises UserError where the ratio of the sizes is not a whole number or the crop is larger than the LR.
        """
        scale = whole_scale(hr_shape[1:], lr_size, self.name)
        draws = Draws(generator)
        size = (lr_size[0] * scale, lr_size[1] * scale)
        target_stages, stages = self.plan(draws, hr_shape[0], size, scale)
        decisions = []
        for view in range(views):
            renewed = stages if view == 0 else tuple(stage.renewed(draws) for stage in stages)
            crop = self._draw_crop(draws, lr_size)
            decisions.append(PracticalDecisions(stages=renewed, scale=scale, crop=crop, target_stages=target_stages))
        return decisions

    def _draw_crop(self, draws: Draws, lr_size: tuple[int, int]) -> Window:
        if self.crop is None:
            return Window(0, 0, *lr_size)
        if self.crop > min(lr_size):
            raise UserError(
                f"degradation.crop={self.crop} is larger than the LR of {lr_size[0]}x{lr_size[1]}; lower it, or raise trainer.patch."
            )
        return Window(draws.integer(0, lr_size[0] - self.crop), draws.integer(0, lr_size[1] - self.crop), self.crop, self.crop)

    def apply(self, hr: Tensor, decisions: Sequence[PracticalDecisions]) -> Degraded:
        """Degrade hr (N, C, H, W) in [0, 1]; the LR is in [0, 1] and 8-bit, as published."""
        common_lr_size(len(hr), [(d.crop.height, d.crop.width) for d in decisions])
        targets = run_stages(list(hr), [d.target_stages for d in decisions])
        lr = run_stages(targets, [d.stages for d in decisions])
        windows = [hr_window(d) for d in decisions]
        return Degraded(
            lr=torch.stack([cut(image, d.crop) for image, d in zip(lr, decisions, strict=True)]),
            hr=torch.stack([cut(image, window) for image, window in zip(targets, windows, strict=True)]),
            windows=windows,
        )

    def reach(self, decisions: PracticalDecisions, scale: float) -> Reach:
        """See Degradation; the last resizing of every plan leads to the size of the LR, whatever is cut from it afterwards."""
        final = next(stage for stage in reversed(decisions.stages) if isinstance(stage, Resize))
        stages = (*decisions.target_stages, *decisions.stages)
        return Reach(math.ceil(reach_of(stages, final.height * decisions.scale)), any(stage.mixes_bands for stage in stages))

    def record(self, decisions: PracticalDecisions) -> dict[str, RecordValue]:
        """Return '<stage>_<parameter>' of every stage and the order of the stages, e.g. {'blur0_width': 1.2, 'order': 'blur0 jpeg ...'}."""
        stages = (*decisions.target_stages, *decisions.stages)
        values = {f"{stage.name}_{key}": value for stage in stages for key, value in stage.record().items()}
        return {"order": " ".join(stage.name for stage in stages), **values}


def whole_scale(hr_size: Sequence[int], lr_size: tuple[int, int], name: str) -> int:
    """Return H // h if the LR is the HR cut to multiples of it; raises UserError otherwise."""
    scale = hr_size[0] // lr_size[0]
    if scale < 1 or tuple(side // scale for side in hr_size) != tuple(lr_size):
        raise UserError(
            f"degradation={name} makes LR images of 1/2, 1/3, 1/4, ... the size, and {hr_size[0]}x{hr_size[1]} was to become "
            f"{lr_size[0]}x{lr_size[1]}; set scale to a whole number."
        )
    return scale


def hr_window(decisions: PracticalDecisions) -> Window:
    """Return the part of the target that lies under the kept LR, in target pixels."""
    crop, scale = decisions.crop, decisions.scale
    return Window(crop.top * scale, crop.left * scale, crop.height * scale, crop.width * scale)
