"""task=import: convert released weights into a checkpoint of rsdiff, without running any code it contains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import rsdiff
from rsdiff.config import ConfigError, plain_values
from rsdiff.data.normalisation import Normaliser
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.runs.command import restore_with
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import ImportTask
from rsdiff.tracking import Tracker
from rsdiff.training.built import build_method
from rsdiff.training.checkpoints import WEIGHTS, write_checkpoint
from rsdiff.training.origin import IMPORTED, sha256
from rsdiff.training.starting import load_weights
from rsdiff.weights.importer import files_in, import_weights

SCALES = (1.0, 2.0, 3.0, 4.0, 8.0, 16.0)
"""Tried with a file that does not fit the scale asked for."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Write the checkpoint into `output`, else into the run's folder.

    The model's settings are checked against the file; what a file does not contain (bands, scale, value range) comes from the settings.
    Raises UnsafeFileError, ValueError or CheckpointError in one sentence.
    """
    task, source = settings.task, settings.source
    assert isinstance(task, ImportTask)
    assert source is not None
    kind = str(settings.resolved["model"]["kind"])
    config, weights = import_weights(kind, source, settings.model)
    problem = Problem(scale=settings.scale, bands=task.bands, lr_bands=task.lr_bands or task.bands)
    method = build_method(config, problem, settings.seed)
    if not has_tensors(method, weights):
        require_scale_of_file(config, problem, weights, source)
    load_weights(method, weights, source)
    parameters = method.parameter_count()
    folder.require_space(5 * parameters)
    checkpoint = write_checkpoint(
        settings.output or folder.checkpoints,
        step=0,
        weights={name: value for name, value in method.state_dict().items() if name in weights},
        averages=[],
        card={
            "config": {**untrained(settings.resolved), "model": {"kind": kind, **plain_values(config)}},
            "choices": dict(settings.choices),
            "problem": asdict(problem),
            "normaliser": asdict(Normaliser(task.low, task.high)),
            "signature": settings.signature,
            "version": rsdiff.__version__,
            "parameters": parameters,
            IMPORTED: {"file": source.name, "sha256": sha256(files_in(source))},
        },
        training_state=None,
    )
    return TaskResult(
        messages=[
            f"{source.name}: {parameters:,} parameters of model={settings.choices['model']} ({method.architecture})".replace(",", " "),
            f"checkpoint {checkpoint}",
            f"next       {restore_with(str(checkpoint))}",
        ],
        summary={"parameters": parameters},
        report=checkpoint,
        files=[checkpoint / WEIGHTS],
    )


def untrained(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return composed settings without those of a training, of which an imported file says nothing."""
    return {name: values for name, values in resolved.items() if name not in ("trainer", "logger", "task")}


def has_tensors(method: Method, weights: Mapping[str, Tensor]) -> bool:
    """Whether a method's tensors have the names and shapes of `weights`, but for what only training uses."""
    own = {name: value.shape for name, value in method.state_dict().items() if name in weights or not name.startswith(method.training_only)}
    return own == {name: value.shape for name, value in weights.items()}


def require_scale_of_file(config: MethodConfig, problem: Problem, weights: Mapping[str, Tensor], source: Path) -> None:
    """Raise ConfigError if `weights` fit the method at another scale than the problem's."""
    others = [replace(problem, scale=scale) for scale in SCALES if scale != problem.scale]
    fitting = [f"scale={other.scale:g}" for other in others if fits(config, other, weights)]
    if fitting:
        raise ConfigError(
            f"the tensors of {source.name} are those of {' and '.join(fitting)}, not of scale={problem.scale:g}; set scale to what the "
            "file was released for."
        )


def fits(config: MethodConfig, problem: Problem, weights: Mapping[str, Tensor]) -> bool:
    """Whether the method that `config` builds for `problem` has the tensors of `weights`."""
    try:
        return has_tensors(build_method(config, problem, seed=0), weights)
    except ValueError:
        return False
