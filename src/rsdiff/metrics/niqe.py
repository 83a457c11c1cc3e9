"""NIQE (Mittal, Soundararajan and Bovik 2012): distance of block statistics from those of pristine images, and the fit of such a model.

Blocks are numbered block column by block column. The normalised image is made in float32 as in the published code, everything after it in
float64. In flat regions, such as clouds that saturate, float32 makes differences from the local mean exactly 0, which count as neither
positive nor negative, where float64 leaves rounding noise of 5e-14 that does (0.03 of a score). The published code also sums the half-size
image in float32; what that adds in flat regions depends on the order of its sums and is not reproduced. Scores of BasicSR's own code
differ by 1e-5 on two scenes of LEVIR-CD, also overexposed ones, and on a Landsat scene by 9e-4 where a part is saturated and by 1.4e-3 with
its black corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.durable import write_arrays
from rsdiff.degradations.resizing import resize
from rsdiff.metrics.ssim import gaussian_filter

BLOCK = 96
WINDOW, SIGMA = 7, 7 / 6
SHARPNESS_THRESHOLD = 0.75
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = torch.arange(0.2, 10.0005, 0.001, dtype=torch.float64)


@dataclass(frozen=True)
class NiqeModel:
    """Mean (36,) and covariance (36, 36) of the block features of pristine images, and the side of the blocks they were made of."""

    mean: Tensor
    covariance: Tensor
    block: int = BLOCK


def niqe(luma: Tensor, model: NiqeModel, min_blocks: int = 2, valid: Tensor | None = None) -> float:
    """Return the score of an image of luma (H, W) in 0..255, lower is better; NaN with fewer than `min_blocks` blocks.

    luma   rounded; studio luma in BasicSR, full-range in pyiqa and the first release (6.60 against 6.87 on one image)
    valid  (H, W) bool; blocks that hold an invalid pixel do not count, nor do flat ones
    Only the largest multiple of the block from the top left is looked at, so compare values of images of equal size only.
    """
    if min(luma.shape) < model.block:
        return math.nan
    return score(block_features(luma, model.block, valid)[0], model, min_blocks)


def score(features: Tensor, model: NiqeModel, min_blocks: int = 2) -> float:
    """Return sqrt(d^T pinv((S_model + S) / 2) d) of block features (N, 36), d the difference of the means."""
    whole = features[~features.isnan().any(1)]
    if len(whole) < max(2, min_blocks):
        return math.nan
    difference = model.mean - features.nanmean(0)
    inverse = torch.linalg.pinv((model.covariance + whole.T.cov()) / 2)
    return float((difference @ inverse @ difference).sqrt())


def block_features(luma: Tensor, block: int = BLOCK, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (N, 36) features of the blocks of a luma image (H, W): 18 at full size, then 18 at half size; and (N,) sharpness.

    Blocks with a pixel that is not `valid` (H, W) have NaN for features.
    Sharpness is the mean local standard deviation of a block at full size. Raises UserError for an image smaller than a block.
    """
    rows, columns = luma.shape[0] // block, luma.shape[1] // block
    if rows * columns == 0:
        raise UserError(f"NIQE needs {block}x{block} pixels and the image has {luma.shape[0]}x{luma.shape[1]}.")
    image = luma[: rows * block, : columns * block].double()
    if valid is not None:
        valid = valid[: rows * block, : columns * block]
        image = torch.where(valid, image, 0.0)
    full, deviation = normalise(image)
    half, _ = normalise(half_size(image))
    features = torch.cat((statistics(_blocks(full, block)), statistics(_blocks(half, block // 2))), dim=1)
    if valid is not None:
        features[~_blocks(valid, block).all(2).all(1)] = math.nan
    return features, _blocks(deviation, block).mean((1, 2))


def half_size(image: Tensor) -> Tensor:
    """Return an image (H, W) of 0..255 at half size: MATLAB's antialiased bicubic."""
    made = resize(image[None, None] / 255, (image.shape[0] // 2, image.shape[1] // 2), "matlab")[0, 0]
    return (made.float() * 255).double()  # stored in float32, as published


def normalise(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return ((x - m) / (s + 1), s) of an image (H, W): local mean m and standard deviation s under a 7x7 Gaussian, edges repeated."""
    half = WINDOW // 2
    padded = F.pad(image[None, None], (half, half, half, half), mode="replicate")[0, 0]
    squares = padded.float().square().double()
    mean, square = gaussian_filter(torch.stack((padded, squares)), WINDOW, SIGMA).float().unbind()
    deviation = (square - mean.square()).abs().sqrt()
    return ((image.float() - mean) / (deviation + 1)).double(), deviation.double()


def statistics(blocks: Tensor) -> Tensor:
    """Return the (N, 18) features of normalised blocks (N, h, w); a flat block has NaN in them.

    Shape and width of the values, then shape, mean, left and right width of their products with the four neighbours (wrapped around).
    """
    shape, left, right = asymmetric_fit(blocks)
    columns = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right = asymmetric_fit(blocks * blocks.roll(shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        columns += [shape, mean, left, right]
    return torch.stack(columns, dim=1)


def asymmetric_fit(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (shape, left width, right width), each (N,), of asymmetric generalised Gaussians fitted to the values of blocks (N, h, w).

    The shape is the grid value (0.2 to 10, step 0.001) whose moment ratio is nearest; without positive or negative values the widths are
    NaN and the shape is the first of the grid.
    """
    values = blocks.flatten(1)
    left, right = (_deviation(values, side) for side in (values < 0, values > 0))
    balance = left / right
    ratio = values.abs().mean(1).square() / values.square().mean(1)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance.square() + 1).square()
    table = (2 * torch.lgamma(2 / _SHAPES) - torch.lgamma(1 / _SHAPES) - torch.lgamma(3 / _SHAPES)).exp()
    # argmin takes the first NaN for the smallest value, which is the grid's start, as in NumPy.
    shape = _SHAPES[(table - ratio[:, None]).square().argmin(1)]
    width = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp().sqrt()
    return shape, left * width, right * width


def fit(lumas: Iterable[Tensor], block: int = BLOCK, threshold: float = SHARPNESS_THRESHOLD) -> NiqeModel:
    """Return the model of pristine luma images (H, W) in 0..255: the sharp blocks of each image, pooled over images.

    threshold  a block counts if its sharpness exceeds this share of the sharpest block of its own image
    Use the luma of the later scores, and several hundred sharp blocks: with few the covariance is near singular and scores explode.
    Raises UserError with fewer than 37 blocks, for which it is singular. Source: estimatemodelparam.m of the release.
    """
    kept = []
    for luma in lumas:
        features, sharpness = block_features(luma, block)
        kept.append(features[sharp_blocks(sharpness, threshold)])
    features = torch.cat(kept) if kept else torch.empty(0, 36, dtype=torch.float64)
    whole = features[~features.isnan().any(1)]
    if len(whole) < 37:
        raise UserError(f"the sharp blocks of these images are {len(whole)} and 37 or more are needed; give more or larger images.")
    return NiqeModel(features.nanmean(0), whole.T.cov(), block)


def sharp_blocks(sharpness: Tensor, threshold: float = SHARPNESS_THRESHOLD) -> Tensor:
    """Return (N,) bool: blocks sharper than `threshold` times the sharpest of their image."""
    return sharpness > threshold * sharpness.max()


def read_model(path: Path) -> NiqeModel:
    """Return the model in `path`: BasicSR's or our npz, or the release's mat file.

    Raises UserError if the file holds neither mu_pris_param/cov_pris_param, mu_prisparam/cov_prisparam nor mu/cov.
    """
    if path.suffix == ".mat":
        import scipy.io  # a sixth of PyTorch's own start, for those who have such a file

        values = {name: value for name, value in scipy.io.loadmat(path).items() if isinstance(value, np.ndarray)}
    else:
        with np.load(path, allow_pickle=False) as stored:
            values = {name: stored[name] for name in stored.files}
    for mean, covariance in (("mu", "cov"), ("mu_pris_param", "cov_pris_param"), ("mu_prisparam", "cov_prisparam")):
        if mean in values and covariance in values:
            block = int(values["block"]) if "block" in values else BLOCK
            return NiqeModel(_float64(values[mean]).flatten(), _float64(values[covariance]), block)
    raise UserError(f"{path} is no NIQE model: it holds {', '.join(sorted(values))} and neither mu, cov nor mu_pris_param, cov_pris_param.")


def write_model(path: Path, model: NiqeModel, recipe: dict[str, str]) -> None:
    """Write `model` as npz with how it was made (`recipe`: luma, threshold, images, hash of the data)."""
    arrays: dict[str, Any] = {"mu": model.mean.numpy(), "cov": model.covariance.numpy(), "block": np.array(model.block)}
    arrays |= {name: np.array(text) for name, text in recipe.items()}
    write_arrays(path, arrays)


def _float64(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def _blocks(image: Tensor, side: int) -> Tensor:
    rows, columns = image.shape[0] // side, image.shape[1] // side
    return image.reshape(rows, side, columns, side).permute(2, 0, 1, 3).reshape(rows * columns, side, side)


def _deviation(values: Tensor, side: Tensor) -> Tensor:
    return (torch.where(side, values, 0.0).square().sum(1) / side.sum(1)).sqrt()
