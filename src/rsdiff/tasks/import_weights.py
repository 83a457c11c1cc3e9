"""task=import: convert released weights into a checkpoint of rsdiff, executing nothing of the file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import rsdiff
from rsdiff.config import plain_values
from rsdiff.data.normalisation import Normaliser
from rsdiff.methods.base import Problem
from rsdiff.tasks.experiment import build_method
from rsdiff.tasks.options import ImportTask
from rsdiff.tasks.result import TaskResult
from rsdiff.tasks.run_folder import RunFolder
from rsdiff.tasks.settings import RunSettings
from rsdiff.tracking import Tracker
from rsdiff.training.checkpoints import WEIGHTS, write_checkpoint
from rsdiff.training.trainer import load_weights
from rsdiff.weights.importer import files_in, import_weights


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Write the checkpoint into `output`, else into the run's folder.

    The model's settings are checked against the file; what a file cannot tell (bands, scale, value range) comes from the settings.
    Raises UnsafeFileError, ValueError or CheckpointError in one sentence.
    """
    task, source = settings.task, settings.source
    assert isinstance(task, ImportTask)
    assert source is not None
    kind = str(settings.resolved["model"]["kind"])
    config, weights = import_weights(kind, source, settings.model)
    problem = Problem(scale=settings.scale, bands=task.bands, lr_bands=task.lr_bands or task.bands)
    method = build_method(config, problem, settings.seed)
    load_weights(method, weights, source)
    parameters = sum(parameter.numel() for parameter in method.parameters())
    folder.require_space(5 * parameters)
    checkpoint = write_checkpoint(
        settings.output or folder.checkpoints,
        step=0,
        weights=method.state_dict(),
        averages=[],
        card={
            "config": {**settings.resolved, "model": {"kind": kind, **plain_values(config)}},
            "choices": dict(settings.choices),
            "problem": asdict(problem),
            "normaliser": asdict(Normaliser(task.low, task.high)),
            "signature": settings.signature,
            "version": rsdiff.__version__,
            "parameters": parameters,
            "imported_from": {"file": source.name, "sha256": sha256(source)},
        },
        training_state=None,
    )
    return TaskResult(
        messages=[
            f"{source.name}: {parameters} parameters of model={settings.choices['model']}",
            f"checkpoint {checkpoint}",
            f"next       python run.py task=restore checkpoint={checkpoint} input=IMAGE output=RESTORED.tif",
        ],
        summary={"parameters": parameters},
        report=checkpoint,
        files=[checkpoint / WEIGHTS],
    )


def sha256(source: Path) -> str:
    """Return the file's SHA-256 in hexadecimal; of a folder, those of its files in the order of their names."""
    digests = []
    for path in files_in(source):
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return " ".join(digests)
