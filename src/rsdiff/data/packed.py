"""Packed data sets: one plain HDF5 file whose pixels are read straight from disk, by any number of processes.

Layout (format 'rsdiff-packed-1'), which any HDF5 tool opens: `pixels/<role>`, an array (samples, bands, rows, columns), or where sizes vary
a row of values, in which samples follow each other as (bands, rows, columns); `names`, `splits/<split>` (positions in names) and
`shapes/<role>` for such tools; `manifest` (JSON text as bytes: names, splits, shapes, normalisers, ...), and three tables with a row per
sample: `checksums` (BLAKE2b, 16 bytes, over all roles), `states` (0 to do, 1 packed, 2 left out) and `reasons` (text).

The HDF5 library reads the structure once; pixels come from a memory map that every process opens for itself, so forked and spawned workers
are equally safe. Processor time of a crop of 96 x 96 x 3: 16 us from a map, as of an .npy file, and 24 us with the checks and metadata of a
sample; 35 us by h5py of one array, seven times as much of an array per sample (tests/benchmarks/test_packed.py). One file of plain arrays
that any HDF5 tool opens is why these are not .npy files with an index of their own, which would be no faster and 90 lines shorter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError, config
from rsdiff.config.paths import typed_path
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.sample import Georeference, Sample, SampleMeta
from rsdiff.data.source import LR_ROLES, ROLES, SPLITS, DataError, ImageSource, RawSample, Split, Window, meta_of_window, sample_from
from rsdiff.data.splits import limited

FORMAT = "rsdiff-packed-1"
CHECKSUM_BYTES = 16
REASON_BYTES = 240
TO_DO, PACKED, LEFT_OUT = 0, 1, 2


@dataclass(frozen=True)
class RoleTable:
    """All pixels of a role: their type, one (bands, rows, columns) per sample, and where each sample starts (in values)."""

    dtype: np.dtype[Any]
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def starts(self) -> list[int]:
        """First value of every sample, and the end of the last."""
        starts = [0]
        for bands, rows, columns in self.shapes:
            starts.append(starts[-1] + bands * rows * columns)
        return starts

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the role's array in the file: (samples, bands, rows, columns) where all have one size, else all values in a row."""
        return (len(self.shapes), *self.shapes[0]) if len(set(self.shapes)) == 1 else (self.starts[-1],)


@dataclass(frozen=True)
class Manifest:
    """Everything a packed file says besides pixels.

    splits       'train' and 'test' -> positions in `names`
    origin       fingerprints of the sources it was packed from
    scale        ratio of hr to lr where the data bring both, else 1
    """

    names: tuple[str, ...]
    labels: tuple[tuple[tuple[str, str], ...], ...]
    georeferences: tuple[Georeference | None, ...]
    splits: Mapping[str, tuple[int, ...]]
    roles: Mapping[str, RoleTable]
    wavelengths: tuple[float, ...]
    normaliser: Normaliser
    lr_normaliser: Normaliser
    scale: float
    origin: str

    def to_bytes(self) -> bytes:
        """Return the manifest as UTF-8 JSON, the same bytes for the same contents."""
        values = {
            "names": self.names,
            "labels": self.labels,
            "georeferences": [None if place is None else [place.crs, place.transform] for place in self.georeferences],
            "splits": dict(self.splits),
            "roles": {role: {"dtype": table.dtype.str, "shapes": table.shapes} for role, table in self.roles.items()},
            "wavelengths": self.wavelengths,
            "normaliser": self.normaliser.to_json(),
            "lr_normaliser": self.lr_normaliser.to_json(),
            "scale": self.scale,
            "origin": self.origin,
        }
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(text: bytes) -> Manifest:
        """Return the manifest in `text`; raises UserError, KeyError or TypeError on anything `to_bytes` did not write."""
        values = json.loads(text)
        count = len(values["names"])
        return Manifest(
            names=tuple(safe_name(name) for name in values["names"]),
            labels=tuple(tuple((str(key), str(value)) for key, value in labels) for labels in _of_length(values["labels"], count)),
            georeferences=tuple(None if p is None else _georeference(*p) for p in _of_length(values["georeferences"], count)),
            splits={split: tuple(_position(i, count) for i in values["splits"][split]) for split in SPLITS},
            roles={_role(role): _role_table(table, count) for role, table in values["roles"].items()},
            wavelengths=tuple(float(value) for value in values["wavelengths"]),
            normaliser=Normaliser.from_json(values["normaliser"]),
            lr_normaliser=Normaliser.from_json(values["lr_normaliser"]),
            scale=float(values["scale"]),
            origin=str(values["origin"]),
        )


@dataclass(frozen=True)
class Layout:
    """Byte positions in a packed file: of the first value of each role, and of the three tables."""

    pixels: Mapping[str, int]
    checksums: int
    states: int
    reasons: int


