"""Checkpoints: weights in safetensors, a JSON card that says what they are, and the training state beside them.

A checkpoint is a folder `step_00001234/` of
    weights.safetensors         the method's parameters and buffers
    ema_<k>.safetensors         one average of the weights per EMA length, the first being the one to use
    card.json                   config, problem, signature, metrics, code version: enough to evaluate or restore without anything else
    training_state.pt           optimisers, EMA counters, gradient scaler; loadable with weights_only=True
It is written under a temporary name, flushed to the disk and renamed, so a folder with the final name is complete; a kill at any moment
leaves the previous checkpoints as they were.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.typed import nearest
from rsdiff.data.durable import flush, write_json, write_tensors
from rsdiff.foreign.reader import is_picture
from rsdiff.methods.former import present_groups
from rsdiff.metrics.table import METRICS
from rsdiff.weights.stores import typed_name, zoo_entries

FORMAT = 1
WEIGHTS, CARD, TRAINING_STATE = "weights.safetensors", "card.json", "training_state.pt"
_CODE = re.compile(r"\(os error (\d+)\)")
"""How safetensors says which error of the system it met: a full disk, a quota, a file that may not be so large."""
NO_SPACE = re.compile("No space left|failed writing file|unexpected pos")
"""What safetensors and PyTorch say, in errors of their own kinds, when the disk is full."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or that belongs to something else; one sentence."""


@dataclass
class Checkpoint:
    """What a checkpoint folder holds. `training_state` is empty unless it was asked for."""

    folder: Path
    card: dict[str, Any]
    weights: dict[str, Tensor]
    averages: list[dict[str, Tensor]]
    training_state: dict[str, Any]

    @property
    def name(self) -> str:
        """What to type after checkpoint= for it: zoo:NAME, or its folder."""
        return typed_name(self.folder)

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """The first average if there is one, else the weights themselves."""
        return self.averages[0] if self.averages else self.weights


def write_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    averages: Sequence[Mapping[str, Tensor]],
    card: Mapping[str, Any],
    training_state: Mapping[str, Any] | None,
) -> Path:
    """Write `folder/step_<step>` atomically and return it; an existing one of the same step is kept, since it holds the same state.

    Raises OSError (disk full, read-only folder) with nothing but a removable temporary folder left behind.
    """
    final = folder_of(folder, step)
    if is_complete(final) and (training_state is None or (final / TRAINING_STATE).exists()):
        return final
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{final.name}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_tensors(temporary / WEIGHTS, _contiguous(weights))
        for k, average in enumerate(averages):
            write_tensors(temporary / f"ema_{k}.safetensors", _contiguous(average))
        (temporary / CARD).write_text(json.dumps({"format": FORMAT, "step": step, **card}, indent=1))
        if training_state is not None:
            torch.save(dict(training_state), temporary / TRAINING_STATE)
        for path in temporary.iterdir():
            flush(path)
        if final.exists():  # somebody deleted parts of it
            shutil.rmtree(final)
        temporary.rename(final)
        flush(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError | RuntimeError) and (said := _CODE.search(str(error)) or NO_SPACE.search(str(error))):
            code = int(said[1]) if said.re is _CODE else errno.ENOSPC
            raise OSError(code, os.strerror(code), str(folder)) from error
        raise
    return final


