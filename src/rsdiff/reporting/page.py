"""What every HTML page has in common: one file that holds all it shows, and asks no other site for anything."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from rsdiff.reporting.records import write_text

if TYPE_CHECKING:
    from rsdiff.reporting.display import Picture

QUALITY = 85
"""Of JPEG, without subsampling of colours: panels take 40 % of the bytes of PNG, with a mean error of 2 of 255 levels."""


def write_page(path: Path, template: str, **shown: object) -> None:
    """Write the page that `<template>.html.jinja` of this folder makes of `shown`; page.css and page.js are what templates share."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rsdiff.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    write_text(path, environment.get_template(f"{template}.html.jinja").render(**shown))


def embedded(path: Path) -> str:
    """Return a PNG file as a data address."""
    return _address(path.read_bytes(), "png")


def embedded_smaller(path: Path) -> str:
    """Return a PNG file as the data address of a JPEG that looks the same."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return _address(buffer.getvalue(), "jpeg")


def embedded_detail(path: Path, side: int) -> str:
    """Return the middle of a PNG file, at most `side` pixels wide and high and not scaled, as the data address of a JPEG."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        left, top = (max(0, (length - side) // 2) for length in picture.size)
        part = picture.convert("RGB").crop((left, top, min(left + side, picture.width), min(top + side, picture.height)))
        part.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return _address(buffer.getvalue(), "jpeg")


def embedded_picture(picture: Picture) -> str:
    """Return a picture (H, W, 3) as a data address."""
    return _address(png_of(picture), "png")


def png_of(picture: Picture) -> bytes:
    """Return a picture (H, W, 3) as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def safe_svg(figure: str | None) -> Markup | None:
    """Return a figure made here (see `figures`) as markup that a page takes as it is."""
    return None if figure is None else Markup(figure)


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
