"""The table of metrics: name -> description and how to compute it. A new metric is an entry here and a function elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.metrics import inception, lr_consistency, niqe, opensr
from rsdiff.metrics.colour import Space, luma, quantise, rgb_planes
from rsdiff.metrics.dists import TRUNK_FILE, Dists
from rsdiff.metrics.fid import frechet_distance, kernel_distance
from rsdiff.metrics.lpips import TRUNK_FILES, Lpips, Trunk, read_trunk
from rsdiff.metrics.metric import Context, ImageScore, Metric, SetScore, View
from rsdiff.metrics.no_reference import average_gradient, entropy
from rsdiff.metrics.octaves import OCTAVES, energy_share
from rsdiff.metrics.psnr import cpsnr, empty_bands, ergas, ergas_diffbsr, mse, psnr
from rsdiff.metrics.seams import seam_score
from rsdiff.metrics.spectral import cc, flat_bands, mpsnr, mrae, mssim, rmse, sam, uiqi
from rsdiff.metrics.ssim import ssim
from rsdiff.metrics.uncertainty import UNCERTAINTY

_NONE: frozenset[str] = frozenset()
_RGB = frozenset({"rgb"})
_RGB_PAIR = frozenset({"hr", "rgb"})
_LR = frozenset({"lr", "degradation"})
_TILE = 256


def _ready(score: ImageScore) -> Callable[[Context], ImageScore]:
    return lambda context: score


def _psnr(view: View) -> float:
    image, hr, valid = view.pair()
    return psnr(image, hr, view.protocol.peak, valid, view.protocol.epsilon, view.protocol.psnr_of_identical)


def _ssim(view: View) -> float:
    space = view.protocol.space if view.protocol.ssim_space == "same" else view.protocol.ssim_space
    image, hr, valid = view.pair(space)
    return ssim(image, hr, view.protocol.peak, valid)


def _mse(view: View) -> float:
    image, hr, valid = view.pair()
    return mse(image, hr, valid)


def _cpsnr(view: View) -> float:
    image, hr, valid = view.pair()
    return cpsnr(image, hr, view.protocol.peak, valid=valid)


def _ergas(view: View) -> float:
    image, hr, valid = view.pair("bands")
    view.leave_out("ergas", empty_bands(hr, valid))
    return ergas(image, hr, view.scale, valid)


def _ergas_diffbsr(view: View) -> float:
    image, hr, valid = view.pair("bands")
    return ergas_diffbsr(image, hr, view.scale, valid)


def _mpsnr(view: View) -> float:
    image, hr, valid = view.pair("bands")
    view.leave_out("mpsnr", flat_bands(hr, valid))
    return mpsnr(image, hr, view.protocol.peak, valid)


def _bands(score: Callable[[Tensor, Tensor, float, Tensor | None], float]) -> Callable[[Context], ImageScore]:
    """Return what prepares a spectral metric: of all bands, whatever the protocol's space."""

    def of_view(view: View) -> float:
        image, hr, valid = view.pair("bands")
        return score(image, hr, view.protocol.peak, valid)

    return _ready(of_view)


def _peakless(score: Callable[..., float]) -> Callable[[Context], ImageScore]:
    """Return what prepares a spectral metric that no peak enters: score(sr, hr, valid=valid)."""
    return _bands(lambda sr, hr, peak, valid: score(sr, hr, valid=valid))


def _perceptual_pair(view: View) -> tuple[Tensor, Tensor]:
    border = not view.protocol.crop_for_perceptual
    return view.rgb(view.image, border)[None], view.rgb(view.reference(), border)[None]


def _lpips(trunk: Trunk, scaled: bool = True) -> Callable[[Context], ImageScore]:
    def build(context: Context) -> ImageScore:
        path = context.files[f"lpips_{trunk}" if scaled else f"lpips_{trunk}_01"]
        network = context.once(f"lpips {trunk}", lambda: Lpips(trunk, read_trunk(path)).to(context.device))
        return lambda view: float(network(*_perceptual_pair(view), scaled=scaled))

    return build


def _dists(context: Context) -> ImageScore:
    network = Dists(read_trunk(context.files["dists"])).to(context.device)
    return lambda view: float(network(*_perceptual_pair(view)))


