"""The measures of opensr-test (Aybar et al. 2024) for reflectance: consistency with the LR, added detail, and whether that detail is true.

Images are reflectances (C, H, W) of any band count, neither rounded nor limited. Up and down are torch's antialiased bilinear, whatever
made the LR. The restored image is matched to the reference in its histograms and, with `align`, shifted onto it; without it, which is our
default and not that of opensr-test, a subpixel shift of the restored image counts as its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.metrics.phase_correlation import subpixel_shift

Distance = Literal["nd", "l1", "l2", "sad", "pbias", "kl", "psnr", "mtf"]
Aggregation = Literal["pixel", "patch", "image"]
CLASSES = ("improvement", "omission", "hallucination")
_RATIO_LIMIT = 100.0


@config
class OpensrConfig:
    """Options of opensr-test; any of them changes the numbers, so a report repeats those that differ from these defaults."""

    read_with: ClassVar[ReadWith] = {"patch_size": ("aggregation", ("patch",))}

    aggregation: Aggregation = "pixel"
    """Where distances are taken: per pixel, per square patch, or once per image."""
    patch_size: int = 16
    """Side of a patch in HR pixels, for aggregation=patch; images must be square then."""
    border: int = 16
    """HR pixels removed on each side; must be a multiple of the scale."""
    reflectance_distance: Distance = "l1"
    """Distance of the reflectance consistency."""
    spectral_distance: Distance = "sad"
    """Distance of the spectral consistency (sad: angle in degrees)."""
    synthesis_distance: Distance = "l1"
    """Distance of the added detail."""
    correctness_distance: Distance = "nd"
    """Distance of the correctness; nd: |x - y| / |x + y|."""
    threshold: float | Literal["auto"] = "auto"
    """Pixels whose three distances are all at or below it are left out; auto: the 75 % quantile of the distance between up(LR) and HR."""
    match_histograms: bool = True
    """Whether the restored image is matched to the HR in its histograms first; without it omission goes from 0.16 to 0.52."""
    align: bool = False
    """Whether the restored image is then shifted onto the HR by what phase correlation finds (harm_apply_spatial there, where it is on)."""
    penalty: float = 0.05
    """Strength of the coupling between the relative distances (im_score, om_score and ha_score there)."""
    temperature: float = 0.25
    """Temperature of the softmin over improvement, omission and hallucination."""
    statistic: Literal["softmin", "percent"] = "softmin"
    """softmin: mean of the softmin maps; percent: share of pixels in which the class is the largest."""

    def __post_init__(self) -> None:
        if self.border < 0 or self.patch_size < 1 or self.temperature <= 0:
            raise UserError("border must be 0 or more, patch_size 1 or more and temperature positive.")


@dataclass(frozen=True)
class Prepared:
    """LR, restored image and reference without their borders, on both grids.

    matched  the restored image with the histograms of the reference, and in its place (or as it is)
    """

    lr: Tensor
    down: Tensor
    up: Tensor
    matched: Tensor
    hr: Tensor | None
    scale: int


@dataclass(frozen=True)
class Correctness:
    """Softmin maps and distances; pixels left out are NaN.

    values  share of improvement, omission and hallucination, by name
    """

    d_ref: Tensor
    d_improvement: Tensor
    d_omission: Tensor
    maps: Tensor
    classes: Tensor
    valid_share: float
    values: dict[str, float]


def prepare(lr: Tensor, sr: Tensor, hr: Tensor | None, options: OpensrConfig) -> Prepared:
    """Return what the measures compare. Raises UserError if the scale is not whole or does not divide the border, or all is border."""
    scale = sr.shape[-1] // lr.shape[-1]
    if (lr.shape[-2] * scale, lr.shape[-1] * scale) != tuple(sr.shape[-2:]):
        raise UserError(f"opensr measures need a whole scale; LR {tuple(lr.shape[-2:])}, restored {tuple(sr.shape[-2:])}.")
    if options.border % scale:
        raise UserError(
            f"metrics.opensr.border={options.border} is no multiple of the scale {scale}; choose {options.border // scale * scale}."
        )
    if min(sr.shape[-2:]) <= 2 * options.border:
        raise UserError(
            f"nothing is left of images of {sr.shape[-2]}x{sr.shape[-1]} pixels without {options.border} on each side; lower "
            "metrics.opensr.border."
        )
    lr, sr = _inside(lr, options.border // scale).float(), _inside(sr, options.border).float()
    hr = None if hr is None else _inside(hr, options.border).float()
    matched = match_histograms(sr, hr) if hr is not None and options.match_histograms else sr
    return Prepared(
        lr=lr,
        down=F.interpolate(sr[None], size=lr.shape[-2:], mode="bilinear", antialias=True)[0],
        up=F.interpolate(lr[None], size=sr.shape[-2:], mode="bilinear", antialias=True)[0],
        matched=aligned(matched, hr) if hr is not None and options.align else matched,
        hr=hr,
        scale=scale,
    )


def reflectance(images: Prepared, options: OpensrConfig) -> float:
    """Return the mean distance between the LR and the restored image on its grid, in reflectance; lower is better."""
    return _mean(_measure(images.lr, images.down, options.reflectance_distance, images.scale, options))


def spectral(images: Prepared, options: OpensrConfig) -> float:
    """Return the mean spectral angle between the LR and the restored image on its grid, in degrees; lower is better."""
    return _mean(_measure(images.lr, images.down, options.spectral_distance, images.scale, options))


def spatial(images: Prepared, rgb_bands: tuple[int, int, int] = (0, 1, 2), largest: float = 5.0) -> float:
    """Return the shift between the LR and the restored image in LR pixels; NaN beyond `largest`, where the estimate is unreliable.

    On tiles of some 40 px the estimate is off by half a pixel.
    """
    chosen = list(rgb_bands) if images.lr.shape[0] >= 3 else [0]
    rows, columns = subpixel_shift(images.down[chosen].mean(0), images.lr[chosen].mean(0))
    length = math.hypot(rows, columns)
    return length if length <= largest else math.nan


def aligned(image: Tensor, reference: Tensor, largest: float = 5.0) -> Tensor:
    """Return `image` (C, H, W) shifted onto `reference` by the shift between the means of their bands, or as it is beyond `largest` pixels.

    Bilinear with the border repeated, as opensr-test does (satalign) with OpenCV 5; OpenCV 4 rounds the shift to 1/32 pixel.
    """
    from scipy import ndimage

    rows, columns = subpixel_shift(reference.mean(0), image.mean(0))
    if math.hypot(rows, columns) > largest:
        return image
    return torch.from_numpy(ndimage.shift(image.cpu().numpy(), (0, rows, columns), order=1, mode="nearest")).to(image)


def synthesis(images: Prepared, options: OpensrConfig) -> float:
    """Return the mean distance between the enlarged LR and the restored image: how much detail was added, true or not."""
    return _mean(_measure(images.up, images.matched, options.synthesis_distance, images.scale, options))


def correctness(images: Prepared, options: OpensrConfig) -> Correctness:
    """Return how much of the added detail improves, is missing (omission) or was invented (hallucination).

    With i = d(SR, HR) / d(up(LR), HR), o = d(SR, up(LR)) / d(up(LR), HR) and h = i + o - 1, the three scores (smaller is closer) are
    i + o (1 - exp(-p h)), o + i (1 - exp(-p h)) and exp(-p i o), compared by a softmin.
    """
    assert images.hr is not None, "correctness compares with the HR image"

    def measure(x: Tensor, y: Tensor) -> Tensor:
        return _measure(x, y, options.correctness_distance, images.scale, options)

    d_ref, d_im, d_om = measure(images.up, images.hr), measure(images.matched, images.hr), measure(images.matched, images.up)
    threshold = _quantile(d_ref, 0.75) if options.threshold == "auto" else float(options.threshold)
    is_kept = (d_ref > threshold) | (d_im > threshold) | (d_om > threshold)
    d_ref, d_im, d_om = (torch.where(is_kept, distance, math.nan) for distance in (d_ref, d_im, d_om))
    i, o = d_im / d_ref, d_om / d_ref
    coupling = 1 - torch.exp(-options.penalty * (i + o - 1))
    scores = torch.stack((i + o * coupling, o + i * coupling, torch.exp(-options.penalty * i * o)))
    weights = torch.exp(-scores / options.temperature)
    maps = weights / weights.sum(0)
    classes = torch.where(is_kept, maps.argmax(0).float(), math.nan)
    if options.statistic == "softmin":
        values = {name: _mean(maps[index]) for index, name in enumerate(CLASSES)}
    else:
        values = {name: float((classes == index).sum() / is_kept.sum()) for index, name in enumerate(CLASSES)}
    return Correctness(d_ref, d_im, d_om, maps, classes, float(is_kept.float().mean()), values)


def detail_maps(lr: Tensor, sr: Tensor, hr: Tensor, options: OpensrConfig) -> Tensor:
    """Return the maps (3, H, W) of improvement, omission and hallucination, which add up to 1; NaN at the border and where all is flat."""
    found = correctness(prepare(lr, sr, hr, options), options).maps
    inside = found if found.ndim == 3 else found[:, None, None].expand(-1, *_inside(hr, options.border).shape[-2:])
    return F.pad(inside, (options.border,) * 4, value=math.nan)


def distance(x: Tensor, y: Tensor, name: Distance, scale: int = 4) -> Tensor:
    """Return the distance of two images (C, H, W) as one value.

    mtf compares the moduli of the spectra beyond the Nyquist frequency of the LR; the others are means over bands and pixels of the
    distances of `pixel_distance`, except kl, psnr and sad, which take the image as one vector.
    """
    match name:
        case "sad":
            return _angle((x * y).sum(), x.norm(), y.norm())
        case "kl":
            return x.mean() * torch.log(_limited((x / (y + 1e-8)).abs()).mean())
        case "psnr":
            return _inverse_psnr((x - y).square().nanmean())
        case "mtf":
            return _transfer(x, y, scale)
        case _:
            return pixel_distance(x, y, name).nanmean()


def pixel_distance(x: Tensor, y: Tensor, name: Distance) -> Tensor:
    """Return the (H, W) distances of two images (C, H, W). Raises UserError for mtf, which has no value per pixel.

    nd    |x - y| / |x + y|
    sad   angle between spectra in degrees
    pbias |x - y| / |y| limited to 0.01..100; kl: mean(x) log(mean |x / y|) with that ratio limited alike
    psnr  the inverse of the PSNR with peak 1
    """
    match name:
        case "nd":
            return ((x - y).abs() / (x + y + 1e-8).abs()).nanmean(0)
        case "l1":
            return (x - y).abs().nanmean(0)
        case "l2":
            return (x - y).square().nanmean(0)
        case "sad":
            return _angle((x * y).sum(0), x.norm(dim=0), y.norm(dim=0))
        case "pbias":
            return _limited(((x - y) / (y + 1e-8)).abs()).nanmean(0)
        case "kl":
            return x.mean(0) * torch.log(_limited((x / (y + 1e-8)).abs()).mean(0))
        case "psnr":
            return _inverse_psnr((x - y).square().nanmean(0))
        case "mtf":
            raise UserError("the distance mtf has no value per pixel; choose metrics.opensr.aggregation=patch or image.")


def patch_distance(x: Tensor, y: Tensor, name: Distance, patch_size: int, scale: int = 4) -> Tensor:
    """Return the distances of square patches (rows, columns) of two square images, padded with zeros around to whole patches."""
    first, second = _patches(x, patch_size), _patches(y, patch_size)
    rows, columns = first.shape[:2]
    values = [distance(first[row, column], second[row, column], name, scale) for row in range(rows) for column in range(columns)]
    return torch.stack(values).view(rows, columns)


def match_histograms(image: Tensor, reference: Tensor) -> Tensor:
    """Return `image` (C, H, W) with every band's values mapped so that their distribution equals that of the reference's band."""
    bands = [_match(band.cpu().numpy(), target.cpu().numpy()) for band, target in zip(image, reference, strict=True)]
    return torch.from_numpy(np.stack(bands)).to(image)


def _match(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    _, position, counts = np.unique(source, return_inverse=True, return_counts=True)
    values, target_counts = np.unique(target, return_counts=True)
    quantiles = np.interp(np.cumsum(counts) / source.size, np.cumsum(target_counts) / target.size, values.astype(np.float64))
    matched: NDArray[np.float64] = quantiles[position].reshape(source.shape)
    return matched


def _measure(x: Tensor, y: Tensor, name: Distance, scale: int, options: OpensrConfig) -> Tensor:
    match options.aggregation:
        case "image":
            return distance(x, y, name, scale)
        case "pixel":
            return pixel_distance(x, y, name)
        case "patch":
            values = patch_distance(x, y, name, options.patch_size, scale)
            return F.interpolate(values[None, None], size=x.shape[-2:], mode="nearest")[0, 0]


def _inside(image: Tensor, border: int) -> Tensor:
    return image[:, border : image.shape[-2] - border, border : image.shape[-1] - border]


def _patches(image: Tensor, side: int) -> Tensor:
    """(C, H, W) -> (rows, columns, C, side, side)."""
    if image.shape[-1] != image.shape[-2]:
        raise UserError(
            f"aggregation=patch needs square images and this one is {image.shape[-2]}x{image.shape[-1]}; choose pixel or image."
        )
    missing = -image.shape[-1] % side
    padded = F.pad(image, (missing // 2, missing - missing // 2) * 2)
    return padded.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4)


def _quantile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(1, int(share * flat.numel()))).values)


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def _limited(ratio: Tensor) -> Tensor:
    return ratio.clamp(1 / _RATIO_LIMIT, _RATIO_LIMIT)


def _angle(product: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (product / (first * second)).clamp(-1, 1).acos().rad2deg()


def _inverse_psnr(error: Tensor) -> Tensor:
    return 1 / (-10 * torch.log10(error.clamp(min=1e-10)))


def _transfer(x: Tensor, y: Tensor, scale: int) -> Tensor:
    frequency = torch.fft.fftfreq(x.shape[-1], device=x.device)
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    is_added = (radius > 0.5 / scale) & (radius < 0.5)
    first, second = torch.fft.fft2(x).abs(), torch.fft.fft2(y).abs()
    relative: Tensor = ((second - first) / second)[..., is_added]
    return relative.abs().clamp(0, 1).mean()
