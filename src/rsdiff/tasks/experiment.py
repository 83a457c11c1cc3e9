"""What training, evaluation and restoration build alike from the settings: processes, data, degradation, method."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs

from rsdiff.config import ConfigError, UserError
from rsdiff.config.computing import Precision
from rsdiff.data.precision import set_float32
from rsdiff.data.source import ImageSource
from rsdiff.degradations.base import DegradationConfig
from rsdiff.degradations.test_sets import TestSet, build_test_sets
from rsdiff.methods.base import Method, Problem
from rsdiff.runs.console import say_once
from rsdiff.runs.settings import RunSettings
from rsdiff.training.allocation import keep_freed_memory
from rsdiff.training.built import build_method, method_from
from rsdiff.training.checkpoints import Checkpoint, read_checkpoint
from rsdiff.training.origin import origin_of
from rsdiff.training.processes import process_timeout
from rsdiff.weights.trained_scales import beyond_training

SPLITTING = frozenset({DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM})
"""Ways of Accelerate's to train that share out the weights of a model."""


_ONE_AT_A_TIME = Lock()
"""Accelerate's state is one for the process: a second thread would see it half made."""


def make_accelerator(precision: Precision = "no", tf32: bool = False, cudnn_benchmark: bool = False) -> Accelerator:
    """Return the Accelerate handle of this process, which waits for others no longer than `process_timeout` says.

    By default a GPU computes in float32 as a CPU does, so that restored images and scores are the same on both.
    """
    set_float32(tf32, cudnn_benchmark)
    with _ONE_AT_A_TIME:
        accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[InitProcessGroupKwargs(timeout=process_timeout())])
    if accelerator.distributed_type in SPLITTING:
        raise UserError(
            f"Accelerate was configured for {accelerator.distributed_type.value}, which splits a model over GPUs, and here every process "
            "holds the whole model; start with `accelerate launch --multi_gpu`, and where the memory is too small set "
            "trainer.accumulate=auto."
        )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def degradation_for(settings: RunSettings, source: ImageSource) -> DegradationConfig:
    """Return the options of the degradation, told the wavelengths of the data."""
    degradation: DegradationConfig = settings.degradation
    return degradation.for_wavelengths(source.wavelengths)


def sets_to_test(settings: RunSettings, source: ImageSource) -> list[TestSet]:
    """Return the images of a split under every degradation of the run."""
    return build_test_sets(source, settings.degradation, settings.scale, settings.seed, settings.dataset.size_rule)


def problem_of(settings: RunSettings, source: ImageSource) -> Problem:
    """Return what the method must know of the data."""
    bands = source.bands
    lr_bands = source.lr_bands if "lr" in source.gives else degradation_for(settings, source).lr_bands(bands)
    return Problem(scale=settings.scale, bands=bands, lr_bands=lr_bands)


def tested_method(settings: RunSettings, problem: Problem) -> tuple[Method, Checkpoint | None]:
    """Return the method of the run's checkpoint, or one that needs no training, for images of `problem`, ready to restore."""
    if settings.checkpoint is None:
        if not settings.model.is_ready:
            raise ConfigError(
                f"model={settings.choices['model']} has weights to learn, so task={settings.choices['task']} needs checkpoint=RUN_FOLDER."
            )
        return build_method(settings.model, problem, settings.seed).eval(), None
    checkpoint = read_checkpoint(settings.checkpoint)
    trained = method_from(checkpoint, settings.scale, settings.model)
    say_scales(checkpoint, settings.scale)
    if (trained.problem.bands, trained.problem.lr_bands) != (problem.bands, problem.lr_bands):
        raise UserError(
            f"the checkpoint was trained on {trained.problem.lr_bands} to {trained.problem.bands} bands and "
            f"dataset={settings.choices['dataset']} has {problem.lr_bands} to {problem.bands}; choose data with as many bands."
        )
    return trained.method, checkpoint


def say_scales(checkpoint: Checkpoint, scale: float) -> None:
    """Say, once for a command, where a scale lies outside those that a checkpoint was trained at."""
    say_once([f"caution  {sentence}" for sentence in beyond_training(checkpoint.card, checkpoint.name, scale)])


def methods_beside(settings: RunSettings, first: Checkpoint | None, samples: int) -> tuple[Method, ...]:
    """Return the methods of the checkpoints that task.ensemble names, which restore further samples, ready to restore.

    Raises UserError where they cannot restore what `first` restores, or fewer samples are wanted than there are checkpoints.
    """
    if not settings.task.beside:
        return ()
    if first is None:
        raise ConfigError("task.ensemble names checkpoints beside the one to restore with; add checkpoint=RUN_FOLDER.")
    if not settings.beside:
        raise ConfigError("task.ensemble names the checkpoint itself; name others, for example of trainings with other seeds.")
    count = len(settings.beside) + 1
    if samples < count:
        raise ConfigError(f"{count} checkpoints restore, one sample each, and task.samples={samples} was given; set task.samples={count}.")
    methods = []
    for place in settings.beside:
        other = read_checkpoint(place)
        trained = method_from(other, settings.scale)
        say_scales(other, settings.scale)
        for what, values in (
            ("bands", [[card["problem"]["lr_bands"], card["problem"]["bands"]] for card in (first.card, other.card)]),
            ("values as 0 and 1", [card["normaliser"] for card in (first.card, other.card)]),
        ):
            if values[0] != values[1]:
                raise UserError(
                    f"task.ensemble: {place} was trained with other {what} than {first.folder} ({values[1]}, not {values[0]}); "
                    "name trainings on the same data."
                )
        methods.append(trained.method)
    return tuple(methods)


def weights_beside(settings: RunSettings, methods: Sequence[Method]) -> list[str]:
    """Return a line for the weights of every method of task.ensemble."""
    origins = [origin_of(read_checkpoint(place), (), method) for place, method in zip(settings.beside, methods, strict=True)]
    return [f"ensemble {origin}" for origin in origins]
