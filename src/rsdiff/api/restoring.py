"""Restoring with a checkpoint: an image at hand, or rasters on disk as task=restore does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsdiff.api.commands import run, typed
from rsdiff.api.model import load
from rsdiff.config import UserError

OF_RUN = ("scale", "seed")
"""What is typed without `task.` before it."""


def restore(
    image: Any,
    checkpoint: str | Path = "zoo:any_scale",
    *,
    output: str | Path | None = None,
    outputs: str | Path = "outputs",
    device: str = "auto",
    sampler: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Return an image enlarged, or restore rasters on disk and return the paths of what was written.

    image       an image as `Model.restore` takes it; or a path: a raster, a folder of rasters, a pattern, or a list of them
    checkpoint  as `load` takes it; to restore many images, call `load` once
    output      of paths: the raster to write, or the folder of several
    outputs     of paths: folder of all run folders, so that a killed restoration goes on
    device      'auto' takes a GPU where there is one; of paths always
    sampler     other options of the sampler, such as {'steps': 10}
    options     of `Model.restore`; of paths scale, seed and those of task=restore

    >>> import numpy, rsdiff
    >>> rsdiff.restore(numpy.full((24, 32, 3), 90, numpy.uint8), scale=2).shape
    (48, 64, 3)
    """
    if not _is_place(image):
        if output is not None:
            raise UserError(f"output={output} was given with an image that is no path; give the path of a raster, or leave output out.")
        return load(checkpoint, device, outputs).restore(image, sampler=sampler, **options)
    if output is None:
        raise UserError(f"{image} is a path, of which the result is written to another; give output=, or open it first: rasterio.open(..).")
    if device != "auto":
        raise UserError(f"device={device} was given with a path; set CUDA_VISIBLE_DEVICES ('' for the CPU), or give an opened image.")
    weights = f"model={checkpoint}" if str(checkpoint) == "bicubic" else f"checkpoint={checkpoint}"
    given = [f"{name}={typed(options[name])}" for name in OF_RUN if options.get(name) is not None]
    given += [f"task.{name}={typed(value)}" for name, value in options.items() if name not in OF_RUN]
    given += [f"sampler.{name}={typed(value)}" for name, value in (sampler or {}).items()]
    places = f"input={typed([str(one) for one in image]) if isinstance(image, list | tuple) else image}"
    ended = run("task=restore", weights, places, f"output={output}", f"outputs={outputs}", *given)
    return [path for path in ended.files if path.suffix != ".html"]


def _is_place(image: Any) -> bool:
    return isinstance(image, str | Path) or (isinstance(image, Sequence) and bool(image) and all(map(_is_place, image)))