def read_checkpoint(path: Path, with_training_state: bool = False) -> Checkpoint:
    """Read a checkpoint from its folder, from a run's folder (its best, else its last one), or from a weights file beside its card.

    Raises CheckpointError in one sentence for a missing, foreign or damaged checkpoint.
    """
    folder = find_checkpoint(path)
    try:
        card = read_card(folder)
        weights = load_file(folder / WEIGHTS)
        averages = [load_file(file) for file in sorted(folder.glob("ema_*.safetensors"))]
        state: dict[str, Any] = {}
        if with_training_state:
            state = torch.load(folder / TRAINING_STATE, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a complete checkpoint: {Path(str(error.filename)).name} is missing.") from None
    except (SafetensorError, UnpicklingError, ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be read ({type(error).__name__}: {str(error)[:120]}); use another checkpoint.") from None
    if not isinstance(card, dict) or not {"config", "problem"} <= set(card):
        raise CheckpointError(f"{folder / CARD} does not say what the weights are; use another checkpoint.")
    if card.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has checkpoint format {card.get('format')}, this version of rsdiff reads format {FORMAT}.")
    return Checkpoint(folder, card, weights, averages, state)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the checkpoint in `folder`, the options of its model and sampler by their present names."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text())
    if isinstance(card, dict) and isinstance(card.get("config"), dict):
        card["config"] = {**card["config"], **present_groups(card["config"])}
    return card


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint folder that `path` means; see `read_checkpoint`."""
    if not path.exists():
        meant = nearest(path.name, [name for name, _, _ in zoo_entries()])
        in_zoo = meant.replace("did you mean ", "did you mean zoo:") if "zoo" in path.parts else ""
        raise CheckpointError(
            f"checkpoint {path} does not exist{in_zoo}; give a run folder, a checkpoint folder or a weights.safetensors file."
        )
    if path.is_file():
        if path.suffix != ".safetensors":
            if is_picture(path):
                raise CheckpointError(f"checkpoint={path} is an image; type input={path}, and checkpoint=zoo:any_scale or a run folder.")
            raise CheckpointError(f"{path} is not a checkpoint of rsdiff; convert it first with task=import source={path} model=NAME.")
        return path.parent
    if (path / CARD).exists():
        return path
    store = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    complete = list_checkpoints(store)
    if not complete:
        raise CheckpointError(f"{path} holds no checkpoint; give a run folder, a checkpoint folder or a weights.safetensors file.")
    return best_checkpoint(store) or complete[-1]


def list_checkpoints(store: Path) -> list[Path]:
    """Return the complete checkpoints of a store, oldest first."""
    return sorted(folder for folder in store.glob("step_*") if is_complete(folder))


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint's folder holds what evaluation needs."""
    return (folder / CARD).exists() and (folder / WEIGHTS).exists()


def last_checkpoint(store: Path) -> Path | None:
    """Return the newest checkpoint of a store that training can continue from."""
    return next((folder for folder in reversed(list_checkpoints(store)) if (folder / TRAINING_STATE).exists()), None)


def folder_of(store: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return store / f"step_{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its folder."""
    return int(checkpoint.name.removeprefix("step_"))


def record_validation(checkpoint: Path, metrics: Mapping[str, float]) -> None:
    """Add the result of a validation to a checkpoint's card, atomically."""
    card = json.loads((checkpoint / CARD).read_text())
    write_json(checkpoint / CARD, {**card, "validation": dict(metrics)})


def best_checkpoint(store: Path) -> Path | None:
    """Return the checkpoint that validation found best, or None."""
    pointer = store / "best.json"
    if not pointer.exists():
        return None
    folder = store / Path(str(json.loads(pointer.read_text())["folder"])).name
    return folder if is_complete(folder) else None


def mark_best(store: Path, checkpoint: Path, metric: str, value: float) -> None:
    """Record `checkpoint` as the best of its store, atomically."""
    write_json(store / "best.json", {"folder": checkpoint.name, "metric": metric, "value": value})


def best_value(store: Path) -> float | None:
    """Return the metric value of the best checkpoint so far, or None where there is none (any more)."""
    if best_checkpoint(store) is None:
        return None
    return float(json.loads((store / "best.json").read_text())["value"])


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Return whether `value` of `metric` beats the best so far: it is lower where lower is better (RMSE, angles), else higher.

    A value that is no number beats nothing, and any number beats it.
    """
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    lower = metric in METRICS and METRICS[metric].direction == "lower"
    return value < best if lower else value > best


def prune(store: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best one, and what killed writers left behind; the newest always stays.

    A checkpoint is renamed before its files are deleted: a kill in between leaves no half of one under a checkpoint's name.
    """
    best = best_checkpoint(store)
    for folder in list_checkpoints(store)[: -max(keep, 1)]:
        if folder != best:
            folder.rename(store / f".{folder.name}.{os.getpid()}.partial")
    for leftover in store.glob(".step_*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def set_aside(store: Path, step: int) -> None:
    """Rename the checkpoints of `step` and later ones, whose next step was not finite, so that nothing continues from them."""
    for folder in list_checkpoints(store):
        if step_of(folder) >= step:
            aside = store / f"not_finite_after_{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def tensors_in(value: Any, name: str) -> dict[str, Tensor]:
    """Return the tensors inside nested mappings and lists, by their place: 'moments/generator/state/3/exp_avg'."""
    if isinstance(value, Tensor):
        return {name: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {place: tensor for key, item in items for place, tensor in tensors_in(item, f"{name}/{key}").items()}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
