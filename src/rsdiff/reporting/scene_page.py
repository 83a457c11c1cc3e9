"""The page of a restored scene: before and after, whole and in detail, under one slider; and a preview of it as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows
import torch
from rasterio.enums import Resampling
from torch import Tensor

from rsdiff.data.normalisation import Normaliser
from rsdiff.data.opening import in_one_sentence, without_warnings
from rsdiff.inference.scene_input import STRICT, SceneReader
from rsdiff.inference.scene_job import SceneJob, SceneResult
from rsdiff.reporting.display import busiest_window, display_of, enlarged
from rsdiff.reporting.page import embedded_picture, png_of, write_page
from rsdiff.reporting.records import write_whole

PREVIEW_SIDE, DETAIL_SIDE = 900, 360
"""Longest side of the preview and side of the detail, in target pixels."""


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


def page_of(output: Path) -> Path:
    """Return the before/after page of an output."""
    return output.with_name(f"{output.stem}_preview.html")


def write_preview(job: SceneJob, result: SceneResult, is_new: bool) -> None:
    """Write the preview PNG and the before/after page beside the output where they are wanted, of an older result where they are gone."""
    page = page_of(result.outputs[0])
    if not job.options.preview or (page.exists() and not is_new):
        return
    H, W = result.size
    share = min(1.0, PREVIEW_SIDE / max(H, W))
    with rasterio.Env(**STRICT), without_warnings():
        whole = images_of(job, result, (0, 0, H, W), (max(1, round(H * share)), max(1, round(W * share))))
        top, left, side, _ = busiest_window(whole[1], share=0.1)
        centre = ((top + side / 2) / share, (left + side / 2) / share)
        extent = [min(DETAIL_SIDE, length) for length in (H, W)]
        first = [min(max(0, round(c - e / 2)), length - e) for c, e, length in zip(centre, extent, (H, W), strict=True)]
        detail = images_of(job, result, (first[0], first[1], extent[0], extent[1]), (extent[0], extent[1]))
    facts = [
        ("Input", f"{result.input_size[1]} x {result.input_size[0]} px"),
        ("Restored", f"{W} x {H} px"),
        ("Model", job.identity),
        *([("Weights", job.weights)] if job.weights else []),
        ("Scale", f"x{job.scale:g}"),
        ("Seed", str(job.seed)),
        ("Tiles", f"{result.tiles} of {result.tile} px"),
        ("Seam score", "none" if np.isnan(result.seam_score) else f"{result.seam_score:.3f}"),
    ]
    pairs = [BeforeAfter("Scene", *whole), BeforeAfter("Detail", *detail)]
    write_scene_page(page, page.with_suffix(".png"), f"{job.input.name}, x{job.scale:g}", facts, pairs, (0, 1, 2))


def images_of(
    job: SceneJob, result: SceneResult, window: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and restored image in [0, 1] of a window (top, left, height, width) of target pixels, decimated to `size`.

    NaN marks missing pixels.
    """
    top, left, height, width = window
    with SceneReader(job.input, job.options.view()) as reader:
        low = [int(top // job.scale), int(left // job.scale)]
        high = [int(np.ceil((top + height) / job.scale)), int(np.ceil((left + width) / job.scale))]
        extent = [max(1, min(h, limit) - first) for h, limit, first in zip(high, (reader.height, reader.width), low, strict=True)]
        small = (max(1, min(extent[0], size[0])), max(1, min(extent[1], size[1])))
        before = reader.thumbnail(low[0], low[1], extent[0], extent[1], small)
    with in_one_sentence(result.outputs[0]), rasterio.open(result.outputs[0]) as file:
        part = rasterio.windows.Window(left, top, width, height)
        count = min(job.problem.bands, file.count)
        options = {"window": part, "out_shape": (count, *size), "resampling": Resampling.nearest}
        values = file.read(list(range(1, count + 1)), **options)
        valid = file.read_masks(list(range(1, count + 1)), **options) > 0
    if count < len(before[0]):  # a scene of one band that was shown to the model three times
        values, valid = values.repeat(len(before[0]), axis=0), valid.repeat(len(before[0]), axis=0)
    normaliser = Normaliser(*result.value_range)
    after = np.where(valid, normaliser.normalise(values), np.nan)
    shown = np.where(before[1], normaliser.normalise(before[0]), np.nan)
    return torch.from_numpy(shown), torch.from_numpy(after)
