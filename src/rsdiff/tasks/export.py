"""task=export: a checkpoint's weights for use elsewhere, checked by reading them again.

pth, safetensors   under the published names, for the published code; read again by the importer of task=import
onnx, torchscript  a network that restores in one evaluation, as a program that runs without rsdiff, see rsdiff.weights.programs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rsdiff.config import ConfigError, UserError, config_from_mapping
from rsdiff.config.ours import typed
from rsdiff.data.durable import write_tensors
from rsdiff.methods import METHODS
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import ExportTask
from rsdiff.tracking import Tracker
from rsdiff.training.built import build_method, method_from
from rsdiff.training.checkpoints import Checkpoint, read_checkpoint
from rsdiff.training.origin import origin_of, sha256
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.advice import differences
from rsdiff.weights.programs import export_program, format_of


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Write `output`; raises UserError in one sentence where the weights mean nothing elsewhere or were not read back alike."""
    task, output = settings.task, settings.output
    assert isinstance(task, ExportTask)
    assert output is not None
    form = format_of(output, task.format)
    checkpoint = read_checkpoint(settings.checkpoint) if settings.checkpoint is not None else None
    output.parent.mkdir(parents=True, exist_ok=True)
    if form in ("pth", "safetensors"):
        if checkpoint is None:
            raise ConfigError(f"task=export to {output.name} needs the weights to export; add checkpoint=RUN_FOLDER.")
        messages = export_published(checkpoint, settings.scale, output, form)
    else:
        method, problem = method_to_export(settings, checkpoint)
        messages = export_program(method, problem, output, form, task.side)
        messages.append(f"weights  {origin_of(checkpoint, settings.model.files, method)}")
    return TaskResult([f"{output} (SHA-256 {sha256([output])})", *messages], {"bytes": output.stat().st_size}, output, [output])


def export_published(checkpoint: Checkpoint, scale: float, output: Path, form: str) -> list[str]:
    """Write a checkpoint's weights under their published names, read them back, and return the lines to print."""
    model = dict(checkpoint.card["config"]["model"])
    kind = str(model.pop("kind"))
    config: MethodConfig = config_from_mapping(METHODS[kind], model, "model")
    weights, judges = checkpoint.best_weights, method_from(checkpoint, scale).method.training_only
    published = {name: value.detach().contiguous().clone() for name, value in export_weights(kind, config, weights).items()}
    if form == "safetensors":
        facts = {
            "format": "pt",
            "rsdiff_model": json.dumps({"kind": kind, **model}),
            "rsdiff_problem": json.dumps(checkpoint.card["problem"]),
        }
        write_tensors(output, published, facts)
    else:
        torch.save(published, output)
    needed = {name: value for name, value in weights.items() if not name.startswith(judges)}
    try:
        untold = read_back(kind, config, needed, output)
    except ValueError as error:
        output.unlink()
        raise UserError(f"the weights of kind {kind} were not read back from the file, which was removed: {error}") from error
    count = sum(value.numel() for value in published.values())
    numbers = f"{count:,}".replace(",", " ")
    told = [f"{len(published)} tensors of kind {kind} under their published names, {numbers} numbers; read back alike"]
    if untold:
        told.append(f"the file does not tell {' '.join(untold)}: type them with task=import")
    return told


def read_back(kind: str, config: MethodConfig, weights: Mapping[str, Tensor], output: Path) -> list[str]:
    """Read an exported file as task=import does and return what it does not tell of the model; raises ValueError where weights differ."""
    _, again = import_weights(kind, output, config)
    different = [name for name, value in weights.items() if name not in again or not torch.equal(again[name].to(value), value)]
    if different:
        raise UserError(f"{len(different)} tensors differ or are missing, such as '{different[0]}'.")
    try:
        made, _ = import_weights(kind, output)
    except (ValueError, KeyError):
        return []
    return [f"model.{'.'.join(path)}={typed(value)}" for path, value in differences(made, config).items()]


def method_to_export(settings: RunSettings, checkpoint: Checkpoint | None) -> tuple[Method, Problem]:
    """Return the method with its weights: of a checkpoint, or of a file that it reads itself."""
    if checkpoint is not None:
        trained = method_from(checkpoint, settings.scale, settings.model)
        return trained.method, trained.problem
    if not settings.model.is_ready:
        raise ConfigError(f"model={settings.choices['model']} has weights to learn, so task=export needs checkpoint=RUN_FOLDER.")
    problem = Problem(settings.scale, 3, 3)
    return build_method(settings.model, problem, settings.seed).eval(), problem
