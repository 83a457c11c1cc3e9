"""task=fit-levels: noise levels with which a checkpoint's sampler comes nearest to its fine solution in few steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rsdiff.config import UserError, default_values
from rsdiff.config.reading import is_read
from rsdiff.data.holdout import hold_out
from rsdiff.data.sample import Batch, collate
from rsdiff.data.views import SampleKey
from rsdiff.degradations import named_cases
from rsdiff.degradations.test_sets import draw_of
from rsdiff.diffusion.fitting import fitted
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import MULTISTEP, SamplerConfig, UnstableGridError, walked_levels
from rsdiff.inference.images import restore
from rsdiff.methods.base import Method
from rsdiff.reporting.records import write_text
from rsdiff.runs.command import next_command
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import degradation_for, make_accelerator
from rsdiff.tasks.options import FitLevelsTask
from rsdiff.tasks.train import samples_of
from rsdiff.tracking import Tracker
from rsdiff.training.built import method_from
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.training.step import degrade_on

CONFIGS = "conf"
"""Folder of configs in the run's own, for --config-dir."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Fit the levels on half of some images held out of the training data, and tell the errors on the other half."""
    task, sampler = cast(FitLevelsTask, settings.task), settings.sampler
    require_deterministic(sampler)
    assert settings.checkpoint is not None, "the task needs a checkpoint"
    device, checkpoint = make_accelerator().device, read_checkpoint(settings.checkpoint)
    method = method_from(checkpoint, settings.scale, settings.model).method.to(device)
    batches = halves(settings, task, device)
    judges = [Judge(method, batch, sampler, task.fine_steps, settings.seed) for batch in batches]
    usual = judges[0].levels
    levels = fitted(
        usual, judges[0].lowest, judges[0].error, task.rounds, lambda done, total: tracker.progress("trying levels", done, total)
    )
    before, after = (judges[1].error(grid) ** 0.5 for grid in (usual, levels))
    if after < before:
        found = f"{after:.3g} with the fitted ones"
    else:
        levels, after, found = list(usual), before, "and none were found that are nearer: the usual ones are written"
    place = store(folder, judges[0].with_levels(levels))
    test = next_command(
        *("--config-dir", str(folder.path / CONFIGS), "task=evaluate"),
        *(f"checkpoint={checkpoint.name}", f"sampler={place.stem}"),
    )
    return TaskResult(
        messages=[
            f"error to the solution of {task.fine_steps} steps, on images the levels were not fitted on (root mean square, of images in "
            f"[0, 1]): {before:.3g} with the usual {len(usual)} levels, {found}",
            f"levels   {place}",
            f"next     {test}",
        ],
        summary={"levels": len(levels), "error_before": before, "error_after": after},
        files=[place],
    )


def store(folder: RunFolder, sampler: SamplerConfig) -> Path:
    """Write a sampler as a file that --config-dir finds, with every option that it reads, and return the path."""
    usual = default_values(SamplerConfig)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(sampler).items() if is_read(sampler, name)}
    options = [f"{name}: {json.dumps(value)}" for name, value in values.items() if name == "solver" or value != usual[name]]
    lines = [
        "# Levels fitted to a checkpoint by task=fit-levels: use them with that one alone.",
        "defaults: [/schema/sampler/solver@_here_, _self_]",
        "kind: solver",
        *options,
    ]
    place = folder.path / CONFIGS / "sampler" / f"fitted_{sampler.solver}_{len(sampler.sigmas)}.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, "\n".join([*lines, ""]))
    return place


def require_deterministic(sampler: SamplerConfig) -> None:
    """Raise UserError where noise in the steps would hide what the levels do."""
    quiet = sampler.solver in MULTISTEP or (sampler.solver == "ddim" and sampler.eta == 0)
    quiet = quiet or (sampler.solver in ("euler", "heun") and sampler.churn == 0)
    if not quiet or sampler.grid == "list":
        raise UserError(
            "levels are fitted for samplers that draw no noise in their steps and have a grid to begin from; choose sampler=dpmpp_2m, "
            "unipc, deis or ddim, and sampler.steps for the number of levels."
        )


def halves(settings: RunSettings, task: FitLevelsTask, device: torch.device) -> list[Batch]:
    """Return two batches of crops of training images that validation holds out, degraded: to fit on, and to tell the error on."""
    _, held_out = hold_out(settings.split("train"), task.images, settings.scale)
    if len(held_out) < 2:
        raise UserError(
            f"task.images={task.images}, of at most a fifth of the training images, leaves {len(held_out)}, and levels need two: one to be "
            "fitted on, one to tell the error on; raise it, or give data of ten training images or more."
        )
    ((_, degradation),) = named_cases(degradation_for(settings, held_out).for_tests().build())
    samples = samples_of(settings, held_out, degradation, draw_of(degradation, held_out))
    half = len(held_out) // 2
    parts = (range(half), range(half, 2 * half))
    return [degrade_on(collate([samples[SampleKey(0, index, 0)] for index in part]), device, degradation) for part in parts]


class Judge:
    """Compares restorations of a batch with those of many steps, from the same start noise.

    levels  of the sampler as it is set, without a final 0
    lowest  the lowest level of the fine solution
    """

    def __init__(self, method: Method, batch: Batch, sampler: SamplerConfig, fine_steps: int, seed: int) -> None:
        self.method, self.batch, self.sampler, self.seed = method, batch, sampler, seed
        _, self.levels = self._walked(sampler)
        try:
            self.fine, fine_levels = self._walked(replace(sampler, steps=fine_steps, stride=0))
        except UserError as error:
            raise UserError(f"task.fine_steps={fine_steps} gives no fine solution: {error}") from error
        if len(fine_levels) <= len(self.levels):
            raise UserError(
                f"task.fine_steps={fine_steps} is no finer than the {len(self.levels)} levels to be fitted; raise it, or take fewer "
                "sampler.steps."
            )
        self.lowest = min(fine_levels[-1], self.levels[-1])

    def with_levels(self, levels: Sequence[float]) -> SamplerConfig:
        """Return the sampler with other levels; what its grid alone reads is as if it had not been given."""
        of_grid = ("steps", "spacing", "stride", "rho", "sigma_min", "sigma_max")
        usual = SamplerConfig()
        unset: dict[str, Any] = {name: getattr(usual, name) for name in of_grid}
        return replace(self.sampler, grid="list", sigmas=tuple(levels), **unset)

    def error(self, levels: Sequence[float]) -> float:
        """Return the mean squared difference to the fine solution; infinite for levels on which the solver is unstable."""
        try:
            made = self._restored(self.with_levels(levels))
        except UnstableGridError:
            return float("inf")
        return float((made - self.fine).square().mean())

    def _walked(self, sampler: SamplerConfig) -> tuple[Tensor, list[float]]:
        with walked_levels() as walks:
            made = self._restored(sampler)
        if len(walks) != 1:
            raise UserError(
                f"this model samples {len(walks)} times per image, and one grid of levels is fitted; choose a model that samples once."
            )
        return made, [level for level in walks[0] if level > 0]

    @torch.no_grad()
    def _restored(self, sampler: SamplerConfig) -> Tensor:
        noise = SeededNoise([(self.seed, "fit-levels", meta.name, index) for index, meta in enumerate(self.batch.metas)])
        return restore(self.method, self.batch, sampler, noise)
