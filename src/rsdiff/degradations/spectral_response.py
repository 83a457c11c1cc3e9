"""Integrating spectral responses: what a sensor of few bands sees of a cube of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.paths import typed_path
from rsdiff.data.transfer import like
from rsdiff.degradations.bands import FewerBands
from rsdiff.degradations.base import DegradationConfig
from rsdiff.degradations.resizing import ResizeBackend

GAUSSIAN_SENSORS: dict[str, tuple[tuple[float, float], ...]] = {
    "sentinel2_10m": ((664.6, 31), (559.8, 36), (492.4, 66), (832.8, 106)),
    "sentinel2": (
        *((442.7, 20), (492.4, 66), (559.8, 36), (664.6, 31), (704.1, 15), (740.5, 15), (782.8, 20)),
        *((832.8, 106), (864.7, 21), (945.1, 20), (1613.7, 91), (2202.4, 175)),
    ),
}
"""(centre, full width at half maximum) in nm. Sentinel-2A; Gaussians approximate the agency's tables. The bands of 10 m are in the order
red, green, blue, near infrared; all twelve that see the ground in that of the sensor (B1 to B9, B11, B12)."""
AVERAGING_SENSORS: dict[str, tuple[tuple[float, float], ...]] = {
    "landsat8": ((435, 451), (452, 512), (533, 590), (636, 673), (851, 879), (1566, 1651), (2107, 2294)),
    "ikonos": ((445, 516), (506, 595), (632, 698), (757, 853)),
    "worldview2": ((400, 450), (450, 510), (510, 580), (585, 625), (630, 690), (705, 745), (770, 895), (860, 1040)),
}
"""(lowest, highest) nm of bands that weigh all wavelengths between them alike."""
OUTSIDE = 0.05
"""Share of a response that may lie outside the wavelengths of a cube."""
Sensor = Literal["sentinel2_10m", "sentinel2", "landsat8", "ikonos", "worldview2", "gaussian", "average", "table"]


@config
class SrfConfig(DegradationConfig):
    """Bands of a sensor, integrated from those of the target by its spectral response functions; nothing random."""

    located: ClassVar[frozenset[str]] = frozenset({"table"})

    sensor: Sensor = "sentinel2_10m"
    "sensor with known responses; or gaussian and average: those of `ranges`; or table: those of `table`"
    ranges: tuple[tuple[float, float], ...] = ()
    "one (centre, full width at half maximum) per band in nm (gaussian), or one (lowest, highest) (average)"
    table: str = ""
    "CSV file of a measured response: a line of names, then wavelength in nm and one value per band in every line"
    normalise: bool = True
    "divide every response by its sum over the bands of the target; without it, published tables are used as they are"
    wavelengths: tuple[float, ...] = ()
    "band centres of the target in nm; empty takes those of the data set: of its options, of its files' headers"
    resize: ResizeBackend = "matlab"
    "back-end that shrinks the result where the scale is not 1, see rsdiff.degradations.resizing"

    def __post_init__(self) -> None:
        if (self.sensor in ("gaussian", "average")) != bool(self.ranges):
            raise UserError(f"sensor={self.sensor} and {len(self.ranges)} ranges were given; ranges belong to gaussian and average alone.")
        if (self.sensor == "table") != bool(self.table):
            raise UserError(f"sensor={self.sensor} and table={self.table or '(empty)'} were given; a table belongs to sensor=table alone.")
        if self.sensor == "average" and any(low >= high for low, high in self.ranges):
            raise UserError(f"ranges={list(self.ranges)} must be (lowest, highest) in nm.")

    def lr_bands(self, bands: int) -> int:
        return self.weights(bands).shape[1]

    def weights(self, bands: int) -> NDArray[np.float64]:
        """Return the weight of every band of the target in every band of the sensor, (bands, m)."""
        if len(self.wavelengths) != bands:
            raise UserError(
                f"spectral responses need the wavelengths of the {bands} bands of the images and {len(self.wavelengths)} are known; "
                "set dataset.wavelengths (or degradation.wavelengths) to one value in nm per band, or choose degradation=bands."
            )
        centres = np.asarray(self.wavelengths)
        if self.sensor == "table":
            grid, table = read_response(typed_path(self.table))
            require_coverage(centres, grid, table)
            return weighted_by_width(centres, interpolated(centres, grid, table), self.normalise)
        averaging = self.sensor == "average" or self.sensor in AVERAGING_SENSORS
        known = AVERAGING_SENSORS if averaging else GAUSSIAN_SENSORS
        ranges = self.ranges or known[self.sensor]
        response = average_response if averaging else gaussian_response
        grid = np.arange(200.0, 3000.0, 0.5)
        require_coverage(centres, grid, response(grid, ranges))
        return weighted_by_width(centres, response(centres, ranges), self.normalise)

    def for_wavelengths(self, wavelengths: Sequence[float]) -> Self:
        return self if self.wavelengths or not wavelengths else replace(self, wavelengths=tuple(wavelengths))

    def reduced(self, hr: Tensor) -> Tensor:
        """Return the bands of the sensor, integrated from those of hr (N, C, H, W)."""
        return project(hr, like(torch.from_numpy(self.weights(hr.shape[1])), hr))

    def build(self) -> FewerBands:
        return FewerBands(self)


def project(cube: Tensor, weights: Tensor) -> Tensor:
    """Return (N, m, H, W), the bands of a cube (N, C, H, W) summed with weights (C, m)."""
    return torch.einsum("nchw,cm->nmhw", cube, weights)


def gaussian_response(wavelengths: NDArray[np.float64], bands: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return exp(-4 ln 2 ((l - centre) / width)^2), (len(wavelengths), bands), for (centre, full width at half maximum)."""
    centre, width = np.asarray(bands, np.float64).T
    return np.asarray(np.exp(-4 * np.log(2) * ((wavelengths[:, None] - centre) / width) ** 2))


