"""What a run says of its data: how many images train, validate and test, their bands and range, and which test images are not new."""

from __future__ import annotations

from collections.abc import Sequence

from rsdiff.data.digests import found_in, short_digests
from rsdiff.data.source import DataError, ImageSource
from rsdiff.runs.settings import RunSettings
from rsdiff.training.checkpoints import Checkpoint

TRAINED_ON = "trained_on"
"""Key of a checkpoint's card: the short digests of the images it was trained on."""
_NAMED = 5


def sentences(
    settings: RunSettings,
    test: ImageSource,
    training: ImageSource | None = None,
    validation: ImageSource | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[str]:
    """Return what is said of a run's data: their numbers first, then what is left out and which images are no test.

    checkpoint  that is evaluated
    """
    parts = [] if training is None else [f"{len(training)} training"]
    parts += [] if validation is None else [f"{len(validation)} validation"]
    counts = ", ".join([*parts, f"{len(test)} test"])
    bands = f"{test.bands} band{'s' * (test.bands > 1)}"
    if test.lr_bands != test.bands:
        bands += f" ({test.lr_bands} of the input)"
    low, high = (_number(values) for values in (test.normaliser.low, test.normaliser.high))
    protocol = settings.metrics.protocol.for_values(test.normaliser.low, test.normaliser.high)
    rounding = "rounded to whole numbers" if protocol.quantise == "round" else "not rounded"
    scored = f"scored {rounding} with peak {protocol.peak:g} (stored value {high})"
    said = [f"data     {counts} images; {bands}; stored values from {low} to {high} become 0 to 1; {scored}"]
    said += [f"caution  {remark}" for remark in dict.fromkeys(r for s in (training, test) if s is not None for r in s.remarks())]
    said += _left_out([source for source in (training, validation, test) if source is not None])
    if training is not None:
        held = short_digests([*training.contents(), *(validation.contents() if validation is not None else ())])
        said += _not_new(test, held, "are training images, too" if _is_all(settings) else "have the content of training images")
    elif checkpoint is not None and (trained_on := checkpoint.card.get(TRAINED_ON)) is not None:
        said += _not_new(test, trained_on, f"are images that {checkpoint.name} was trained on")
    return said


def require_new(settings: RunSettings, test: ImageSource, checkpoint: Checkpoint | None) -> None:
    """Raise DataError where all images of a folder would test a checkpoint that was trained on some of them, unless that was asked for."""
    if checkpoint is None or settings.tested == settings.dataset:
        return
    known = found_in(test.contents(), checkpoint.card.get(TRAINED_ON) or "")
    if known:
        raise DataError(
            f"{checkpoint.name} was trained on {len(known)} of the {len(test)} images, {test.name(known[0])} among them; "
            "to score them all the same, set dataset.split=all, or leave dataset= out to take the test images of the training."
        )


def _not_new(test: ImageSource, short: str, what: str) -> list[str]:
    known = found_in(test.contents(), short)
    if not known:
        return []
    names = ", ".join(test.name(index) for index in known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
    return [f"caution  {len(known)} of the {len(test)} test images {what}: their scores say little of new images ({names})"]


def _left_out(sources: Sequence[ImageSource]) -> list[str]:
    found = dict(entry for source in sources for entry in source.left_out)
    if not found:
        return []
    shown = [f"         {name}: {reason}" for name, reason in list(found.items())[:_NAMED]]
    more = [f"         and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return [f"left out {len(found)} of what was found:", *shown, *more]


def _is_all(settings: RunSettings) -> bool:
    return getattr(settings.dataset, "split", None) == "all"


def _number(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"{min(values):g}..{max(values):g} by band"
