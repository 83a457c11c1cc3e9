"""task=train: train a method, evaluate its best checkpoint, write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

import rsdiff
from rsdiff.config import UserError
from rsdiff.data.digests import short_digests
from rsdiff.data.holdout import hold_out
from rsdiff.data.loading import KeyBatches, make_loader, steps_of
from rsdiff.data.precision import set_float32
from rsdiff.data.sample import Batch, collate
from rsdiff.data.source import ImageSource
from rsdiff.data.views import Draw, SampleKey, TrainingSamples
from rsdiff.degradations import Degradation, degrade, named_cases
from rsdiff.degradations.base import counted_by
from rsdiff.degradations.test_sets import draw_of
from rsdiff.inference.compilation import run_as_written
from rsdiff.inference.images import Execution, restore_images
from rsdiff.inference.speed import words
from rsdiff.methods.base import Method, Problem
from rsdiff.metrics.baseline import Baseline
from rsdiff.runs.compatibility import require_start
from rsdiff.runs.console import say, say_once
from rsdiff.runs.predecessor import begin, extended_checkpoint
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import evaluate, plan, used_data
from rsdiff.tasks.baseline import baseline_for
from rsdiff.tasks.evaluation import build_test_cases
from rsdiff.tasks.experiment import degradation_for, make_accelerator, problem_of, sets_to_test
from rsdiff.tasks.speeding import trained_fast
from rsdiff.tracking import Tracker
from rsdiff.training.built import build_method
from rsdiff.training.checkpoints import WEIGHTS, read_checkpoint
from rsdiff.training.config import TrainerConfig
from rsdiff.training.micro_batches import fewest_micro_batches, free_for_this_process, images_at_once, recall, remember
from rsdiff.training.processes import gather_rows, smallest_of_processes
from rsdiff.training.speed import Passes, chosen_of, images_to_try
from rsdiff.training.starting import load_weights, load_what_fits
from rsdiff.training.trainer import Trainer
from rsdiff.weights.trained_scales import SCALES


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Train (or continue), then evaluate and report; see the trainer and rsdiff.tasks.evaluate."""
    config = settings.trainer
    accelerator = make_accelerator(config.precision, config.tf32, config.cudnn_benchmark)
    everything, test = settings.split("train"), settings.split("test")
    options = degradation_for(settings, everything)
    ((_, degradation),) = named_cases(options.build())
    source, held_out = hold_out(everything, config.validation_images, settings.scale)
    said = used_data.sentences(settings, test, source, held_out)
    if accelerator.is_main_process:
        say(said)
    problem = problem_of(settings, source)
    require_start(settings, problem)
    draw = draw_of(degradation, source)
    samples = samples_of(settings, source, degradation, draw)
    method = build_method(settings.model, problem, settings.seed)
    start = settings.starting_point
    if start is not None:
        if config.partial:
            say(load_what_fits(method, read_checkpoint(start).best_weights, start).lines(start))
        else:
            begin(method, settings.model, settings.resolved["model"]["kind"], (problem.bands, problem.lr_bands), start)
            say([f"starting from {start}"])
    baseline = baseline_for(settings, problem, everything)  # as task=evaluate will, which holds nothing out
    cases = build_test_cases(settings, test, problem.bands, accelerator.device, baseline)
    say_once(cases[0].evaluator.check())
    say(config.cautions())
    parameters = method.parameter_count()
    if accelerator.is_main_process:
        # weights, two moments per weight and averages, for the checkpoints that are kept and the one being written
        folder.require_space(4 * parameters * 5 * (config.keep_checkpoints + 2))

    def passes() -> Passes:
        split = config.accumulate if config.accumulate != "auto" else config.batch
        share = max(1, config.batch // accelerator.num_processes // split)
        batch = first_images(samples, images_to_try(method, share, accelerator.device))
        return Passes(method, degradation, accelerator.device, settings.seed, batch)

    config = trained_fast(config, folder, accelerator, passes)

    def loader(start: int) -> Iterator[Sequence[Batch]]:
        world, rank = accelerator.num_processes, accelerator.process_index
        batches = KeyBatches(len(samples), config.batch, settings.seed, start, rank, world, accumulate)
        in_workers = draw is not None and options.in_workers
        finish = partial(degrade_in_worker, degradation) if in_workers else None
        return steps_of(make_loader(samples, batches, config.workers, finish), accumulate)

    trainer = Trainer(
        config=config,
        method=method,
        degradation=degradation,
        loader=loader,
        validate=validation_of(settings, config, method, held_out, baseline, accelerator, tracker),
        journal=tracker,
        accelerator=accelerator,
        store=folder.checkpoints,
        card=card_of(settings, config, problem, source, parameters),
        seed=settings.seed,
        say=say,
    )
    if not trainer.resume() and config.extend is not None:
        extended = extended_checkpoint(config.extend, settings.outputs)
        trainer.extend(extended)
        say([f"extending {extended.parents[1]}: from its step {trainer.step} to {config.steps}"])
    accumulate = config.accumulate if config.accumulate != "auto" else micro_batches(trainer, samples, folder)
    if accelerator.is_main_process:
        say([plan.training(settings, parameters, trainer.step, len(test), accelerator)])
        tracker.rewind(trainer.step)
    trainer.fit()
    cost = {name: value for name, value in trainer.budget.state().items() if value is not None}  # now: what follows is no training
    if not trainer.budget.is_spent(trainer.step):
        say([f"stopped early after step {trainer.step}: the last {config.patience} validations brought no improvement."])
    best = read_checkpoint(folder.path)
    load_weights(method, best.best_weights, best.folder)
    method.eval()
    run_as_written(method.to(memory_format=torch.contiguous_format))  # what follows is scored as task=evaluate would
    set_float32(tf32=False, cudnn_benchmark=False)
    if accelerator.is_main_process:
        tracker.model(best.folder)
    result = evaluate.report(settings, method, cases, best, folder, tracker, accelerator, said)
    summary = {**result.summary, **({"steps": trainer.step, "parameters": parameters, **cost} if cost else {})}
    return replace(result, summary=summary, files=[*result.files, best.folder / WEIGHTS])


def samples_of(settings: RunSettings, source: ImageSource, degradation: Degradation, draw: Draw | None) -> TrainingSamples:
    """Return the crops that are trained on."""
    config = settings.trainer
    return TrainingSamples(
        source,
        settings.scale,
        config.patch,
        settings.seed,
        draw,
        views=settings.model.views,
        augment=config.augment,
        crop_step=config.crop_step,
        small=settings.dataset.small,
        scale_range=config.scale_range,
        scale_keeps=config.scale_keeps,
        make_lr=partial(lr_of, degradation) if config.scale_per == "image" else None,
        counting=None if draw is None else partial(counted_by, degradation, settings.scale),
        least_valid=config.least_valid,
    )


def card_of(settings: RunSettings, config: TrainerConfig, problem: Problem, source: ImageSource, parameters: int) -> dict[str, Any]:
    """Return the facts that every checkpoint of a training carries."""
    return {
        "config": settings.resolved,
        "choices": dict(settings.choices),
        "problem": asdict(problem),
        "normaliser": asdict(source.normaliser),
        "data": source.fingerprint(),
        used_data.TRAINED_ON: short_digests(source.contents()),
        "wavelengths": list(source.wavelengths),
        SCALES: list(settings.model.trained_scales(settings.scale, config.scale_range)),
        "signature": settings.signature,
        "version": rsdiff.__version__,
        "parameters": parameters,
        **({} if config.speed == "exact" else {"computed_with": words(chosen_of(config))}),
    }


def validation_of(
    settings: RunSettings,
    config: TrainerConfig,
    method: Method,
    held_out: ImageSource,
    baseline: Baseline,
    accelerator: Accelerator,
    tracker: Tracker,
) -> Callable[[int], dict[str, float]]:
    """Return what restores the images held out of the training data and gives their mean scores, called with the step.

    The networks compute as in training, in the trainer's precision and layout, and `validation_batch` images at once.
    """
    (tested,) = sets_to_test(settings, held_out)
    samples, degradation = tested.samples, tested.degradation
    evaluator = settings.metrics.for_validation(settings.trainer.best_metric).build(
        held_out.bands, True, None if "lr" in held_out.gives else degradation, accelerator.device, baseline
    )

    def validate(step: int) -> dict[str, float]:
        share = range(accelerator.process_index, len(samples), accelerator.num_processes)
        rows = []
        images = (samples[i] for i in share)
        for restored in restore_images(
            method,
            images,
            degradation,
            settings.sampler,
            settings.seed,
            accelerator.device,
            batch_size=config.validation_batch,
            execution=Execution(config.precision, channels_last=config.channels_last),
        ):
            rows += evaluator.rows(restored.batch, restored.image, restored.seconds)
            if accelerator.is_main_process and restored.batch.metas[0].index == 0:
                tracker.image("validation", evaluate.strip(restored, settings.metrics.rgb_bands), step)
        gathered = gather_rows(accelerator, rows)
        return {entry.metric.name: entry.mean for entry in evaluator.summary(gathered).metrics}

    return validate


def first_images(samples: TrainingSamples, count: int) -> Batch:
    """Return a batch of `count` crops to try something on."""
    return collate([samples[SampleKey(0, index % len(samples), 0)] for index in range(count)])


def micro_batches(trainer: Trainer, samples: TrainingSamples, folder: RunFolder) -> int:
    """Return how many micro-batches of this process's share of a step fit the memory; all processes find the same."""
    accelerator, batch = trainer.accelerator, trainer.config.batch
    at_once = recall(folder.path)
    if at_once is None:

        def step_bytes(images: int) -> int:
            return trainer.step_bytes(first_images(samples, images))

        found = images_at_once(step_bytes, trainer.standing_bytes, free_for_this_process(accelerator.device))
        at_once = min(batch, smallest_of_processes(accelerator, found))
        if accelerator.is_main_process:
            remember(folder.path, at_once)
    count = fewest_micro_batches(batch, accelerator.num_processes, at_once)
    if count > 1 and trainer.method.coupling and not trainer.config.split_coupled:
        raise UserError(
            f"trainer.batch={batch} does not fit the memory at once ({at_once} images do) and cannot be shared out, for "
            f"{trainer.method.coupling}; set trainer.batch={at_once * accelerator.num_processes} or a smaller trainer.patch, or "
            "trainer.split_coupled=true to accept other results."
        )
    if accelerator.is_main_process:
        share = batch // accelerator.num_processes // count
        say([f"trainer.accumulate=auto: {count} micro-batches of {share} images; {at_once} fit the memory at once"])
    return count


def degrade_in_worker(degradation: Degradation, batch: Batch) -> Batch:
    """Return the degraded batch without its decisions, whose noise arrays would only burden the way to the training process."""
    return replace(degrade(batch, degradation), decisions=[])


def lr_of(degradation: Degradation, hr: Tensor, decisions: Sequence[Any]) -> Tensor:
    """Return the LR images of hr (N, C, H, W) for training images that each have their own scale."""
    made = degradation.apply(hr, decisions)
    if made.hr.shape != hr.shape:
        raise UserError("trainer.scale_per=image needs a degradation that leaves the target as it is; choose another, or scale_per=batch.")
    return made.lr
