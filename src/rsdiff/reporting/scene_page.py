"""The page of a restored scene: before and after, whole and in detail, under one slider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rsdiff.reporting.display import display_of, enlarged
from rsdiff.reporting.page import embedded_picture, png_of, write_page
from rsdiff.reporting.records import write_whole


@dataclass(frozen=True)
class BeforeAfter:
    """Two images of the same ground.

    before  (c, h, w) the input in [0, 1]; NaN where pixels are missing
    after   (C, H, W) the restored image in the same units
    """

    name: str
    before: Tensor
    after: Tensor


def write_scene_page(
    page: Path, preview: Path, title: str, facts: Sequence[tuple[str, str]], pairs: Sequence[BeforeAfter], rgb_bands: tuple[int, int, int]
) -> None:
    """Write the page and, as PNG, the restored picture of the first pair; all pairs are shown with the stretch of the first."""
    display = display_of(pairs[0].after, rgb_bands)
    slides = []
    for pair in pairs:
        after = display.picture(pair.after)
        same_bands = pair.before.shape[0] == pair.after.shape[0]
        before = (display if same_bands else display_of(pair.before)).picture(pair.before)
        slides.append((pair.name, embedded_picture(enlarged(before, (after.shape[0], after.shape[1]))), embedded_picture(after)))
    write_page(page, "scene", title=title, facts=facts, slides=slides)
    write_whole(preview, lambda at: at.write_bytes(png_of(display.picture(pairs[0].after))))
