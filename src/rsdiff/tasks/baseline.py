"""What is scored beside a method: bicubic interpolation or, where bands are added, a linear regression on the training images."""

from __future__ import annotations

from torch import Tensor

from rsdiff.data.sample import collate
from rsdiff.data.source import ImageSource
from rsdiff.degradations import degrade
from rsdiff.methods.base import Problem
from rsdiff.methods.spectral_linear import SpectralLinearConfig
from rsdiff.metrics.baseline import BICUBIC, Baseline
from rsdiff.networks.running_regression import RunningRegression
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import sets_to_test

MOST_IMAGES = 100
"""Training images that the regression is fitted to, evenly spaced over the split."""


def needs_training_images(settings: RunSettings, problem: Problem) -> bool:
    """Say whether `baseline_for` reads training images: where bands are added to pixels that stay."""
    return bool(settings.metrics.baseline) and problem.scale == 1 and problem.lr_bands != problem.bands


def baseline_for(settings: RunSettings, problem: Problem, training: ImageSource) -> Baseline:
    """Return the baseline of a run; `training` are the images that its method may learn from, taken whole."""
    if not needs_training_images(settings, problem):
        return BICUBIC
    regression = RunningRegression(problem.lr_bands, problem.bands, SpectralLinearConfig().ridge)
    first = sets_to_test(settings, training)[0]
    count = min(len(training), MOST_IMAGES)
    for number in range(count):
        batch = degrade(collate([first.samples[number * len(training) // count]]), first.degradation)
        regression.accumulate(batch.need("lr"), batch.need("hr"), batch.whole_pixels)
    regression.solve()

    def restore(lr: Tensor, size: tuple[int, int]) -> Tensor:
        return regression.to(lr.device)(lr[None].float())[0].clamp(0, 1)

    return Baseline("linear", restore, any_bands=True)