@dataclass(frozen=True)
class PackedFile:
    """A packed file's structure, checked; no file is held open."""

    path: Path
    manifest: Manifest
    layout: Layout
    states: NDArray[np.uint8]
    checksums: NDArray[np.uint8]

    def fingerprint(self) -> str:
        """Return a digest of names, shapes, types and pixel checksums; the path and times do not matter."""
        return hashlib.blake2b(self.manifest.to_bytes() + self.checksums.tobytes() + self.states.tobytes(), digest_size=16).hexdigest()

    def maps(self) -> dict[str, NDArray[Any]]:
        """Return a read-only memory map of each role's values."""
        roles = self.manifest.roles.items()
        return {role: _map(self.path, table.dtype, self.layout.pixels[role], table.starts[-1]) for role, table in roles}


def open_packed(path: Path) -> PackedFile:
    """Return the checked structure of `path`; raises DataError in one sentence when it is none, damaged, or built to do harm."""
    if path == Path():
        raise DataError("dataset.file is not given; set dataset.file=FILE to a file made by task=prepare.")
    if not path.is_file():
        raise DataError(f"{path} does not exist; make it with task=prepare output={path}.")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path} is not a packed data set of format {FORMAT}; make one with task=prepare.")
            text = _plain(file, "manifest", np.dtype(np.uint8))
            manifest = Manifest.from_bytes(text[...].tobytes())
            tables = {role: _plain(file, f"pixels/{role}", table.dtype) for role, table in manifest.roles.items()}
            for role, table in manifest.roles.items():
                if tables[role].shape not in ((table.starts[-1],), table.stored_shape):
                    raise UserError(f"{role} has the shape {tables[role].shape}, the manifest {table.stored_shape}")
            count = len(manifest.names)
            sides = {"checksums": (count, CHECKSUM_BYTES), "states": (count,), "reasons": (count, REASON_BYTES)}
            rows = {name: _plain(file, name, np.dtype(np.uint8)) for name in sides}
            for name, shape in sides.items():
                if rows[name].shape != shape:
                    raise UserError(f"table {name} has shape {rows[name].shape}, not {shape}")
            require_consistent(manifest)
            layout = Layout({role: _offset(array) for role, array in tables.items()}, *(_offset(rows[name]) for name in sides))
            size = path.stat().st_size
            for role, array in tables.items():
                if layout.pixels[role] + array.nbytes > size:
                    raise UserError(f"the pixels of {role} end beyond the file")
            return PackedFile(path, manifest, layout, rows["states"][...], rows["checksums"][...])
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or not a packed data set ({reason}); copy it again or make it with task=prepare.") from None


def is_packed(path: str) -> bool:
    """Say whether `path` is an HDF5 file (which `open_packed` then checks)."""
    place = typed_path(path)
    return place.is_file() and bool(h5py.is_hdf5(place))


