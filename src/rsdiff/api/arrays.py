"""Degrading and scoring images that are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsdiff.api.commands import checked_options, typed
from rsdiff.app.command_line import compose_command, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of_group
from rsdiff.app.main import CONF
from rsdiff.config import UserError, config_from_mapping
from rsdiff.config.paths import typed_path
from rsdiff.config.reading import require_effect

if TYPE_CHECKING:
    from torch import Tensor

    from rsdiff.inference.pictures import Layout


def degrade(
    image: Any, degradation: str, scale: float = 4, seed: int = 0, *, layout: Layout = "HWC", peak: float | None = None, **options: Any
) -> tuple[Any, Any, Any]:
    """Return (lr, hr, decisions) of an image, of the kind that was given.

    degradation  an option of the group, such as 'iso' or 'bsrgan', or a kind, such as 'gaussian'
    options      of the degradation, instead of those in its file: rsdiff.degrade(image, 'iso', width=[1.0, 1.0])
    hr           the target that belongs to lr: cut to a multiple of the scale, or sharpened, where the degradation does so
    decisions    what was drawn
    peak         the value that stands for 1: 10000 for reflectances of 16 bits
    Types and ranges are those of `rsdiff.degradations.degrade_array`.

    >>> import numpy, rsdiff
    >>> lr, hr, _ = rsdiff.degrade(numpy.full((40, 48, 3), 100, numpy.uint8), "bicubic", scale=4)
    >>> lr.shape, hr.shape, lr.dtype, int(lr[5, 5, 0])
    ((10, 12, 3), (40, 48, 3), dtype('uint8'), 100)
    """
    import numpy as np

    from rsdiff.degradations import DEGRADATIONS, PairedConfig, named_cases
    from rsdiff.degradations.array import degraded, peak_of
    from rsdiff.inference.pictures import picture_of

    picture, options_of_run = picture_of(image, layout), checked_options(scale, seed)
    scale, seed = options_of_run.scale, options_of_run.seed
    with composing(CONF):
        given = [f"++degradation.{name}={typed(value)}" for name, value in options.items()]
        if degradation in DEGRADATIONS and degradation not in options_of_group("degradation"):
            config = config_from_mapping(DEGRADATIONS[degradation], options, degradation)
        else:
            composed = compose_command([f"degradation={degradation}", f"scale={scale:g}", *given])
            config = group_config(composed, "degradation")
        require_effect({"degradation": config}, [f"degradation.{name}" for name in options])
    if isinstance(config, PairedConfig):
        raise UserError("degradation=paired makes no LR; choose another one, such as 'bicubic'.")
    cases = named_cases(config.build())
    if len(cases) > 1:
        raise UserError(f"degradation={degradation} is a list of test sets; choose one of them: only=[{cases[0][0]!r}].")
    ((_, one),) = cases
    made = degraded(one, picture.values, picture.valid, scale, seed, peak_of(picture.values, peak, picture.valid))
    height, width = (np.array(made.lr.shape[1:]) * scale).round().astype(int)
    cut = replace(picture, values=picture.values[:, :height, :width])
    return cut.made(made.lr, made.lr_valid), cut.made(made.hr, made.hr_valid), made.decisions


def score(
    sr: Any, hr: Any, protocol: str = "standard", scale: float = 4, *, layout: Layout = "HWC", peak: float | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Return one row of metric values per image that was restored elsewhere, under a protocol of the group `metrics`.

    sr, hr    an image, or a list of images of the same kinds, each of the size of its HR image; or two folders (or files), as paths, as
              task=score takes them
    peak      of images, the value that stands for 1: 255 for uint8, 1 for floats, 65535 for uint16 that fill that range; 10000 for
              reflectances of 16 bits. Only 8-bit images are rounded to 256 levels
    protocol  an option of the group: 'basicsr_y', 'standard', ...
    scale     of the restoration: some protocols leave out as many border pixels
    options   of the metrics, instead of those in its file: metrics=['psnr']

    >>> import numpy, rsdiff
    >>> hr = numpy.full((64, 64, 3), 100, numpy.uint8)
    >>> rows = rsdiff.score(hr + numpy.uint8(10), hr, "standard", metrics=["psnr"])
    >>> round(rows[0]["psnr"], 2)
    28.13
    """
    import torch

    from rsdiff.data.sample import Batch, SampleMeta
    from rsdiff.metrics import Evaluator

    if isinstance(sr, str | Path):
        return _scored_folders(Path(sr), Path(hr), protocol, scale, options)
    images, references = ([*x] if isinstance(x, Sequence | Iterator) else [x] for x in (sr, hr))
    scale = checked_options(scale).scale
    if len(images) != len(references) or not images:
        raise UserError(f"{len(images)} restored images and {len(references)} references were given; give as many of both.")
    config = _metrics(protocol, options)
    rows: list[dict[str, Any]] = []
    evaluator = None
    for number, (image, reference) in enumerate(zip(images, references, strict=True)):
        target, known, largest = _unit_range(reference, layout, peak)
        restored, made, _ = _unit_range(image, layout, peak, like=reference, largest=largest)
        if restored.shape != target.shape:
            raise UserError(
                f"image {number} has the shape {tuple(restored.shape)} and its reference {tuple(target.shape)}; give equal sizes."
            )
        size = (target.shape[1], target.shape[2])
        if evaluator is None:
            config = replace(config, protocol=config.protocol.for_values((0.0,), (255.0 if largest == 1 else largest,)))
            evaluator = Evaluator(config, len(target), True, None, torch.device("cpu"))
        small = (round(size[0] / scale), round(size[1] / scale))
        valid = None if bool((known & made).all()) else (known & made).float()[None]
        batch = Batch([SampleMeta(f"{number:05d}", number)], size, small, hr=target[None], valid=valid, given_scale=float(scale))
        rows += [{name: value for name, value in row.items() if name != "seconds"} for row in evaluator.rows(batch, restored[None], 0.0)]
    return rows


