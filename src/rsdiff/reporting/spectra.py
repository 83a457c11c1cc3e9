"""Spectra of chosen pixels and the error of every band of one image, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from rsdiff.reporting.panels import DOTS_PER_INCH, file_name
from rsdiff.reporting.records import write_whole
from rsdiff.reporting.style import METHOD, SERIES, styled

FEWEST_BANDS = 8
"""Images with fewer bands have no curves worth drawing."""


def write_spectra(folder: Path, name: str, restored: Tensor, hr: Tensor, method: str, wavelengths: Sequence[float] = ()) -> Path:
    """Write `folder`/<name>.spectra.png and return its path.

    restored, hr  (C, H, W) in [0, 1]
    wavelengths   band centres in nm, or empty: bands are then numbered from 1
    Left, the spectra of four pixels, at a quarter and three quarters of each side: the reference as a line, the restored one dashed.
    Right, the root mean squared error of every band.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, reference = (values.detach().double().cpu().numpy() for values in (restored, hr))
    bands, height, width = reference.shape
    axis = np.asarray(wavelengths) if len(wavelengths) == bands else np.arange(1, bands + 1)
    label = "wavelength (nm)" if len(wavelengths) == bands else "band"
    pixels = [(height * row // 4, width * column // 4) for row in (1, 3) for column in (1, 3)]
    with styled():
        figure = Figure(figsize=(9.6, 3.2), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        spectra, errors = figure.subplots(1, 2, width_ratios=(3, 2))
        for (row, column), colour in zip(pixels, SERIES, strict=False):
            spectra.plot(axis, reference[:, row, column], color=colour, linewidth=1.4, label=f"row {row}, column {column}")
            spectra.plot(axis, image[:, row, column], color=colour, linewidth=1.4, linestyle=(0, (3, 1.5)))
        spectra.set_title(f"{name}: reference, {method} dashed", fontsize=9)
        spectra.set_xlabel(label)
        spectra.set_ylabel("value")
        spectra.legend(fontsize=7)
        errors.plot(axis, np.sqrt(np.nanmean((image - reference) ** 2, axis=(1, 2))), color=METHOD, linewidth=1.4)
        errors.set_ylim(bottom=0)
        errors.set_title("error of every band", fontsize=9)
        errors.set_xlabel(label)
        errors.set_ylabel("RMSE")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    path = folder / f"{file_name(name)}.spectra.png"
    write_whole(path, lambda at: at.write_bytes(buffer.getvalue()))
    return path