def _luma(view: View, space: Space) -> Tensor:
    """The (H, W) rounded luma of the 8-bit image, on the CPU, where the small matrices of NIQE are faster."""
    return luma(rgb_planes(quantise(view.image), view.rgb_bands), space)[0].round().cpu()


def _niqe(name: str, space: Space) -> Callable[[Context], ImageScore]:
    def build(context: Context) -> ImageScore:
        model = niqe.read_model(context.files[name])
        blocks = context.options.niqe_min_blocks

        def score(view: View) -> float:
            value = niqe.niqe(_luma(view, space), model, blocks, _mask(view))
            if math.isnan(value):
                raise UserError(f"NIQE needs {blocks} whole blocks of {model.block} px that are valid and not flat; choose niqe_pooled.")
            return value

        return score

    return build


def _niqe_pooled(context: Context) -> SetScore:
    model = niqe.read_model(context.files["niqe_pooled"])

    def features(view: View) -> Tensor:
        plane = _luma(view, "y_studio")
        if min(plane.shape) < model.block:
            return torch.empty(0, 36)
        return niqe.block_features(plane, model.block, _mask(view))[0]

    return SetScore(features, lambda image, reference: niqe.score(image.double(), model, context.options.niqe_min_blocks))


def _mask(view: View) -> Tensor | None:
    return None if view.valid_pixels is None else view.valid_pixels[0].cpu()


def _inception(distance: Callable[[Tensor, Tensor], float], name: str, tiled: bool = False) -> Callable[[Context], SetScore]:
    def build(context: Context) -> SetScore:
        from rsdiff.metrics.inception_network import FidInception

        path = context.files[name]
        network = context.once("inception", lambda: FidInception(read_trunk(path)).to(context.device))
        preset = context.options.fid_preset

        def of_image(view: View) -> Tensor:
            picture = view.rgb(view.image)[None] * 255
            tiles = _tiles(picture) if tiled else picture
            return network(inception.prepare(tiles, preset))[2048].cpu() if len(tiles) else torch.empty(0, 2048)

        def features(view: View) -> Tensor:
            # FID and KID see the same features.
            return view.once(f"inception {tiled}", lambda: of_image(view))

        def value(image: Tensor, reference: Tensor | None) -> float:
            assert reference is not None
            return distance(image, reference)

        return SetScore(features, value)

    return build


