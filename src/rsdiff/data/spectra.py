"""Reflectance of the materials that generated scenes are made of.

The curves are ours, drawn by hand after the general shape that field spectrometers find (chlorophyll absorption and red edge at 700 nm,
soils that rise with wavelength, water that is dark in the infrared); they are plausible, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError

_KNOTS = (400, 450, 500, 550, 600, 650, 680, 700, 720, 750, 800, 900, 970, 1000, 1200, 1450, 1650, 1950, 2200, 2500)
_CURVES = {  # percent
    "crop": (3, 3.5, 4.5, 9.5, 6, 4, 3.5, 10, 22, 42, 47, 48, 46, 47, 44, 20, 32, 10, 20, 8),
    "tree": (2, 2.2, 2.8, 5, 3.2, 2.4, 2.2, 6, 14, 28, 33, 34, 32, 33, 30, 12, 20, 6, 11, 4),
    "straw": (8, 11, 14, 19, 24, 28, 30, 32, 33, 35, 38, 42, 43, 44, 48, 38, 46, 26, 36, 24),
    "dark_soil": (5, 6.5, 8, 10, 13, 15, 16, 17, 17.5, 18.5, 20, 23, 24, 25, 28, 26, 31, 24, 29, 24),
    "bright_soil": (10, 13, 17, 21, 26, 29, 30.5, 31, 32, 33, 35, 38, 40, 41, 45, 42, 49, 38, 45, 38),
    "sand": (16, 20, 25, 30, 35, 38, 39, 40, 41, 42, 44, 47, 48, 49, 52, 50, 55, 48, 52, 46),
    "water": (6, 6.6, 7, 6.4, 4, 3, 2.5, 2, 1.6, 1.2, 1, 0.7, 0.5, 0.5, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1),
    "asphalt": (7, 7.6, 8.2, 8.8, 9.4, 9.8, 10, 10.2, 10.3, 10.5, 11, 11.6, 12, 12.2, 13, 13.5, 14.5, 14, 15, 14),
    "concrete": (17, 20, 23, 26, 28, 29, 29.5, 30, 30.3, 30.7, 31, 32, 32.5, 33, 34, 33, 35, 30, 33, 29),
    "tiles": (6, 7, 8, 12, 26, 32, 34, 35, 35.5, 36, 38, 40, 41, 42, 44, 44, 47, 43, 45, 40),
    "slate": (9, 10, 11, 11.8, 12.2, 12.5, 12.8, 13, 13, 13.2, 13.5, 14, 14.3, 14.5, 15, 15, 16, 15, 15, 14),
    "metal": (38, 41, 43, 44, 45, 45.5, 45.5, 46, 46, 46, 46.5, 47, 47.5, 48, 50, 50, 52, 50, 51, 49),
}
MATERIALS = tuple(_CURVES)


def reflectances(wavelengths: Sequence[float]) -> NDArray[np.float32]:
    """Return the reflectance (materials, bands) in 0..1 of every one of MATERIALS at `wavelengths` in nm (350 to 2500)."""
    if not wavelengths or min(wavelengths) < 350 or max(wavelengths) > 2500:
        raise UserError(f"wavelengths from {min(wavelengths, default=0)} to {max(wavelengths, default=0)} nm; 350 to 2500 nm are known.")
    return np.stack([np.interp(wavelengths, _KNOTS, curve) / 100 for curve in _CURVES.values()]).astype(np.float32)


def mixture(**shares: float) -> NDArray[np.float32]:
    """Return a row of shares over MATERIALS; shares need not sum to 1 (their sum is the brightness)."""
    row = np.zeros(len(MATERIALS), np.float32)
    for name, share in shares.items():
        row[MATERIALS.index(name)] = share
    return row
