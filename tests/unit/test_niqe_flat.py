"""NIQE of images with flat regions, against its published arithmetic written out in NumPy with the float32 that the release mixes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter
from scipy.special import gamma

from rsdiff.degradations.resizing import resize
from rsdiff.metrics.niqe import NiqeModel, fit, niqe

BLOCK = 96
Plane = NDArray[np.float32]


def scene(seed: int, flat: float) -> Plane:
    """A textured image of whole grey levels, of which about a share is saturated."""
    generator = np.random.default_rng(seed)
    rough = (
        gaussian_filter(generator.normal(size=(4 * BLOCK, 4 * BLOCK)), 1.5) * 300 + 120 + generator.normal(size=(4 * BLOCK, 4 * BLOCK)) * 4
    )
    smooth = gaussian_filter(generator.normal(size=rough.shape), 30)
    rough[smooth > np.quantile(smooth, 1 - flat)] += 400
    return rough.clip(0, 255).round().astype(np.float32)


def asymmetric(values: NDArray[np.float64]) -> tuple[float, float, float]:
    grid = np.arange(0.2, 10.001, 0.001)
    table = gamma(2 / grid) ** 2 / (gamma(1 / grid) * gamma(3 / grid))
    left, right = np.sqrt(np.mean(values[values < 0] ** 2)), np.sqrt(np.mean(values[values > 0] ** 2))
    balance = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    shape = grid[np.argmin((table - ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2) ** 2)]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


def features(block: NDArray[np.float64]) -> list[float]:
    shape, left, right = asymmetric(block)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric(block * np.roll(block, shift, (0, 1)))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def reference(image: Plane, model: NiqeModel) -> float:
    row = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(row, row) / row.sum() ** 2
    parts = []
    for side in (BLOCK, BLOCK // 2):
        mean = convolve(image, window, mode="nearest")  # float32, as the image
        deviation = np.sqrt(np.abs(convolve(np.square(image), window, mode="nearest") - np.square(mean)))
        normal = ((image - mean) / (deviation + 1)).astype(np.float64)
        blocks = [normal[r : r + side, c : c + side] for c in range(0, normal.shape[1], side) for r in range(0, normal.shape[0], side)]
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(np.array([features(block) for block in blocks]))
        half = resize(torch.from_numpy(image)[None, None].double() / 255, (image.shape[0] // 2, image.shape[1] // 2), "matlab")
        image = half[0, 0].numpy().astype(np.float32) * np.float32(255)
    found = np.concatenate(parts, axis=1)
    whole = found[~np.isnan(found).any(axis=1)]
    difference = model.mean.numpy() - np.nanmean(found, axis=0)
    inverse = np.linalg.pinv((model.covariance.numpy() + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("flat", [0.0, 0.3])
def test_flat_regions_score_as_published(flat: float) -> None:
    model = fit(torch.from_numpy(scene(seed, 0.0)).double() for seed in range(4))
    for seed in (10, 11):
        image = scene(seed, flat)
        assert niqe(torch.from_numpy(image).double(), model) == pytest.approx(reference(image, model), abs=1e-3)
