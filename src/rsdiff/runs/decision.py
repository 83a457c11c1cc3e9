"""The one question of every command: is this run finished, to be continued, or to be made (again), and why.

The answer follows from identities (see rsdiff.runs.identity) that the folders of earlier runs hold, never from where data or outputs lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rsdiff.config import ConfigError
from rsdiff.runs.content import NOTHING, changes, changes_in_words
from rsdiff.runs.identity import IDENTITY, Identity, flat, read_identity
from rsdiff.runs.status import Status, read_status
from rsdiff.training.checkpoints import last_checkpoint, step_of

PARTS = {"train": "training images", "test": "test images", "start": "the weights it starts from", "source": "the source"}
SHOWN = 3


@dataclass(frozen=True)
class Earlier:
    """A run found beside the one asked for."""

    folder: Path
    signature: str
    identity: Identity
    status: Status

    @property
    def step(self) -> int | None:
        """Steps that its newest checkpoint has, or None where there is none."""
        last = last_checkpoint(self.folder / "checkpoints")
        return None if last is None else step_of(last)


@dataclass(frozen=True)
class Decision:
    """What to do.

    action     finished: show it; continue: go on in a folder that has begun; make: begin in an empty one
    folder     of the run
    signature  the run's first one, which stays its name
    reasons    sentences for the user: why a finished run is made again, what is continued, which run is close to this one
    rescored   whether results of other test images or metrics lie in the folder, to be moved out of the way
    """

    action: Literal["finished", "continue", "make"]
    folder: Path
    signature: str
    reasons: tuple[str, ...] = ()
    rescored: bool = False


def decide(identity: Identity, place: Path, can_extend: bool = False, chosen: Path | None = None) -> Decision:
    """Return what to do for a run of `identity`.

    place       folder of the runs of this task, model and data set
    can_extend  whether the task trains, so that trainer.extend= continues another run
    chosen      the folder that the user chose for this run, or None for one below `place`
    """
    runs = list(earlier_runs(place)) if chosen is None else [run for run in [_run_in(chosen)] if run is not None]
    alike = [replace(run, identity=_with_images(run)) for run in runs if run.identity.settings == identity.settings]
    exact = [run for run in alike if run.identity.content == identity.content]
    for run in sorted(exact, key=lambda run: run.status.state != "finished"):
        return _same(run)
    for run in alike:
        if run.status.state != "finished" and _differs_in_damaged_images(run, identity):
            words = "; ".join(_differences(run.identity, identity))
            return Decision("continue", run.folder, run.signature, (f"continuing {run.folder}, where {words} since it could not go on.",))
    for run in alike:
        if can_extend and run.identity.trained == identity.trained:
            words = "; ".join(_differences(run.identity, identity))
            reason = f"{words} since {run.folder} was scored: its training is kept and scored again."
            return Decision("continue", run.folder, run.signature, (reason,), rescored=True)
    if chosen is not None and runs:
        raise ConfigError(f"{chosen} holds another run (its settings or data differ); choose another folder for this one, or delete that.")
    folder = chosen or _free(place, identity.signature)
    return Decision("make", folder, identity.signature, tuple(_told(identity, alike, runs, can_extend)))


def earlier_runs(place: Path) -> Iterator[Earlier]:
    """Yield the runs below `place` that have recorded what they are, the youngest first."""
    found = sorted(place.glob(f"*/{IDENTITY}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        run = _run_in(path.parent)
        if run is not None:
            yield run


def _run_in(folder: Path) -> Earlier | None:
    known = read_identity(folder)
    return None if known is None else Earlier(folder, *known, read_status(folder))


def _with_images(run: Earlier) -> Identity:
    known = read_identity(run.folder, with_images=True)
    return run.identity if known is None else known[1]


def _same(run: Earlier) -> Decision:
    """Return the decision for a run that is exactly the one asked for."""
    if run.status.state == "new":
        return Decision("make", run.folder, run.signature)
    if run.status.state != "finished":
        return Decision("continue", run.folder, run.signature)
    lost = run.status.lost_files(run.folder)
    if lost:
        return Decision("continue", run.folder, run.signature, (f"finished before, but {lost[0]} is gone; it is made again.",))
    return Decision("finished", run.folder, run.signature)


def _free(place: Path, signature: str) -> Path:
    """Return a folder for a new run: named by its signature, with a number behind it where that folder became another run."""
    folder, number = place / signature, 1
    while (folder / IDENTITY).exists():
        number += 1
        folder = place / f"{signature}-{number}"
    return folder


def _differs_in_damaged_images(run: Earlier, identity: Identity) -> bool:
    """Whether only images that the run could not read are others by now: repaired, removed, or put back."""
    damaged = set(run.status.unreadable)
    other = [part for part in {*run.identity.content, *identity.content} if run.identity.content.get(part) != identity.content.get(part)]
    if not damaged or not set(other) <= {"train", "test"}:
        return False
    names = {name for part in other for name in changes(run.identity.images.get(part, {}), identity.images.get(part, {}))}
    return bool(names) and names <= damaged


def _differences(before: Identity, now: Identity) -> list[str]:
    """Return '3 of 40 training images changed (first: a)' and the like, for every part of the content that is another one."""
    said = []
    for part in sorted({*before.content, *now.content}):
        old, new = before.content.get(part, NOTHING), now.content.get(part, NOTHING)
        if old == new:
            continue
        name = _name_of(part)
        if part in before.images and part in now.images and before.images[part] and now.images[part]:
            said.append(f"the {name} differ: {changes_in_words(before.images[part], now.images[part])}")
        elif old == NOTHING:
            said.append(f"{name} were supplied")
        else:
            said.append(f"{name} changed")
    return said


def _name_of(part: str) -> str:
    """Return what a part of the content is called."""
    kind, _, name = part.partition("/")
    words = {"metric": f"the weights of metric {name}", "file": f"the file of {name}", "input": f"input {name}"}
    return PARTS.get(part, words.get(kind, part))


def _told(identity: Identity, alike: list[Earlier], runs: list[Earlier], can_extend: bool) -> Iterator[str]:
    """Yield what the user should know of earlier runs before another one begins."""
    for run in [run for run in alike if run.status.state != "failed" or run.step is not None][:1]:
        words = "; ".join(_differences(run.identity, identity))
        how = "a new run is made beside it" if run.status.state == "finished" else "this is another run, from the beginning"
        yield f"{run.folder} ({_stand(run)}) has these settings, but {words}: {how}."
        if can_extend and run.step is not None:
            yield f"To continue that training with the data as they are now, add trainer.extend={run.signature}."
    if not can_extend or alike:
        return
    close = [(run, difference) for run in runs if (difference := _one_setting(run.identity, identity)) is not None and run.step is not None]
    for run, (option, old, new) in close[:SHOWN]:
        yield (
            f"{run.folder} ({_stand(run)}) differs only in {option} ({_typed(old)} there, {_typed(new)} here); this is another run, from "
            f"the beginning. To continue that training instead, add trainer.extend={run.signature}."
        )


def _stand(run: Earlier) -> str:
    step = f" at step {run.step}" if run.step is not None else ""
    return f"{run.status.state}{step}"


def _one_setting(before: Identity, now: Identity) -> tuple[str, Any, Any] | None:
    """Return (option, its value before, its value now) where two identities differ in one setting and read the same."""
    if before.trained != now.trained:
        return None
    old, new = flat(before.settings), flat(now.settings)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if "trainer.extend" in names:
        return None  # what extends a run is no training from the beginning
    return (names[0], old.get(names[0]), new.get(names[0])) if len(names) == 1 else None


def _typed(value: str | None) -> str:
    """Return a setting's value as it is typed; None stands for the default."""
    return "the default" if value is None else value.replace('"', "")