def average_response(wavelengths: NDArray[np.float64], bands: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return 1 between (lowest, highest) of a band and 0 elsewhere, (len(wavelengths), bands)."""
    low, high = np.asarray(bands, np.float64).T
    return ((wavelengths[:, None] >= low) & (wavelengths[:, None] <= high)).astype(np.float64)


def interpolated(wavelengths: NDArray[np.float64], grid: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a response given on `grid` (rising) as (grid, bands) at `wavelengths`, linearly; 0 outside the grid."""
    return np.stack([np.interp(wavelengths, grid, column, left=0.0, right=0.0) for column in table.T], axis=1)


def weighted_by_width(wavelengths: NDArray[np.float64], response: NDArray[np.float64], normalise: bool = True) -> NDArray[np.float64]:
    """Return response times the spacing of the band centres, columns divided by their sums; without `normalise` the response itself."""
    if not normalise:
        return response
    spacing = np.gradient(wavelengths) if len(wavelengths) > 1 else np.ones(1)
    weights = response * spacing[:, None]
    if not (weights.sum(0) > 0).all():
        empty = int(np.argmin(weights.sum(0))) + 1
        raise UserError(f"no band of the images lies within band {empty} of the sensor; choose other responses or another sensor.")
    return np.asarray(weights / weights.sum(0))


def require_coverage(wavelengths: NDArray[np.float64], grid: NDArray[np.float64], response: NDArray[np.float64]) -> None:
    """Raise ValueError if more than 5 % of a response, given on `grid`, lies outside the wavelengths of the images."""
    half = np.abs(np.gradient(wavelengths)).max() / 2 if len(wavelengths) > 1 else 0.0
    inside = (grid >= wavelengths.min() - half) & (grid <= wavelengths.max() + half)
    shares = response[inside].sum(0) / np.maximum(response.sum(0), 1e-300)
    if shares.min() < 1 - OUTSIDE:
        raise UserError(
            f"{1 - shares.min():.0%} of the response of band {int(shares.argmin()) + 1} of the sensor lies outside the images' "
            f"{wavelengths.min():g} to {wavelengths.max():g} nm; choose a sensor within them."
        )


def read_response(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (wavelengths (n,), response (n, m)) of a CSV file with a line of names; raises UserError where it is none."""
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of responses ({error}); give a CSV file of wavelength and one column per band.") from None
    if values.shape[1] < 2 or not (np.diff(values[:, 0]) > 0).all():
        raise UserError(f"{path} must hold rising wavelengths in nm and one column per band.")
    return values[:, 0], values[:, 1:]