def _scored_folders(sr: Path, hr: Path, protocol: str, scale: float, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    from rsdiff.data.file_options import FileOptions
    from rsdiff.metrics.scoring import Images, score_images

    images = Images(typed_path(sr), typed_path(hr), {}, FileOptions(), scale)
    return [dict(row) for row in score_images(sr.name, images, _metrics(protocol, options)).rows]


def _metrics(protocol: str, options: Mapping[str, Any]) -> Any:
    """Return the settings of an option of the group `metrics`, changed by `options`."""
    with composing(CONF):
        listed = {name: [value] if name == "metrics" and isinstance(value, str) else value for name, value in options.items()}
        given = [f"metrics.{name}={typed(value)}" for name, value in listed.items()]
        config = group_config(compose_command([f"metrics={protocol}", *given]), "metrics")
    require_effect({"metrics": config}, [f"metrics.{name}" for name in options])
    return config


def _unit_range(
    image: Any, layout: Layout, peak: float | None, like: Any = None, largest: float | None = None
) -> tuple[Tensor, Tensor, float]:
    """Return an image (C, H, W) with the value that stands for 1 divided out (0 where it is missing), what is valid, and that value.

    like, largest  an image of the same type and its value: what was restored is measured as its reference is, whatever it overshoots
    """
    import numpy as np
    import torch

    from rsdiff.degradations.array import peak_of
    from rsdiff.inference.pictures import picture_of

    picture = picture_of(image, layout)
    values, valid = picture.values, picture.valid
    if largest is None or picture_of(like, layout).values.dtype != values.dtype:
        largest = peak_of(values, peak, valid)
    known = np.where(valid, values, values.dtype.type(0))
    return torch.from_numpy(known.astype(np.float32) / np.float32(largest)), torch.from_numpy(valid), largest
