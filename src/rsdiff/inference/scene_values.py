"""How a scene's stored values become [0, 1], and what becomes of those outside; see rsdiff.data.value_range for the rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError
from rsdiff.data.normalisation import Normaliser, measured, type_range
from rsdiff.data.value_range import SPARSE, SPARSE_TYPE, RangeUse, Survey, interval
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_options import SceneOptions

STRIP_VALUES = 4_000_000
"""Values that are looked at together."""
UNIT = Normaliser((0.0,), (1.0,))
REFLECTANCE_GAIN = 1e-4
"""Reflectance per count of Sentinel-2 and of most products stored as integers."""


@dataclass(frozen=True)
class SceneValues:
    """The range of a scene and how it is used.

    is_exact  whether the method gives the same whatever the range is (no training), so that nothing lies outside of what it works on
    """

    normaliser: Normaliser
    use: RangeUse
    is_exact: bool = False

    @property
    def shown(self) -> Normaliser:
        """The range to look at the scene in: where the method does not care, that of its values."""
        if not self.is_exact or self.use.low >= self.use.high or self.normaliser.high == (255.0,):
            return self.normaliser
        return Normaliser((self.use.low,), (self.use.high,))


def scene_values(reader: SceneReader, options: SceneOptions, trained: Normaliser | None, bands: int) -> SceneValues:
    """Return the range in which a scene is restored, after one pass over all its values.

    trained  the normaliser of the checkpoint's data; None for methods without training, which work in any range
    bands    bands of the target; the result must serve both input and target
    Raises UserError where the range clearly is not the scene's, with the options that fit it.
    """
    ranges = _candidates(reader, options, trained)
    survey = Survey(ranges)
    for strip in strips(reader):
        survey.add(*strip)
    if survey.low is None or survey.high is None:
        return SceneValues(UNIT, RangeUse())  # nothing to measure and nothing to restore
    low, high = float(np.nanmin(survey.low)), float(np.nanmax(survey.high))
    if trained is None:
        own = own_range(reader.dtype, survey.low, survey.high)
        return SceneValues(own, RangeUse(survey.use("chosen").values if "chosen" in ranges else 0, 0, low, high), is_exact=True)
    if "chosen" not in ranges:  # the range of a type that has none that is useful: what is there
        return SceneValues(Normaliser((low,), (high if high > low else low + 1.0,)), RangeUse(0, 0, low, high))
    chosen, use = ranges["chosen"], survey.use("chosen")
    _require_bands(chosen, reader, bands)
    least = {"trained": SPARSE, "dtype": _least_of_type(reader)}.get(options.scaling, 0.0)
    if use.is_too_much or use.is_sparse(chosen, least):
        raise UserError(_refusal(reader, options, chosen, use, survey, ranges))
    return SceneValues(chosen, use)


def strips(reader: SceneReader) -> Iterator[tuple[NDArray[np.generic], NDArray[np.bool_] | None]]:
    """Yield (values, valid) of the whole scene in strips of rows."""
    rows = max(1, min(reader.height, STRIP_VALUES // max(1, reader.width * len(reader.bands))))
    for top in range(0, reader.height, rows):
        values, valid = reader.read(top, 0, min(rows, reader.height - top), reader.width)
        yield values, None if valid.all() else valid


def own_range(dtype: np.dtype[np.generic], lows: NDArray[np.float64], highs: NDArray[np.float64]) -> Normaliser:
    """Return a range for methods that only interpolate: that of small unsigned types, else one that also holds what cubics overshoot.

    lows, highs  extreme values per band, NaN for a band without any. Every band has its own range: float32 would not hold reflectances
                 in the range of heights
    """
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return type_range(dtype)
    low, high = np.nan_to_num(lows), np.nan_to_num(highs)
    # A constant band needs a span that its value can be told from in float64.
    span = np.where(high > low, high - low, np.maximum(1.0, np.abs(low)))
    return Normaliser(tuple((low - span).tolist()), tuple((high + span).tolist()))


def _candidates(reader: SceneReader, options: SceneOptions, trained: Normaliser | None) -> dict[str, Normaliser]:
    """Return the chosen range as 'chosen', unless it must be measured first, and those of other scalings, by what to type."""
    others = {"task.scaling=none": UNIT}
    if reader.dtype.kind == "u":
        others["task.scaling=dtype"] = type_range(reader.dtype)
    file = file_range(reader)
    if file is not None:
        others["task.scaling=file"] = file
    others[f"task.scaling=gain task.gain={REFLECTANCE_GAIN:g}"] = Normaliser((0.0,), (1 / REFLECTANCE_GAIN,))
    match options.scaling:
        case "none":
            chosen: Normaliser | None = UNIT
        case "dtype":
            chosen = None if reader.dtype.kind == "i" else type_range(reader.dtype)
        case "percentile":
            chosen = _percentiles(reader, options.percentiles)
        case "gain":
            chosen = Normaliser((0.0 - options.offset / options.gain,), ((1 - options.offset) / options.gain,))
        case "file":
            if file is None:
                raise UserError(
                    f"{reader.path} has no scale and offset of its own, which task.scaling=file uses; set task.scaling=gain and task.gain."
                )
            chosen = file
        case "trained":
            chosen = trained
    if chosen is None or (trained is None and len(chosen.low) not in (1, len(reader.bands))):
        return others
    return {"chosen": chosen, **others}


def file_range(reader: SceneReader) -> Normaliser | None:
    """Return the range that the scale and offset of the bands in the file's own metadata map to [0, 1], or None where it has none."""
    pairs = reader.scales_and_offsets
    if all(pair == (1.0, 0.0) for pair in pairs) or any(scale <= 0 for scale, _ in pairs):
        return None
    low = tuple(0.0 - offset / scale for scale, offset in pairs)
    high = tuple((1 - offset) / scale for scale, offset in pairs)
    return Normaliser(low[:1], high[:1]) if len(set(pairs)) == 1 else Normaliser(low, high)


