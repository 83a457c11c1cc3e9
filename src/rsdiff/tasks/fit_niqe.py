"""task=fit-niqe: fit a NIQE model of one's own on the HR training images, for the metric niqe_rs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.source import ImageSource
from rsdiff.metrics import niqe
from rsdiff.metrics.colour import luma, quantise, rgb_planes
from rsdiff.runs.command import next_command
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import FitNiqeTask
from rsdiff.tracking import Tracker

DEFAULT_OUTPUT = Path("weights/niqe_rs.npz")
"""Where the metric looks for it without further settings."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Fit the model and write it to `output=`.

    Raises UserError when the data have no HR images, too few bands or too few sharp blocks.
    """
    options = cast(FitNiqeTask, settings.task)
    source = settings.split("train")
    if "hr" not in source.gives:
        raise UserError(f"dataset={settings.choices['dataset']} has no HR images, of which NIQE learns; choose data that have.")
    if source.bands == 2 or max(options.rgb_bands) >= max(source.bands, 3):
        raise UserError(
            f"task.rgb_bands={list(options.rgb_bands)} are not colours of {source.bands} bands; name the red, green and blue one."
        )
    output = settings.output or DEFAULT_OUTPUT
    model = niqe.fit(lumas(source, options, tracker), options.block, options.sharpness)
    recipe = {
        "luma": "y_studio, rounded",
        "sharpness": str(options.sharpness),
        "images": str(len(source)),
        "dataset": settings.choices["dataset"],
        "fingerprint": source.fingerprint(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    niqe.write_model(output, model, recipe)
    use = ("task=evaluate", "checkpoint=RUN_FOLDER", "metrics.metrics=[psnr,niqe_rs]", f"metrics.weight_folders=[{output.parent}]")
    return TaskResult(
        messages=[
            f"model    {output}, of {len(source)} images in blocks of {options.block} px",
            f"next     {next_command(*use)}",
        ],
        summary={"images": len(source), "block": options.block},
        files=[output],
    )


def lumas(source: ImageSource, options: FitNiqeTask, tracker: Tracker) -> Iterator[Tensor]:
    """Yield the rounded studio luma (H, W), 0..255, of every image: what the metric sees."""
    for index in range(len(source)):
        hr = source.read(index).hr
        assert hr is not None
        yield luma(rgb_planes(quantise(hr.clamp(0, 1)), options.rgb_bands), "y_studio")[0].round()
        tracker.progress("reading", index + 1, len(source))