def _tiles(image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (n, 3, 256, 256), from the top left without overlap; what is left over at the bottom and right is not seen."""
    tiles = image[0].unfold(1, _TILE, _TILE).unfold(2, _TILE, _TILE).permute(1, 2, 0, 3, 4)
    return tiles.reshape(-1, 3, _TILE, _TILE)


def _opensr(score: Callable[[opensr.Prepared, opensr.OpensrConfig, View], float]) -> Callable[[Context], ImageScore]:
    def build(context: Context) -> ImageScore:
        options = context.options.opensr

        def of_view(view: View) -> float:
            assert view.lr is not None
            if view.valid is not None and not bool(view.valid.all()):
                return math.nan
            lr, image, hr = view.lr, view.image, view.hr
            return score(view.once("opensr", lambda: opensr.prepare(lr, image, hr, options)), options, view)

        return of_view

    return build


def _correctness(name: str) -> Callable[[opensr.Prepared, opensr.OpensrConfig, View], float]:
    return lambda images, options, view: view.once("opensr correctness", lambda: opensr.correctness(images, options)).values[name]


_FIDELITY = (
    Metric("psnr", "PSNR", "peak signal-to-noise ratio", "dB", build=_ready(_psnr)),
    Metric("ssim", "SSIM", "structural similarity, 11x11 Gaussian, windows inside the image", low=-1, high=1, build=_ready(_ssim)),
    Metric("mse", "MSE", "mean squared error in units of the peak squared", direction="lower", build=_ready(_mse)),
    Metric("cpsnr", "cPSNR", "PSNR after the best shift and brightness offset", "dB", build=_ready(_cpsnr)),
    Metric("ergas", "ERGAS", "relative global error, per band, by the mean of the reference", direction="lower", build=_ready(_ergas)),
    Metric(
        "ergas_diffbsr",
        "ERGAS (DiffBSR)",
        "ERGAS as DiffBSR computes it: global mean of the restored image and a further 1/3",
        direction="lower",
        build=_ready(_ergas_diffbsr),
    ),
)

_SPECTRAL = (
    Metric("mpsnr", "MPSNR", "mean of the PSNRs of the bands", "dB", build=_ready(_mpsnr)),
    Metric("mssim", "MSSIM", "mean of the bands' structural similarities, 11x11 Gaussian", low=-1, high=1, build=_bands(mssim)),
    Metric(
        "sam",
        "SAM",
        "mean angle between spectra; pixels that are zero in either image are left out",
        "degrees",
        "lower",
        0,
        180,
        build=_peakless(sam),
    ),
    Metric("rmse", "RMSE", "root of the mean squared error, in units of the peak", "", "lower", build=_peakless(rmse)),
    Metric("mrae", "MRAE", "mean relative absolute error where the reference is positive", "", "lower", build=_peakless(mrae)),
    Metric("cc", "CC", "mean over bands of the correlation over pixels", low=-1, high=1, build=_peakless(cc)),
    Metric("uiqi", "UIQI", "quality index of 8x8 blocks, mean over bands", low=-1, high=1, build=_peakless(uiqi)),
)


def _octave(octave: int) -> Metric:
    high, low = ("1/2" if octave == 0 else f"1/{2 ** (octave + 1)}"), f"1/{2 ** (octave + 2)}"
    return Metric(
        f"energy_octave_{octave + 1}",
        f"Energy {low} to {high}",
        f"energy at {low} to {high} cycles per pixel relative to the HR image's; 1 is right, less is blurred, more is noise",
        direction="none",
        build=_ready(lambda view: energy_share(view, octave)),
    )


_OCTAVES = tuple(_octave(octave) for octave in range(OCTAVES))
_CONSISTENCY = (
    Metric(
        "lr_psnr",
        "LR-PSNR",
        "PSNR between the LR and the restored image degraded by the operator that made the LR",
        "dB",
        needs=_LR,
        build=_ready(lr_consistency.lr_psnr),
        on_hr=True,
    ),
    Metric(
        "lr_l1",
        "LR-L1",
        "mean absolute difference between the LR and the restored image degraded by the operator that made the LR, on [0, 1]",
        direction="lower",
        high=1,
        needs=_LR,
        build=_ready(lr_consistency.lr_l1),
        on_hr=True,
    ),
)


def _inception_metric(
    name: str,
    title: str,
    meaning: str,
    *,
    distance: Callable[[Tensor, Tensor], float],
    tiled: bool = False,
    enough: int = 0,
    low: float = 0.0,
) -> Metric:
    return Metric(
        name,
        title,
        meaning,
        direction="lower",
        low=low,
        needs=_RGB_PAIR,
        files=inception.WEIGHT_FILES,
        build_set=_inception(distance, name, tiled),
        enough=enough,
        on_hr=True,
    )


_PERCEPTUAL = (
    *(
        Metric(
            f"lpips_{trunk}",
            f"LPIPS ({trunk})",
            f"learned perceptual distance v0.1, {trunk} trunk",
            direction="lower",
            high=1,
            needs=_RGB_PAIR,
            files=(file,),
            build=_lpips(trunk),
        )
        for trunk, file in TRUNK_FILES.items()
    ),
    Metric(
        "lpips_alex_01",
        "LPIPS (alex, [0, 1])",
        "LPIPS of images left in [0, 1], which the network does not expect: 6 to 12 times smaller (DiffBSR's tables)",
        direction="lower",
        high=1,
        needs=_RGB_PAIR,
        files=(TRUNK_FILES["alex"],),
        build=_lpips("alex", scaled=False),
    ),
    Metric(
        "dists",
        "DISTS",
        "structure and texture distance of VGG16 features",
        direction="lower",
        high=1,
        needs=_RGB_PAIR,
        files=(TRUNK_FILE,),
        build=_dists,
    ),
    # As many as the features have dimensions: covariances of fewer are singular.
    _inception_metric(
        "fid", "FID", "Frechet distance of Inception features; biased upward for few images", distance=frechet_distance, enough=2048
    ),
    _inception_metric(
        "fid_p256", "FID (256 px tiles)", "Frechet distance of Inception features of 256x256 tiles", distance=frechet_distance, tiled=True
    ),
    # As many as the subsets of the published estimator have.
    _inception_metric(
        "kid", "KID", "kernel distance of Inception features, unbiased", distance=kernel_distance, enough=1000, low=-math.inf
    ),
)


def _seams(context: Context) -> ImageScore:
    interval = context.options.seam_interval

    def score(view: View) -> float:
        image = view.image.double() if view.valid is None else torch.where(view.valid, view.image.double(), math.nan)
        return seam_score(image.cpu().numpy(), interval, max(1, round(view.scale)))

    return score


_OFFICIAL_NIQE = ("niqe_pris_params.npz", "niqe_modelparameters.mat")


def _gray_metric(
    name: str, title: str, meaning: str, unit: str, score: Callable[[Tensor, Tensor | None], float], high: float = math.inf
) -> Metric:
    build = _ready(lambda view: score(view.gray(), view.valid_pixels))
    return Metric(name, title, meaning, unit, direction="none", high=high, needs=_NONE, build=build, on_hr=True)


def _niqe_metric(name: str, title: str, meaning: str, space: Space = "y_studio", files: tuple[str, ...] = _OFFICIAL_NIQE) -> Metric:
    build = _niqe(name, space)
    return Metric(name, title, meaning, direction="lower", needs=_RGB, files=files, build=build, on_hr=True)


_NO_REFERENCE = (
    _gray_metric("ag", "AG", "average gradient of the gray image; noise raises it", "grey levels/px", average_gradient),
    _gray_metric("entropy", "Entropy", "entropy of the gray image", "bit", entropy, high=math.log2(256)),
    Metric(
        "seams",
        "Seams",
        "steps across the borders of tiles, as a multiple of steps elsewhere: 1 where tiles do not show",
        direction="lower",
        needs=_NONE,
        build=_seams,
        on_hr=True,
    ),
    _niqe_metric("niqe", "NIQE", "distance from photographs in block statistics of the studio luma (BasicSR)"),
    _niqe_metric(
        "niqe_gray", "NIQE (full-range luma)", "NIQE of the full-range luma, as pyiqa and the first release compute it", space="y_full"
    ),
    _niqe_metric("niqe_rs", "NIQE (own model)", "NIQE of the studio luma against a model fitted on own HR images", files=("niqe_rs.npz",)),
    Metric(
        "niqe_pooled",
        "NIQE (pooled blocks)",
        "NIQE of the blocks of all images together, for images too small for one value each",
        direction="lower",
        needs=_RGB,
        files=_OFFICIAL_NIQE,
        build_set=_niqe_pooled,
    ),
)


def _opensr_metric(
    name: str,
    meaning: str,
    unit: str = "",
    *,
    score: Callable[[opensr.Prepared, opensr.OpensrConfig, View], float],
    direction: Literal["higher", "lower", "none"] = "lower",
) -> Metric:
    """Return a metric of opensr-test that needs no reference."""
    needs = frozenset({"lr"})
    return Metric(f"opensr_{name}", f"opensr {name}", meaning, unit, direction=direction, needs=needs, build=_opensr(score))


_OPENSR = (
    _opensr_metric(
        "reflectance",
        "mean distance between the LR and the restored image on its grid (bilinear)",
        score=lambda images, options, view: opensr.reflectance(images, options),
    ),
    _opensr_metric(
        "spectral",
        "mean spectral angle between the LR and the restored image on its grid",
        "degrees",
        score=lambda images, options, view: opensr.spectral(images, options),
    ),
    _opensr_metric(
        "spatial",
        "shift between the LR and the restored image",
        "LR px",
        score=lambda images, options, view: opensr.spatial(images, view.rgb_bands),
    ),
    _opensr_metric(
        "synthesis",
        "mean distance between the enlarged LR and the restored image: added detail, true or not",
        direction="none",
        score=lambda images, options, view: opensr.synthesis(images, options),
    ),
    *(
        Metric(
            f"opensr_{name}",
            f"opensr {name}",
            meaning,
            direction="higher" if name == "improvement" else "lower",
            high=1,
            needs=frozenset({"hr", "lr"}),
            build=_opensr(_correctness(name)),
        )
        for name, meaning in (
            ("improvement", "share of the added detail that agrees with the reference"),
            ("omission", "share of the reference's detail that is missing"),
            ("hallucination", "share of the added detail that the reference does not have"),
        )
    ),
)

_GROUPS = (_FIDELITY, _SPECTRAL, _CONSISTENCY, _OCTAVES, _PERCEPTUAL, _NO_REFERENCE, _OPENSR, UNCERTAINTY)
METRICS: dict[str, Metric] = {metric.name: metric for group in _GROUPS for metric in group}
