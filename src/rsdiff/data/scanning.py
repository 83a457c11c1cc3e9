"""Which image files can be used together: headers, sizes and partners first, and every pixel where damaged files shall be left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from rasterio.crs import CRS

from rsdiff.data.file_records import FileRecords, PixelFacts
from rsdiff.data.opening import without_warnings
from rsdiff.data.rasters import RasterInfo, open_file, raster_info
from rsdiff.data.sample import Georeference
from rsdiff.data.source import DataError, Window

THREADS = 8  # files on network drives wait more than they compute
_BLOCK_BYTES = 64_000_000
"""Most bytes of a file that are decoded at once to look at every pixel."""
_HALF_LR_PIXEL = 0.5


class ScanOptions(Protocol):
    """The options of a data set that say which files fit."""

    @property
    def convert(self) -> Literal["no", "rgb"]: ...
    @property
    def variable(self) -> str: ...
    @property
    def odd(self) -> Literal["refuse", "skip"]: ...


@dataclass(frozen=True)
class Item:
    """The files of one sample: role -> path, its name within the data set and its labels.

    window   the part of its only file that the sample is; None means the whole of every file
    problem  why it cannot be used, known before any file is opened (a partner is missing); it counts as an odd file
    """

    name: str
    paths: Mapping[str, Path]
    labels: tuple[tuple[str, str], ...] = ()
    window: Window | None = None
    problem: str = ""


@dataclass(frozen=True)
class Scanned:
    """A sample whose files fit: their headers by role, and the size (H, W) of its target."""

    item: Item
    infos: Mapping[str, RasterInfo]
    size: tuple[int, int]


Headers = tuple[Item, dict[str, RasterInfo]]
Odd = list[tuple[str, str]]
"""(name, reason) of samples that cannot be used with most of the others."""
Progress = Callable[[int, int], None]
"""Called with the files looked at and the files in all."""


def scan(
    items: Sequence[Item], options: ScanOptions, scale: float, records: FileRecords, progress: Progress | None = None
) -> tuple[list[Scanned], Odd]:
    """Return the samples that fit, and the others.

    records   of all files of the items
    progress  for the decoding of every file, which only `odd=skip` does (once, as long as the files stay as they are)
    Raises DataError for the first sample that does not fit, unless `odd=skip`.
    """
    found = _headers(items, options, records)
    kept: list[Headers] = [(item, infos) for item, infos in found if isinstance(infos, dict)]
    odd: Odd = [(item.name, str(error)) for item, error in found if isinstance(error, DataError)]
    for role in max((item.paths for item in items), key=len):
        kept, differing = _uniform(kept, role, options.convert == "rgb")
        odd += differing
    fitting: list[Scanned] = []
    for item, infos in kept:
        try:
            fitting.append(Scanned(item, infos, target_size(item, infos, scale)))
        except DataError as error:
            odd.append((item.name, str(error)))
    if odd and options.odd == "refuse":
        raise DataError(f"{odd[0][1].rstrip('.')}, or leave such files ({len(odd)} of {len(items)}) out with dataset.odd=skip.")
    if options.odd == "skip":
        damaged = damaged_files(fitting, options, records, progress)
        odd += damaged.items()
        fitting = [scanned for scanned in fitting if scanned.item.name not in damaged]
    if not fitting:
        raise DataError(f"none of the {len(items)} images can be used (first: {odd[0][1].rstrip('.')}); check the folder.")
    return fitting, odd


def _headers(items: Sequence[Item], options: ScanOptions, records: FileRecords) -> list[tuple[Item, dict[str, RasterInfo] | DataError]]:
    def headers(item: Item) -> dict[str, RasterInfo] | DataError:
        if item.problem:
            return DataError(item.problem)
        try:
            return {role: records.header(path, role == "change_mask", options.variable, raster_info) for role, path in item.paths.items()}
        except DataError as error:
            return error

    new = [item for item in items if not all(records.knows(path, r == "change_mask", options.variable) for r, path in item.paths.items())]
    read: dict[int, dict[str, RasterInfo] | DataError] = {}
    if new:
        with without_warnings(), ThreadPoolExecutor(THREADS) as pool:
            read = dict(zip(map(id, new), pool.map(headers, new), strict=True))
        records.save()
    return [(item, read[id(item)] if id(item) in read else headers(item)) for item in items]


def damaged_files(samples: Sequence[Scanned], options: ScanOptions, records: FileRecords, progress: Progress | None) -> dict[str, str]:
    """Return name -> reason of the samples with a file that cannot be decoded."""
    found: dict[str, str] = {}
    for name, facts in facts_of(samples, options, records, progress):
        problem = next((fact.problem for fact in facts.values() if fact.problem), "")
        if problem:
            found[name] = problem
    return found


def facts_of(
    samples: Sequence[Scanned], options: ScanOptions, records: FileRecords, progress: Progress | None
) -> Iterable[tuple[str, dict[str, PixelFacts]]]:
    """Yield (name, facts by role) of samples; every file is decoded once, as long as it stays as it is."""

    def facts(sample: Scanned) -> dict[str, PixelFacts]:
        return {role: records.facts(path, role == "change_mask", options.variable, pixel_facts) for role, path in sample.item.paths.items()}

    with without_warnings(), ThreadPoolExecutor(THREADS) as pool:
        for done, (sample, found) in enumerate(zip(samples, pool.map(facts, samples), strict=True), 1):
            if progress is not None:
                progress(done, len(samples))
            yield sample.item.name, found
    records.save()


def pixel_facts(path: Path, as_codes: bool, variable: str) -> PixelFacts:
    """Return what is known of a file once every pixel was decoded; never raises DataError."""
    low, high, total, count, pixels = math.inf, -math.inf, 0.0, 0, 0
    try:
        with open_file(path, as_codes, variable) as file:
            info = file.info
            rows = max(1, _BLOCK_BYTES // max(1, info.bands * info.width * info.dtype.itemsize)) if info.has_windows else info.height
            for top in range(0, info.height, rows):
                whole = rows >= info.height
                raster = file.read(None if whole else Window(top, 0, min(rows, info.height - top), info.width))
                values = raster.values if raster.valid is None else raster.values[raster.valid]
                pixels += raster.values.size
                if values.size:
                    low, high = min(low, float(values.min())), max(high, float(values.max()))
                    total, count = total + float(values.sum(dtype=np.float64)), count + values.size
    except DataError as error:
        return PixelFacts(0.0, 0.0, 0.0, 0.0, str(error))
    return PixelFacts(low, high, total / count, count / pixels, "") if count else PixelFacts(0.0, 0.0, 0.0, 0.0, "")


def _uniform(kept: list[Headers], role: str, as_rgb: bool) -> tuple[list[Headers], list[tuple[str, str]]]:
    """Split samples into those whose file of `role` has the band count and type that most have, and (name, reason) of the others."""
    is_mask = role == "change_mask"

    keys: dict[int, tuple[int, str]] = {}  # by identity: files with equal headers share one

    def key(info: RasterInfo) -> tuple[int, str]:
        if id(info) not in keys:
            keys[id(info)] = (0 if as_rgb and not is_mask else info.bands, info.dtype.name)
        return keys[id(info)]

    counts = Counter(key(infos[role]) for _, infos in kept)
    usual = (1, "uint8") if is_mask and counts[(1, "uint8")] else counts.most_common(1)[0][0] if counts else (0, "")
    fitting, odd = [], []
    for item, infos in kept:
        info, path = infos[role], item.paths[role]
        if is_mask and info.bands > 1:
            odd.append((item.name, f"{path} has {info.bands} bands; a change mask has one band of codes: give the grey version."))
        elif key(info)[1] != usual[1]:
            odd.append((item.name, f"{path} holds {info.dtype.name} values and most others {usual[1]}; convert it."))
        elif key(info) != usual:
            bands = f"{info.bands} band" + "s" * (info.bands > 1)
            odd.append((item.name, f"{path} has {bands} and most others {usual[0]}; use dataset.convert=rgb to make all of them RGB."))
        else:
            fitting.append((item, infos))
    return fitting, odd


def target_size(item: Item, infos: Mapping[str, RasterInfo], scale: float) -> tuple[int, int]:
    """Return (H, W) of a sample; HR of a pair is cut bottom and right to its LR times the scale.

    Raises DataError when files of one sample do not cover the same ground.
    """
    if item.window is not None:
        return item.window.height, item.window.width
    sizes = {role: (info.height, info.width) for role, info in infos.items()}
    if "hr" not in sizes:
        return round(sizes["lr"][0] * scale), round(sizes["lr"][1] * scale)
    H, W = sizes["hr"]
    for role in ("ref", "change_mask"):
        if role in sizes and sizes[role] != (H, W):
            raise DataError(
                f"{item.paths[role]} is {sizes[role][0]}x{sizes[role][1]} pixels and its HR image {item.paths['hr'].name} {H}x{W}; "
                f"they must be co-registered and of one size."
            )
    if "lr" not in sizes:
        return H, W
    h, w = sizes["lr"]
    if scale != int(scale):
        raise DataError(f"scale={scale} does not suit a dataset with LR images of its own; give an integer scale.")
    if not (0 <= H - h * scale < scale and 0 <= W - w * scale < scale):
        own = f"; these are x{H / h:g} pairs: set scale={H / h:g}" if H % h == 0 and W % w == 0 and H // h == W // w else ""
        raise DataError(f"{item.paths['lr']} is {h}x{w} pixels, which times scale={scale:g} is not its HR size {H}x{W}{own}.")
    return round(h * scale), round(w * scale)


def misplaced(infos: Mapping[str, RasterInfo]) -> str:
    """Return which files of a sample lie elsewhere by more than half an LR pixel, as their georeferences say, or an empty text."""
    places = {role: info for role, info in infos.items() if info.georeference is not None}
    if len(places) < 2:
        return ""
    main = "hr" if "hr" in places else next(iter(places))
    coarse = infos.get("lr", infos[main])
    for role, info in places.items():
        first, other = places[main].georeference, info.georeference
        assert first is not None
        assert other is not None
        if first.crs != other.crs and CRS.from_string(first.crs) != CRS.from_string(other.crs):
            return f"{role} has the coordinate system {other.crs[:60]} and {main} {first.crs[:60]}"
        widest = max(_pixel_size(place.georeference) for place in places.values() if place.georeference is not None)
        ratio = infos[main].width / coarse.width if coarse is not infos[main] else 1.0
        limit = _HALF_LR_PIXEL * max(widest, _pixel_size(first) * ratio)
        offset = max(
            math.dist(_ground(first, places[main], corner), _ground(other, info, corner)) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))
        )
        if offset > limit * 1.001:
            return f"the corners of {role} and {main} lie {offset / (2 * limit):.1f} LR pixels apart"
    return ""


def _ground(place: Georeference, info: RasterInfo, corner: tuple[int, int]) -> tuple[float, float]:
    a, b, c, d, e, f = place.transform
    column, row = corner[0] * info.width, corner[1] * info.height
    return a * column + b * row + c, d * column + e * row + f


def _pixel_size(place: Georeference) -> float:
    a, b, _, d, e, _ = place.transform
    return max(math.hypot(a, d), math.hypot(b, e))
