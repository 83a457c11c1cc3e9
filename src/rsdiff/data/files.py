"""Samples made of image files: one file per role (hr, lr, ref, change_mask), headers checked before anything is read."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError
from rsdiff.data.data_range import LOOKED_AT, MEASURED_IMAGES, require_fitting, surveyed
from rsdiff.data.digests import digest_of
from rsdiff.data.file_options import FileOptions
from rsdiff.data.file_records import FileRecords, State, content_digest, own_state
from rsdiff.data.meanings import disagreements
from rsdiff.data.normalisation import Normaliser, NormaliserConfig
from rsdiff.data.open_files import open_files
from rsdiff.data.opening import without_warnings
from rsdiff.data.rasters import Decoded, Raster, RasterInfo, open_file
from rsdiff.data.sample import VALIDITY, Sample, SampleMeta
from rsdiff.data.scanning import Item, misplaced, scan
from rsdiff.data.source import DataError, RawSample, Window, meta_of_window, sample_from

IMAGE_ROLES = ("hr", "lr", "ref")
_COMPARED, _LARGEST_RATIO = 8, 2.0
"""Samples whose files are compared, and the ratio of their mean values from which on they are said to disagree."""


class FileSource:
    """An ImageSource over `items`, which all have the same roles.

    measured_on  items whose pixels decide a percentile normaliser: those of the training split
    Raises DataError for unreadable headers, mixed bands or types, and sizes that do not belong together.
    """

    def __init__(self, items: Sequence[Item], options: FileOptions, scale: float, measured_on: Sequence[Item]) -> None:
        self._options = options
        self._scale = scale
        self._records = FileRecords([path for item in items for path in item.paths.values()])
        self._scanned, self.left_out = scan(items, options, scale, self._records)
        self._items, self._infos = [found.item for found in self._scanned], [found.infos for found in self._scanned]
        self._sizes = [found.size for found in self._scanned]
        self._states: dict[Path, State] = {path: self._records.states[path] for item in self._items for path in item.paths.values()}
        self._digests: dict[Path, str] = {}
        self._outside: list[str] = []
        self._memo: Decoded | None = None
        weakref.finalize(self, open_files().close, self._states.keys())  # what is deleted next shall not be open
        first = self._infos[0]
        roles = set(first)
        marked = {VALIDITY[role] for role in roles & set(IMAGE_ROLES) if any(self._marks_missing(infos[role]) for infos in self._infos)}
        self.gives = frozenset(roles | marked)
        main, low = first.get("hr", first.get("lr")), first.get("lr", first.get("hr"))
        assert main is not None
        assert low is not None
        self.bands, self.lr_bands = self._bands_after(main), self._bands_after(low)
        self.wavelengths = options.wavelengths or self._chosen(main.wavelengths)
        if self.wavelengths and len(self.wavelengths) != self.bands:
            raise DataError(f"dataset.wavelengths has {len(self.wavelengths)} values for images of {self.bands} bands; give one per band.")
        self.normaliser = self._build_normaliser("hr" if "hr" in roles else "lr", main, measured_on)
        same = self.bands == self.lr_bands and main.dtype == low.dtype
        self.lr_normaliser = self.normaliser if same else self._build_normaliser("lr", low, measured_on)

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._items[index].name

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._sizes[index]

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        item, infos = self._items[index], self._infos[index]
        place = infos["hr" if "hr" in infos else "lr"].georeference
        whole = SampleMeta(item.name, index, labels=item.labels, wavelengths=self.wavelengths, georeference=place)
        return meta_of_window(whole, item.window)

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        item, infos = self._items[index], self._infos[index]
        whole = Window(0, 0, *self._sizes[index])
        wanted = window or whole
        if not wanted.within(self._sizes[index]):
            raise UserError(f"{wanted} does not lie inside {item.name} of {whole.height}x{whole.width} pixels.")
        arrays: dict[str, NDArray[Any]] = {}
        for role, path in item.paths.items():
            with without_warnings():
                raster = self._read(path, infos[role], wanted.divided(self._scale) if role == "lr" else in_file(item, wanted), role)
            arrays[role] = raster.values
            if VALIDITY.get(role) in self.gives:
                valid = raster.valid if raster.valid is not None else np.ones(raster.values.shape, np.bool_)
                arrays[VALIDITY[role]] = valid.astype(np.uint8)
            if self._options.value_rule.rule == "type" and arrays[role].dtype.kind == "f" and role in IMAGE_ROLES:
                require_unit_range(raster.values, raster.valid, path)
        return RawSample(meta_of_window(self.meta(index), wanted if "hr" in infos else None), arrays)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """Return a digest of names and contents: neither the place of the files nor their times matter."""
        self._know_contents()
        parts = []
        for item in self._items:
            part = f"\0{item.window}" if item.window is not None else ""
            parts += [f"{item.name}\0{role}\0{self._digests[path]}{part}" for role, path in sorted(item.paths.items())]
        return digest_of(parts)

    def contents(self) -> Sequence[str]:
        """See ImageSource."""
        self._know_contents()
        main = "hr" if "hr" in self._infos[0] else "lr"
        found = [(self._digests[item.paths[main]], item.window) for item in self._items]
        return [digest if window is None else digest_of([digest, str(window)]) for digest, window in found]

    def files_by_name(self) -> dict[str, str]:
        """Return the name of every sample -> a digest of all its files, by which a run says what changed."""
        self._know_contents()
        return {item.name: digest_of(f"{role}\0{self._digests[path]}" for role, path in sorted(item.paths.items())) for item in self._items}

    def remarks(self) -> Sequence[str]:
        """See ImageSource: values outside their range, files of one sample whose georeferences or brightness disagree."""
        said = list(self._outside)
        apart = [(found.item.name, why) for found in self._scanned if (why := misplaced(found.infos))]
        if apart:
            said.append(
                f"{len(apart)} of {len(self)} samples have files that do not lie on the same ground, e.g. {apart[0][0]}: {apart[0][1]}; "
                "cut them to the same ground"
            )
        said += disagreements([(found.item.name, found.infos) for found in self._scanned])
        said += self._opaque()
        for role in ("lr", "ref"):
            ratio = self._brightness(role) if role in self.gives and "hr" in self.gives and self.bands == self.lr_bands else 1.0
            if not 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO:
                said.append(
                    f"{role} images are {ratio:.2g} times as bright as hr images once they are scaled to 0 to 1, as if they were stored in "
                    "another unit; convert one of them, or set dataset.normaliser to the range of both"
                )
        return said

    def _opaque(self) -> list[str]:
        """Return a sentence where an alpha band is among the bands that nobody chose: GDAL also calls the fourth of four bytes so."""
        alphas = {role: info.alpha for role, info in self._infos[0].items() if role in IMAGE_ROLES and info.alpha is not None}
        if not alphas or self._options.take_bands or self._options.convert == "rgb":
            return []
        role, alpha = next(iter(alphas.items()))
        others = [band for band in range(1, self._infos[0][role].bands + 1) if band != alpha]
        typed = ",".join(map(str, others))
        return [
            f"band {alpha} of {role} is opacity (alpha) as its file says, and is restored and scored like the others; leave it out with "
            f"dataset.take_bands=[{typed}], or, if it is something else, name it there, too"
        ]

    def _brightness(self, role: str) -> float:
        """Return the ratio of the means of a role and of hr, scaled to [0, 1], over a few samples spread over the source."""
        rules = {"hr": self.normaliser, role: self.lr_normaliser if role == "lr" else self.normaliser}
        sums = dict.fromkeys(rules, 0.0)
        for index in np.unique(np.linspace(0, len(self) - 1, _COMPARED).round().astype(int)):
            for each, rule in rules.items():
                path, info = self._items[index].paths[each], self._infos[index][each]
                with without_warnings(), open_file(path, variable=self._options.variable) as file:
                    thinned = min(64, info.height), min(64, info.width)
                    raster = file.read(None, self._chosen_bands(info, path, each), thinned)
                values = rule.normalise(raster.values)
                sums[each] += float(values.mean() if raster.valid is None else values[raster.valid].sum() / max(1, raster.valid.sum()))
        return sums[role] / sums["hr"] if min(sums.values()) > 0 else 1.0

    def _know_contents(self) -> None:
        if not self._digests:
            self._digests = self._records.digests(self._states)
            self._records.save()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memo": None, "_records": None}

    def _require_unchanged(self, path: Path) -> tuple[int, int, int, int]:
        """Return the state of a file; raises DataError where it is not the one whose header was read.

        Results would depend on when it was replaced.
        """
        state = own_state(path)
        if state == self._states[path][:4]:
            return state
        if path in self._digests and content_digest(path) == self._digests[path]:
            self._states[path] = (*state, self._states[path][4])  # copied anew or touched: the same pixels
            return state
        raise DataError(
            f"{path} changed since this run began; give the same command again, which begins a run of the images as they are, or put the "
            "former file back to continue this one."
        )

    def _read(self, path: Path, info: RasterInfo, window: Window, role: str) -> Raster:
        """Read a window; the last file that had to be decoded whole is kept for its next windows (views of one image)."""
        state = self._require_unchanged(path)
        as_codes, variable, bands = role == "change_mask", self._options.variable, self._chosen_bands(info, path, role)
        if info.has_windows:
            return open_files().read((path, as_codes, variable), state, window, bands)
        known = self._memo is not None and self._memo.path == path
        decoded = self._memo if self._memo is not None and known else Decoded(path, as_codes, variable, bands)
        if role == "hr":
            self._memo = decoded
        return decoded.read(window)

    def _chosen_bands(self, info: RasterInfo, path: Path, role: str) -> tuple[int, ...]:
        """Return the bands to read, counted from 1, after `convert` and `take_bands`; a mask has one."""
        if role not in IMAGE_ROLES:
            return (1,)
        bands = tuple(range(1, info.bands + 1))
        if self._options.convert == "rgb":
            bands = bands[:1] * 3 if info.bands < 3 else bands[:3]
        chosen = self._options.take_bands
        if chosen and max(chosen) > len(bands):
            raise DataError(f"{path} has {len(bands)} bands and dataset.take_bands asks for band {max(chosen)}; correct the list.")
        return tuple(bands[band - 1] for band in chosen) if chosen else bands

    def _marks_missing(self, info: RasterInfo) -> bool:
        """Say whether pixels of an image may be missing: its alpha band marks some where it is not itself among the bands."""
        taken = self._options.take_bands or range(1, 4 if self._options.convert == "rgb" else info.bands + 1)
        return info.has_nodata or (info.alpha is not None and info.alpha not in taken)

    def _bands_after(self, info: RasterInfo) -> int:
        return len(self._options.take_bands) or (3 if self._options.convert == "rgb" else info.bands)

    def _chosen(self, wavelengths: tuple[float, ...]) -> tuple[float, ...]:
        if not wavelengths:
            return ()
        kept = wavelengths[:3] if self._options.convert == "rgb" else wavelengths
        chosen = self._options.take_bands
        return tuple(kept[band - 1] for band in chosen) if chosen and max(chosen) <= len(kept) else () if chosen else kept

    def _build_normaliser(self, role: str, info: RasterInfo, measured_on: Sequence[Item]) -> Normaliser:
        """Return what maps the values of a role to [0, 1], after a look at whether they fit; raises DataError where they do not."""

        def images(count: int) -> Iterator[NDArray[Any]]:
            for values, valid, _ in self._examples(role, measured_on, count):
                known = values.astype(np.float64)
                yield known if valid is None else np.where(valid, known, np.nan)

        rule = self._options.value_rule
        is_byte = info.dtype == np.uint8
        if is_byte and role == "lr" and self._options.range != "auto":
            rule = NormaliserConfig()  # `range` tells that of the targets, which have another type
        normaliser = rule.build(info.dtype, self._bands_after(info), images)
        if is_byte and rule.rule == "type":
            return normaliser
        seen: list[Path] = []

        def looked_at() -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
            for values, valid, path in self._examples(role, measured_on, MEASURED_IMAGES, LOOKED_AT):
                seen.append(path)
                yield values, valid

        survey = surveyed(normaliser, looked_at())
        is_guessed = rule.rule == "type" and self._options.range == "auto" and info.dtype.kind == "u"
        use = require_fitting(normaliser, survey, info.dtype, is_guessed, str(seen[0].parent) if seen else "the data set")
        if use.outside:
            self._outside.append(f"{role}: {use.told(normaliser)} and are limited to it (seen in {len(seen)} images)")
        return normaliser

    def _examples(
        self, role: str, items: Sequence[Item], count: int, longest: int | None = None
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None, Path]]:
        """Yield (values, valid, path) of some images, evenly spaced over the items; `longest` limits the side of what is read of one."""
        for position in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int)):
            path, window = items[position].paths[role], items[position].window
            try:
                with without_warnings(), open_file(path, variable=self._options.variable) as file:
                    if longest is not None and file.info.has_windows:
                        window = central(window or Window(0, 0, file.info.height, file.info.width), longest)
                    raster = file.read(window, self._chosen_bands(file.info, path, role))
            except DataError:
                if self._options.odd == "skip":
                    continue
                raise
            yield raster.values, raster.valid, path


def in_file(item: Item, window: Window) -> Window:
    """Return a window of a sample in the coordinates of its file."""
    part = item.window
    return window if part is None else Window(part.top + window.top, part.left + window.left, window.height, window.width)


def central(window: Window, longest: int) -> Window:
    """Return the middle of a window, no side longer than `longest`."""
    height, width = min(window.height, longest), min(window.width, longest)
    return Window(window.top + (window.height - height) // 2, window.left + (window.width - width) // 2, height, width)


def require_unit_range(values: NDArray[Any], valid: NDArray[np.bool_] | None, path: Path) -> None:
    """Refuse real numbers of which many lie outside [0, 1], where they are taken as they are; a few are limited to it."""
    unit = Normaliser((0.0,), (1.0,))
    require_fitting(unit, surveyed(unit, [(values, valid)]), values.dtype, False, str(path))


def list_images(folder: Path, extensions: Iterable[str]) -> list[Path]:
    """Return the image files below `folder`, sorted; hidden files (also of other systems: '._a.jpg') are left out.

    Folders that are links are followed; one that is reached twice (a link to a folder above or beside it) is read once.
    """
    endings = tuple(f".{extension.lower().lstrip('.')}" for extension in extensions)
    found: list[tuple[str, ...]] = []
    seen = set()
    to_do: list[tuple[str, ...]] = [()]
    while to_do:
        inside = to_do.pop()
        place = os.path.join(folder, *inside)
        if (real := os.path.realpath(place)) in seen:
            continue
        seen.add(real)
        folders = []
        for entry in _entries(place):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append((*inside, entry.name))
            elif entry.name.lower().endswith(endings) and entry.is_file():
                found.append((*inside, entry.name))
        to_do += sorted(folders, reverse=True)
    start = str(folder)
    return [Path(os.path.join(start, *parts)) for parts in sorted(found)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); change its permissions, or give another dataset.root.") from None