def _percentiles(reader: SceneReader, percentiles: tuple[float, float]) -> Normaliser:
    parts = [np.where(valid, values.astype(np.float64), np.nan) for values, valid in reader.samples()]
    if not any(np.isfinite(part).any() for part in parts):
        return UNIT
    return measured(parts, percentiles, clip=True)


def _require_bands(chosen: Normaliser, reader: SceneReader, bands: int) -> None:
    if len(chosen.low) not in (1, len(reader.bands)) or len(chosen.low) not in (1, bands):
        raise UserError(
            f"the value range has {len(chosen.low)} bands, the input {len(reader.bands)} and the target {bands}; choose task.scaling=dtype "
            f"or gain, which are common to all bands."
        )


def _refusal(
    reader: SceneReader, options: SceneOptions, chosen: Normaliser, use: RangeUse, survey: Survey, ranges: dict[str, Normaliser]
) -> str:
    """Return the sentence that refuses a range, with the scalings into which the scene fits."""
    least = {"task.scaling=dtype": _least_of_type(reader)}
    others = {name: other for name, other in ranges.items() if name != "chosen"}
    fitting = [name for name, other in others.items() if _fits(survey.use(name), other, least.get(name, SPARSE))]
    advice = " or ".join([*fitting[:2], "task.scaling=percentile"])
    what = "the model was trained on" if options.scaling == "trained" else f"task.scaling={options.scaling} takes"
    wrong = f"{100 * use.share:.0f} % of them outside" if use.is_too_much else "which fill next to nothing of it"
    return f"{reader.path} holds values from {use.low:g} to {use.high:g} and {what} {interval(chosen)}, {wrong}; set {advice}."


def _fits(use: RangeUse, normaliser: Normaliser, least: float) -> bool:
    return not use.is_too_much and not use.is_sparse(normaliser, least)


def _least_of_type(reader: SceneReader) -> float:
    """Return the share of its type's range that a scene must fill: 12 bits stored as 16 are nearly black there, where models err."""
    return SPARSE_TYPE if reader.dtype.itemsize > 1 else 0.0