def checksum(arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return the checksum of a sample's arrays, in the order of the manifest's roles."""
    digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


class PackedSource:
    """One split of a packed file as an ImageSource."""

    left_out: Sequence[tuple[str, str]] = ()

    def __init__(self, path: Path, split: Split, scale: float, limit: int | None = None) -> None:
        self._file = open_packed(path)
        manifest = self._file.manifest
        if (self._file.states == TO_DO).any():
            raise DataError(f"{path} is not finished; repeat the task=prepare command that made it.")
        self._scale = scale
        kept = {manifest.names[i]: i for i in manifest.splits[split] if self._file.states[i] == PACKED}
        if not kept:
            raise DataError(f"{path} has no images for split '{split}'; prepare it from a folder with such images.")
        self._rows = [kept[name] for name in limited(list(kept), limit)]
        self.gives = frozenset(manifest.roles)
        if {"hr", "lr"} <= self.gives and scale != manifest.scale:
            raise DataError(
                f"{path} holds LR images at scale={manifest.scale:g} and the run has scale={scale:g}; set scale={manifest.scale:g}."
            )
        main, low = ("hr" if "hr" in self.gives else "lr"), ("lr" if "lr" in self.gives else "hr")
        self.bands, self.lr_bands = manifest.roles[main].shapes[0][0], manifest.roles[low].shapes[0][0]
        self.wavelengths, self.normaliser, self.lr_normaliser = manifest.wavelengths, manifest.normaliser, manifest.lr_normaliser
        self._main = main
        self._starts = {role: table.starts for role, table in manifest.roles.items()}
        self._maps: dict[str, NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._file.manifest.names[self._rows[index]]

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        _, rows, columns = self._file.manifest.roles[self._main].shapes[self._rows[index]]
        return (rows, columns) if self._main == "hr" else (round(rows * self._scale), round(columns * self._scale))

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        row, manifest = self._rows[index], self._file.manifest
        return SampleMeta(manifest.names[row], index, 0, manifest.labels[row], manifest.wavelengths, manifest.georeferences[row])

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        if window is not None and not window.within(self.size(index)):
            raise UserError(f"{window} does not lie inside {self.name(index)} of size {self.size(index)}.")
        row, manifest = self._rows[index], self._file.manifest
        arrays: dict[str, NDArray[Any]] = {}
        for role, table in manifest.roles.items():
            part = (window.divided(self._scale) if role in LR_ROLES else window) if window is not None else None
            arrays[role] = self._values(role, row, table.shapes[row], part)
        return RawSample(meta_of_window(self.meta(index), window if self._main == "hr" else None), arrays)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """See ImageSource; made of the recorded checksums, so that moving the file does not change it."""
        return self._file.fingerprint()

    def remarks(self) -> Sequence[str]:
        """See ImageSource."""
        return ()

    def contents(self) -> Sequence[str]:
        """See ImageSource; of all roles together, so that a packed image is not known again in the folder it came from."""
        return [self._file.checksums[row].tobytes().hex() for row in self._rows]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None}  # a pickled memory map would carry all pixels

    def _values(self, role: str, row: int, shape: tuple[int, int, int], window: Window | None) -> NDArray[Any]:
        if self._maps is None:
            self._maps = self._file.maps()
        start = self._starts[role][row]
        image = self._maps[role][start : start + shape[0] * shape[1] * shape[2]].reshape(shape)
        if window is not None:
            image = image[:, window.top : window.top + window.height, window.left : window.left + window.width]
        return np.array(image, order="C")


@config
class PackedDataset:
    """A file made by `task=prepare`: its images, splits and normaliser are recorded in it."""

    located: ClassVar[frozenset[str]] = frozenset({"file"})

    file: str = ""
    """The packed file; must be given."""
    small: Literal["refuse", "skip", "pad"] = "refuse"
    """Images smaller than the training crop: stop with their names, leave them out, or extend them by mirroring."""
    size_rule: Literal["crop", "keep"] = "crop"
    """Test targets: crop bottom and right to a multiple of the scale, or keep the size and round the LR's down."""
    limit: int | None = None
    """Most training images to use; None means all."""
    test_limit: int | None = None
    """Most test images to use; None means all."""

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample, as recorded in the file."""
        return frozenset(open_packed(typed_path(self.file)).manifest.roles)

    def check(self) -> None:
        """Raise DataError when the file is missing, unfinished or damaged."""
        open_packed(typed_path(self.file))

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open one of the recorded splits."""
        return PackedSource(typed_path(self.file), split, scale, self.limit if split == "train" else self.test_limit)


def safe_name(name: Any) -> str:
    """Return a sample name that may become a file name below an output folder; raises UserError otherwise."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise UserError(f"{name!r} is not a sample name")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"sample name {name!r} leads out of its folder")
    return name


def require_consistent(manifest: Manifest) -> None:
    """Raise ValueError unless the roles of every sample have shapes that belong together."""
    roles = {role: table.shapes for role, table in manifest.roles.items()}
    if not ({"hr", "lr"} & set(roles)):
        raise UserError("there is neither hr nor lr")
    for role in ("hr", "lr"):
        if role in roles and len({shape[0] for shape in roles[role]}) > 1:
            raise UserError(f"the band count of {role} varies")
    if "hr" in roles and any(role in roles and roles[role] != roles["hr"] for role in ("ref",)):
        raise UserError("hr and ref differ in shape")
    one_band = [(1, *shape[1:]) for shape in roles.get("hr", ())]
    if "change_mask" in roles and list(roles["change_mask"]) != one_band:
        raise UserError("change_mask does not have the shape of hr with one band")
    if "valid" in roles and list(roles["valid"]) not in (one_band, list(roles.get("hr", ()))):
        raise UserError("valid has neither the shape of hr nor that shape with one band")


def _plain(file: h5py.File, name: str, dtype: np.dtype[Any]) -> h5py.Dataset:
    """Return a data set that is what it says: in this file, contiguous, of the expected type; links and foreign storage are refused."""
    place: Any = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"'{name}' is missing or a link")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external or place.chunks is not None:
        raise UserError(f"'{name}' is not a contiguous array of this file")
    if place.dtype != dtype:
        raise UserError(f"'{name}' has type {place.dtype}")
    return place


def _offset(array: h5py.Dataset) -> int:
    offset = array.id.get_offset()
    if offset is None:
        raise UserError(f"'{array.name}' has no storage")
    return int(offset)


def _map(path: Path, dtype: np.dtype[Any], offset: int, length: int) -> NDArray[Any]:
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(length,))


def _role(name: str) -> str:
    if name not in ROLES:
        raise UserError(f"unknown role {name!r}")
    return name


def _role_table(values: Mapping[str, Any], count: int) -> RoleTable:
    dtype = np.dtype(str(values["dtype"]))
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UserError(f"pixels of type {dtype}")
    shapes = []
    for shape in _of_length(values["shapes"], count):
        bands, rows, columns = shape
        if not all(type(side) is int and 0 < side < 2**31 for side in shape):
            raise UserError(f"shape {shape}")
        shapes.append((bands, rows, columns))
    return RoleTable(dtype, tuple(shapes))


def _georeference(crs: Any, transform: Any) -> Georeference:
    a, b, c, d, e, f = (float(value) for value in transform)
    return Georeference(str(crs), (a, b, c, d, e, f))


def _position(value: Any, count: int) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise UserError(f"position {value!r} of {count}")
    return value


def _of_length(values: Any, count: int) -> Any:
    if len(values) != count:
        raise UserError(f"{len(values)} entries for {count} samples")
    return values
