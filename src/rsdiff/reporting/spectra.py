"""Spectra of chosen pixels and the error of every band of one image, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.reporting.panels import DOTS_PER_INCH, file_name
from rsdiff.reporting.records import write_whole
from rsdiff.reporting.style import BASELINE, METHOD, REFERENCE, styled

FEWEST_BANDS = 8
"""Images with fewer bands have no curves worth drawing."""
PIXELS = 4
"""Pixels whose spectra are drawn."""
_DEGREES = 180 / np.pi

Values = NDArray[np.float64]


@dataclass(frozen=True)
class SpectralImages:
    """One image and what was made of it, each (C, H, W) in [0, 1].

    baseline     (its name, its image), or None
    wavelengths  band centres in nm, or empty: bands are then numbered from 1
    """

    name: str
    method: str
    restored: Tensor
    hr: Tensor
    baseline: tuple[str, Tensor] | None = None
    wavelengths: Sequence[float] = ()


def write_spectra(folder: Path, images: SpectralImages) -> Path:
    """Write `folder`/<name>.spectra.png and return its path.

    Left, the spectra of four pixels (see `chosen_pixels`), each in a plot of its own: reference, method and baseline, with the angles
    between them. Right, over the bands: the root mean squared error, and the mean of method minus reference with one standard deviation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = array(images.hr)
    made = {images.method: (array(images.restored), METHOD)}
    if images.baseline is not None:
        made[images.baseline[0]] = (array(images.baseline[1]), BASELINE)
    known = len(images.wavelengths) == len(reference)
    # Band centres of sensors with several spectrometers overlap: curves follow the wavelength, not the order in the file.
    axis = np.asarray(images.wavelengths, np.float64) if known else np.arange(1.0, len(reference) + 1)
    order = np.argsort(axis, kind="stable")
    label = "wavelength (nm)" if known else "band"
    with styled():
        figure = Figure(figsize=(11.5, 4.8), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        sides = figure.add_gridspec(1, 2, width_ratios=(3, 2))
        left, right = figure.add_subfigure(sides[0]), figure.add_subfigure(sides[1])
        cells = left.subplots(2, 2, sharex=True, sharey=True)
        for axes, (row, column) in zip(cells.ravel(), chosen_pixels(reference, made[images.method][0]), strict=False):
            _draw_pixel(axes, axis, order, (row, column), reference, made)
        for axes in cells[-1]:
            axes.set_xlabel(label)
        for axes in cells[:, 0]:
            axes.set_ylabel("value")
        left.suptitle(f"{images.name}: spectra of four pixels", fontsize=9)
        left.legend(*cells[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        _draw_errors(right.subplots(2, 1, sharex=True), axis[order], order, reference, made, label)
        right.suptitle("error of every band", fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    path = folder / f"{file_name(images.name)}.spectra.png"
    write_whole(path, lambda at: at.write_bytes(buffer.getvalue()))
    return path


def array(image: Tensor) -> Values:
    """Return an image as float64."""
    return np.asarray(image.detach().double().cpu().numpy())


def angles(image: Values, reference: Values) -> Values:
    """Return the angle in degrees between the spectra of every pixel (H, W); NaN where one has no length or is not finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (image * reference).sum(0) / np.sqrt((image**2).sum(0) * (reference**2).sum(0))
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)) * _DEGREES)


def chosen_pixels(reference: Values, restored: Values) -> list[tuple[int, int]]:
    """Return (row, column) of the pixels with the least, a third, two thirds and the largest spectral angle of the restored image."""
    found = angles(restored, reference).ravel()
    ranked = np.argsort(found, kind="stable")[: int(np.isfinite(found).sum())]
    if not len(ranked):
        return []
    places = np.linspace(0, len(ranked) - 1, PIXELS).round().astype(int)
    width = reference.shape[2]
    return [(int(position) // width, int(position) % width) for position in ranked[places]]


def _draw_pixel(
    axes: Axes, axis: Values, order: NDArray[np.intp], at: tuple[int, int], reference: Values, made: dict[str, tuple[Values, str]]
) -> None:
    row, column = at
    axes.plot(axis[order], reference[order, row, column], color=REFERENCE, linewidth=1.6, label="reference")
    told = []
    for name, (image, colour) in made.items():
        axes.plot(axis[order], image[order, row, column], color=colour, linewidth=1.2, label=name)
        told.append(f"{name} {angles(image[:, row, column, None, None], reference[:, row, column, None, None]).item():.1f}°")
    axes.set_title(f"row {row}, column {column}: {', '.join(told)}", fontsize=7.5)


def _draw_errors(
    cells: NDArray[np.object_], axis: Values, order: NDArray[np.intp], reference: Values, made: dict[str, tuple[Values, str]], label: str
) -> None:
    above, below = cells
    for name, (image, colour) in made.items():
        error = (image - reference)[order]
        above.plot(axis, np.sqrt(np.nanmean(error**2, axis=(1, 2))), color=colour, linewidth=1.3, label=name)
        mean, deviation = np.nanmean(error, axis=(1, 2)), np.nanstd(error, axis=(1, 2))
        below.plot(axis, mean, color=colour, linewidth=1.3)
        below.fill_between(axis, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    above.set_ylim(bottom=0)
    above.set_ylabel("RMSE")
    above.legend(fontsize=7)
    below.axhline(0, color=REFERENCE, linewidth=0.6)
    below.set_ylabel("mean error ± std")
    below.set_xlabel(label)
