"""task=publish: the weights of a checkpoint with a card for others, in a folder (`output=`), the zoo, or on Hugging Face's hub."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rsdiff.config import ConfigError
from rsdiff.data.durable import write_tensors
from rsdiff.runs.command import restore_with, shell_text
from rsdiff.runs.predecessor import locate
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import read_status
from rsdiff.tasks.import_weights import untrained
from rsdiff.tasks.options import PublishTask
from rsdiff.tracking import Tracker
from rsdiff.training.built import method_from
from rsdiff.training.checkpoints import FORMAT, Checkpoint, read_checkpoint
from rsdiff.training.origin import IMPORTED, origin_of, sha256
from rsdiff.weights.about import CARD, PAGE, WEIGHTS, About, about_of, page_of
from rsdiff.weights.stores import ALL_BYTES, MOST_BYTES, is_zoo, publish, require_intact, typed_name, zoo_entries
from rsdiff.weights.trained_scales import SCALES, trained_scales

OWN_FOLDER = re.compile(r"""(?<![^=,\[{'"])/(?:[^,'"\[\]{}/]+/)*(?=[^,'"\[\]{}/])""")
"""The folders of an absolute path, in a value or in a word of a command line."""
KEPT = ("problem", "normaliser", "wavelengths", "version", "trained_on")
"""What of a checkpoint's card others need."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Write the folder, and put it into the hub where `task.repository` names a place there."""
    task = settings.task
    assert isinstance(task, PublishTask)
    if settings.checkpoint is None:
        raise ConfigError("task=publish needs the weights to publish; add checkpoint=RUN_FOLDER.")
    if settings.output is None and not task.repository:
        raise ConfigError("task=publish needs a place; add output=FOLDER (zoo/NAME), or task.repository=OWNER/NAME.")
    checkpoint = read_checkpoint(settings.checkpoint)
    place = settings.output or folder.path / "published"
    name = f"hf:{task.repository}" if task.repository else typed_name(place)
    write_published(checkpoint, settings, task, place, name)
    messages = [f"{place / file}" for file in (WEIGHTS, CARD, PAGE)]
    if task.repository:
        messages.append(f"published {publish(place, task.repository, task.private)}")
    messages.append(f"next     {restore_with(name)}")
    return TaskResult(messages, {"bytes": (place / WEIGHTS).stat().st_size}, place / PAGE, [place / WEIGHTS, place / CARD])


def write_published(checkpoint: Checkpoint, settings: RunSettings, task: PublishTask, place: Path, name: str) -> None:
    """Write weights, card and page, read them back, and put them in place at once; raises UserError in one sentence."""
    about = About(task.title, task.does, task.data, task.licence, task.recipe or recipe_of(checkpoint), figures(settings, task))
    method = method_from(checkpoint, settings.scale, settings.model).method
    dtype = torch.float16 if task.half else torch.float32
    weights = {
        key: value.to(dtype).contiguous() if value.dtype == torch.float32 else value.contiguous()
        for key, value in checkpoint.best_weights.items()
        if not key.startswith(method.training_only)
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")  # others may read it, unlike those of tempfile
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_tensors(temporary / WEIGHTS, {key: value.clone() for key, value in weights.items()})
        digest = sha256([temporary / WEIGHTS])
        origin = origin_of(checkpoint, (), method)
        shown = place.name if name == str(place) else name
        card = {
            "format": FORMAT,
            "step": checkpoint.card["step"],
            "config": for_others(untrained(checkpoint.card["config"])),
            "choices": checkpoint.card.get("choices", {}),
            **{key: checkpoint.card[key] for key in KEPT if key in checkpoint.card},
            **({} if (scales := trained_scales(checkpoint.card)) is None else {SCALES: list(scales)}),
            "parameters": method.parameter_count(),
            "weights_sha256": digest,
            IMPORTED: {
                "file": shown,
                "sha256": digest,
                "source": f"{about.title}, {origin.source}" if origin else about.title,
                "made_of": str(origin),
            },
            "about": about.to_json(),
        }
        (temporary / CARD).write_text(json.dumps(card, indent=1))
        (temporary / PAGE).write_text(page_of(about, card, shown, digest))
        about_of(temporary)
        require_intact(temporary)
        method_from(read_checkpoint(temporary), settings.scale, settings.model)
        if is_zoo(place):
            require_small(temporary, place)
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_small(folder: Path, place: Path) -> None:
    """Raise ConfigError where an entry, or all of them with it, is larger than the zoo may be."""
    size = sum(file.stat().st_size for file in folder.iterdir())
    others = sum(bytes_ for name, _, bytes_ in zoo_entries() if name != place.name)
    if size > MOST_BYTES or size + others > ALL_BYTES:
        raise ConfigError(
            f"{place} would take {size / 2**20:.1f} MiB and the zoo {(size + others) / 2**20:.1f}; they may take {MOST_BYTES / 2**20:g} "
            f"and {ALL_BYTES / 2**20:g}: add task.half=true, or choose a smaller model."
        )


def figures(settings: RunSettings, task: PublishTask) -> tuple[Mapping[str, Any], ...]:
    """Return the figures of the evaluations that `task.results` names: each metric beside bicubic's, and the command."""
    rows = []
    for result in task.results:
        run_folder = locate(result, settings.outputs)
        summary = read_status(run_folder).summary
        title = (
            (run_folder / "results.md").read_text().partition("\n")[0].removeprefix("# ") if (run_folder / "results.md").exists() else ""
        )
        measured = {"images": title or result, "command": command_of(run_folder)}
        for metric, value in summary.items():
            if isinstance(value, int | float) and f"bicubic_{metric}" in summary:
                rows.append({**measured, "metric": metric, "value": float(value), "bicubic": summary[f"bicubic_{metric}"]})
    if not rows:
        raise ConfigError(
            "a card needs figures: add task.results=[EVALUATION_RUN,..], run folders of task=evaluate with a bicubic baseline."
        )
    return tuple(rows)


def recipe_of(checkpoint: Checkpoint) -> str:
    """Return the command that trained a checkpoint, as its run's folder tells."""
    command = command_of(checkpoint.folder.parent.parent)
    if not command:
        raise ConfigError("nothing tells how these weights were trained; add task.recipe='python run.py ...'.")
    return command


def for_others(value: Any) -> Any:
    """Return settings, or a word of a command line, with the names of files and folders in place of where they lie on this machine."""
    if isinstance(value, Mapping):
        return {key: for_others(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [for_others(one) for one in value]
    return OWN_FOLDER.sub("", value) if isinstance(value, str) else value


def command_of(run_folder: Path) -> str:
    """Return the command line that began a run, as others type it, or '' where its folder does not tell."""
    lines = (run_folder / "provenance.jsonl").read_text().splitlines() if (run_folder / "provenance.jsonl").exists() else []
    words = json.loads(lines[0]).get("command", []) if lines else []
    return shell_text([for_others(word) for word in words if not word.startswith("outputs=")]) if words else ""
