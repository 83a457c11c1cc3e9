"""On what values were measured: what decides whether a published value and ours may be subtracted, and what stands beside every table.

Two papers' "AID x4" of one method differ by 1.7 dB, because one scores RGB of 1,000 images of 600 pixels and the other luma of 900.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsdiff.app.table_options import PublishedOn
from rsdiff.metrics.colour import border_width
from rsdiff.reporting.records import read_records
from rsdiff.runs.settings import RunSettings

QUICK = "the quick budget trains tiny models for a few steps, so nothing is subtracted from it."


@dataclass(frozen=True)
class Measured:
    """What an evaluation of ours scored.

    dataset, degradation  options of these groups
    sizes     (height, width) of the targets, each once
    channel   'bands' or the luma that was compared (`rsdiff.metrics.colour.Space`)
    border    pixels taken off each side
    """

    dataset: str
    degradation: str
    scale: float
    images: int
    sizes: tuple[tuple[int, int], ...]
    channel: str
    border: int

    @classmethod
    def of(cls, settings: RunSettings, folder: Path, case: str) -> Measured:
        """Return what the finished evaluation of `settings` in `folder` scored, in one of its test cases ('' for the only one)."""
        records = read_records(folder)
        if case:
            records = records[records["degradation"] == case]
        sizes = sorted({(int(height), int(width)) for height, width in zip(records["image_height"], records["image_width"], strict=True)})
        protocol: Any = settings.metrics.protocol
        return cls(
            dataset=settings.choices["dataset"],
            degradation=settings.choices["degradation"],
            scale=float(settings.scale),
            images=len(records),
            sizes=tuple(sizes),
            channel=protocol.space,
            border=border_width(protocol.border, float(settings.scale)),
        )

    def describe(self) -> str:
        """Return it in words, for the line below a table's heading."""
        return (
            f"Ours: {self.images} test images of {self.dataset}, {size_text(self.sizes)}, x{self.scale:g}, degradation {self.degradation}; "
            f"{channel_text(self.channel)}, {border_text(self.border)}."
        )


def published_text(on: PublishedOn | None) -> str:
    """Return on what the published values of a point were measured, in words; '' where there are none."""
    if on is None:
        return ""
    known = on.size if isinstance(on.size, tuple) else None
    size = size_text((known,)) if known is not None else {"several": "of several sizes", "unknown": "size not stated"}[str(on.size)]
    scale = f"x{on.scale:g}" if on.scale is not None else "scale not stated"
    degradation = f"degradation {on.degradation}" if on.degradation else "degradation not stated"
    border = border_text(on.border) if isinstance(on.border, int) else "border not stated"
    return f"Published: {on.split}, {size}, {scale}, {degradation}; {channel_text(on.channel)}, {border}."


def why_not_subtracted(on: PublishedOn | None, ours: Measured, budget: Literal["quick", "paper"]) -> str:
    """Return the sentence why the published values of a point are not compared with ours; '' where images and protocol are the same.

    What a publication does not state is not the same.
    """
    if budget == "quick":
        return QUICK
    if on is None:
        return "no published values."
    size: object = ours.sizes[0] if len(ours.sizes) == 1 else "several"
    different = [
        f"{word} ({printed if printed not in ('', None, 'unknown') else 'not stated'} there, {measured} here)"
        for word, printed, measured in (
            ("data set", on.dataset, ours.dataset),
            ("degradation", on.degradation, ours.degradation),
            ("scale", on.scale, ours.scale),
            ("number of images", on.images, ours.images),
            ("size", tuple(on.size) if isinstance(on.size, tuple) else on.size, size),
            ("channel", on.channel, ours.channel),
            ("border", on.border, ours.border),
        )
        if printed != measured
    ]
    return f"not subtracted from the published values, which differ in {', '.join(different)}." if different else ""


def size_text(sizes: Sequence[tuple[int, int]]) -> str:
    """Return '600 x 600', or the smallest and the largest of several."""
    if len(sizes) == 1:
        return "{} x {}".format(*sizes[0])
    return "{} x {} to {} x {}".format(*sizes[0], *sizes[-1]) if sizes else "no size"


def channel_text(channel: str) -> str:
    """Return what is compared, in words."""
    return {"bands": "all bands (RGB)", "unknown": "channel not stated"}.get(channel, f"luma ({channel})")


def border_text(border: int) -> str:
    """Return how much is cut off, in words."""
    return f"border {border} px" if border else "no border cut off"
