"""The page of a restored scene: before and after, whole and in detail, under one slider."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor

from rsdiff.reporting.display import Picture, display_of, enlarged
from rsdiff.reporting.html import data_address
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
        slides.append((pair.name, _address(enlarged(before, (after.shape[0], after.shape[1]))), _address(after)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rsdiff.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("scene.html.jinja").render(title=title, facts=facts, slides=slides)
    write_whole(page, lambda at: at.write_text(text, encoding="utf-8"))
    write_whole(preview, lambda at: at.write_bytes(_png(display.picture(pairs[0].after))))


def _png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def _address(picture: Picture) -> str:
    return data_address(_png(picture))
