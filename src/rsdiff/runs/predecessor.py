"""The finished training that another one starts from: given by `checkpoint=`, or found among the runs in the outputs folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsdiff.config import ConfigError
from rsdiff.config.paths import typed_path
from rsdiff.config.typed import plain_values
from rsdiff.methods.base import Method, MethodConfig, Predecessor
from rsdiff.runs.identity import SIGNATURE_LENGTH, read_identity
from rsdiff.runs.status import read_status
from rsdiff.training.checkpoints import Checkpoint, CheckpointError, find_checkpoint, last_checkpoint, read_card, read_checkpoint
from rsdiff.training.starting import load_weights
from rsdiff.weights.stores import published_folder

IN_PART = "add trainer.partial=true to take the weights that fit and draw the others anew"


def locate(checkpoint: str, outputs: Path) -> Path:
    """Return the path that `checkpoint=` means: a path, zoo:NAME, hf:OWNER/NAME, or a signature (at least
    its first four digits) of a run below `outputs`.

    Raises ConfigError when several runs have a signature that begins like this; a path that does not exist is left to its reader.
    """
    published = published_folder(checkpoint)
    if published is not None:
        return published
    path = typed_path(checkpoint)
    if path.exists() or not re.fullmatch(rf"[0-9a-f]{{4,{SIGNATURE_LENGTH}}}", checkpoint):
        return path
    found = sorted(outputs.glob(f"*/*/{checkpoint}*"))
    if len(found) > 1:
        raise ConfigError(f"checkpoint={checkpoint} begins {len(found)} signatures ({', '.join(map(str, found[:3]))}); give more of it.")
    return found[0] if found else path


def name_of_run(run: str, outputs: Path) -> str:
    """Return the signature of the run that trainer.extend= names by its folder or signature, wherever the folder lies."""
    folder = locate(run, outputs)
    known = read_identity(folder)
    return known[0] if known is not None else folder.name


def extended_checkpoint(run: str, outputs: Path) -> Path:
    """Return the newest checkpoint of the run that trainer.extend= names; raises ConfigError where there is none to continue from."""
    folder = locate(run, outputs)
    last = last_checkpoint(folder / "checkpoints")
    if last is None:
        raise ConfigError(
            f"trainer.extend={run} names no run with a checkpoint to continue from in {outputs}; give its folder or its signature, or "
            "leave trainer.extend out to begin from the start."
        )
    return last


def starting_point(
    model: Any, settings: Mapping[str, Any], checkpoint: Path | None, outputs: Path, images: Callable[[], str] | None = None
) -> Path | None:
    """Return the checkpoint folder that a training starts from, or None for one that starts from fresh weights.

    settings  the composed settings of the run to start, as plain values
    images    returns the digest of its training images, by which the same data are known under another path
    Where `checkpoint` is not given and the model needs a predecessor, the one finished run is taken whose options are those it needs, on
    the same data set under the same kind of degradation with the same seed, and at the same scale unless it serves all. Raises
    ConfigError when there is none, or more than one.
    """
    if checkpoint is not None:
        return find_checkpoint(checkpoint)
    wanted = model.predecessor if isinstance(model, MethodConfig) else None
    if wanted is None:
        return None
    fixed = ("seed",) if model.any_scale else ("seed", "scale")
    content = images() if images is not None else None
    runs = [folder for folder in sorted(outputs.glob("train/*/*")) if is_predecessor(folder, wanted, settings, fixed, content)]
    if len(runs) == 1:
        return find_checkpoint(runs[0])
    if not runs:
        raise ConfigError(
            f"this model starts from a trained '{wanted.kind}' of the same {', '.join(wanted.options)}, and {outputs} holds no finished "
            f"one on this data set, degradation and scale with this seed; train it first, which the same command with "
            f"model={wanted.kind} does (or its _tiny or _quick form, as this model's), or give checkpoint=RUN_FOLDER or its signature."
        )
    raise ConfigError(
        f"this model could start from {len(runs)} runs ({', '.join(str(run) for run in runs[:4])}); choose one with checkpoint=SIGNATURE."
    )


def is_predecessor(folder: Path, wanted: Predecessor, settings: Mapping[str, Any], fixed: Sequence[str], images: str | None = None) -> bool:
    """Whether the run in `folder` is finished, is what is wanted, and was trained with the `fixed` settings and kind of degradation.

    images  digest of the training images; where it or the run's is not known, the settings of the data must be equal
    """
    if read_status(folder).state != "finished":
        return False
    try:
        trained = read_card(find_checkpoint(folder))["config"]
    except (CheckpointError, OSError, ValueError, KeyError):
        return False
    known = read_identity(folder)
    if images is not None and known is not None and "train" in known[1].content:
        same_data = known[1].content["train"] == images
    else:
        same_data = trained.get("dataset") == settings.get("dataset")
    same = same_data and all(trained.get(name) == settings.get(name) for name in fixed)
    return same and kind_of_degradation(trained) == kind_of_degradation(settings) and fits(trained["model"], wanted)


def kind_of_degradation(settings: Mapping[str, Any]) -> Any:
    """Return the kind of a run's degradation: its options may differ between the stages (what their targets are)."""
    return settings.get("degradation", {}).get("kind")


def fits(trained: Mapping[str, Any], wanted: Predecessor) -> bool:
    """Whether a checkpoint's model settings are those of the predecessor that is wanted."""
    return trained.get("kind") == wanted.kind and all(trained.get(name) == plain_values(value) for name, value in wanted.options.items())


def begin(method: Method, model: MethodConfig, kind: str, bands: tuple[int, int], folder: Path) -> Checkpoint:
    """Give `method` the weights of the checkpoint in `folder` and return it: its predecessor's, or those of an earlier training of itself.

    kind   of the method
    bands  of its target and input
    Raises CheckpointError when the checkpoint is neither, or was trained with other options or bands.
    """
    checkpoint = read_checkpoint(folder)
    trained, problem, wanted = checkpoint.card["config"]["model"], checkpoint.card["problem"], model.predecessor
    if (problem["bands"], problem["lr_bands"]) != bands:
        raise CheckpointError(
            f"{folder} was trained on {problem['lr_bands']} to {problem['bands']} bands and these data have {bands[1]} to {bands[0]}; "
            f"{IN_PART}."
        )
    if wanted is not None and trained["kind"] == wanted.kind:
        different = [name for name, value in wanted.options.items() if trained.get(name) != plain_values(value)]
        if different:
            raise CheckpointError(
                f"{folder} holds a '{wanted.kind}' with another {different[0]} than this model asks for; choose another checkpoint or give "
                "this model the same options."
            )
        method.begin_from(checkpoint.best_weights)
    elif trained["kind"] == kind:
        load_weights(method, checkpoint.best_weights, folder, f"choose the model it was trained with, or {IN_PART}")
    else:
        needed = f"'{wanted.kind}' or '{kind}'" if wanted is not None else f"'{kind}'"
        raise CheckpointError(f"{folder} holds a '{trained['kind']}' and this training can start from {needed}; choose another checkpoint.")
    return checkpoint
