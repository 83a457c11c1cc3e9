"""What of a model and a degradation does not fit together is told before anything runs."""

from __future__ import annotations

import pytest

from rsdiff.config import ConfigError
from rsdiff.degradations.gaussian import GaussianDegradationConfig
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.blinddiff import BlindDiffConfig
from rsdiff.methods.danv2 import DANv2Config
from rsdiff.methods.dcls import DCLSConfig
from rsdiff.methods.scdm import SCDMConfig
from rsdiff.methods.sr3 import SR3Config
from rsdiff.runs.compatibility import require_kernel_size, require_start
from rsdiff.runs.options import RunOptions, TaskOptions
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import EvaluateTask, TrainTask


def run_of(model: MethodConfig, kernel_size: int, task: TaskOptions) -> RunSettings:
    groups = {"model": model, "degradation": GaussianDegradationConfig(kernel_size=kernel_size)}
    return RunSettings(RunOptions(scale=4.0), task, groups, {"model": "mine", "degradation": "yours"}, {})


@pytest.mark.parametrize("model", [DANv2Config(), BlindDiffConfig()])
def test_kernels_of_another_size_than_a_model_is_trained_to_estimate_are_refused(model: MethodConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"kernels of 11 x 11 and model=mine is trained to estimate 21 x 21; set degradation\.kernel_size"
    ):
        require_kernel_size(run_of(model, 11, TrainTask()))
    require_kernel_size(run_of(model, 21, TrainTask()))
    require_kernel_size(run_of(model, 11, EvaluateTask()))


@pytest.mark.parametrize("model", [SR3Config(), SCDMConfig()])
def test_a_sampler_that_begins_at_an_image_is_refused_where_the_model_has_none_of_these_bands(model: MethodConfig) -> None:
    groups = {"model": model, "sampler": SamplerConfig(start="image_edm")}
    run = RunSettings(RunOptions(scale=1.0), TrainTask(), groups, {"model": "mine", "sampler": "yours"}, {})
    with pytest.raises(ConfigError, match=r"sampler=yours begins at .* 3 bands for 48; choose one that begins at noise"):
        require_start(run, Problem(scale=1.0, bands=48, lr_bands=3))


def test_a_sampler_that_begins_at_an_image_goes_with_as_many_bands() -> None:
    groups = {"model": SR3Config(), "sampler": SamplerConfig(start="image_edm")}
    require_start(RunSettings(RunOptions(scale=4.0), TrainTask(), groups, {}, {}), Problem(scale=4.0, bands=3, lr_bands=3))


@pytest.mark.parametrize("model", [BlindDiffConfig(kernel_weight=0.0), DCLSConfig(kernel_size=31)])
def test_a_model_that_compares_no_kernels_takes_all_sizes(model: MethodConfig) -> None:
    require_kernel_size(run_of(model, 11, TrainTask()))
