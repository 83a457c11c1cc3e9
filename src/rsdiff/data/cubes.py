"""Image cubes in MATLAB (.mat, both generations), HDF5 and NumPy (.npy) files, as (bands, rows, columns)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rsdiff.data.plausible import require_plausible
from rsdiff.data.source import DataError, Window, cut

_NUMBERS = {
    "double": 8,
    "single": 4,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
}
"""Bytes of MATLAB's numeric classes."""


@dataclass(frozen=True)
class CubeInfo:
    """Shape (bands, rows, columns), type, and whether windows are read without loading the whole."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    has_windows: bool


def is_cube(path: Path, head: bytes) -> bool:
    """Say whether this reader is for a file with these first bytes; HDF5 with CF conventions (netCDF) is GDAL's, which knows its place."""
    if is_hdf5(head):
        return path.suffix.lower() == ".mat" or not follows_netcdf(path)
    return head.startswith((b"MATLAB 5.0", b"MATLAB 7.3", b"\x93NUMPY")) or path.suffix.lower() == ".mat"


def is_hdf5(head: bytes) -> bool:
    """Say whether a file with these first bytes is HDF5."""
    return head.startswith(b"\x89HDF")


def follows_netcdf(path: Path) -> bool:
    """Say whether an HDF5 file follows the conventions of netCDF; raises DataError where it refers to other files."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        follows = path.suffix.lower() in (".nc", ".nc4", ".cdf") or "Conventions" in file.attrs or "_NCProperties" in file.attrs
        if follows and (name := _reference(file)) is not None:
            raise DataError(f"{path} takes '{name}' from another file, which is not followed; write a file that holds its own data.")
        return follows


def _reference(group: h5py.Group) -> str | None:
    """Return the name of something in the group that lies in another file, or None."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return str(name)
        found = group[name]
        if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
            return str(name)
        if isinstance(found, h5py.Group) and (inner := _reference(found)) is not None:
            return f"{name}/{inner}"
    return None


def cube_info(path: Path, variable: str = "") -> CubeInfo:
    """Return shape and type of the cube; raises DataError where there is none, the choice is unclear or the size not plausible."""
    if _is_numpy(path):
        array = _mapped(path)
        return CubeInfo(_three_axes(array.shape, path), array.dtype, has_windows=True)
    if _is_hdf5(path):
        with h5py.File(path, "r") as file:
            array = file[_hdf5_variable(file, path, variable)]
            block = math.prod(array.chunks or (1,)) * array.dtype.itemsize
            require_plausible(path, block, [path])
            bands, columns, rows = array.shape if _is_reversed(path) else (array.shape[0], array.shape[2], array.shape[1])
            return CubeInfo((bands, rows, columns), array.dtype, has_windows=True)
    name, (rows, columns, bands) = _matlab5_variable(path, variable)
    return CubeInfo((bands, rows, columns), _matlab5_array(path, name).dtype, has_windows=False)


def read_cube(path: Path, window: Window | None = None, variable: str = "") -> NDArray[Any]:
    """Return the cube (bands, rows, columns), whole or in `window`.

    MATLAB 5 files hold (rows, columns, bands); in MATLAB 7.3 files, which are HDF5, the same array appears with its axes reversed. Other
    HDF5 files are taken as (bands, rows, columns), like NumPy's.
    """
    if _is_numpy(path):
        array = _mapped(path)
        _three_axes(array.shape, path)
        return np.array(array if window is None else cut(array, window), order="C")
    if _is_hdf5(path):
        with h5py.File(path, "r") as file:
            array = file[_hdf5_variable(file, path, variable)]
            reverse = _is_reversed(path)
            if window is None:
                require_plausible(path, array.nbytes, [path])
                part = array[...]
            else:
                rows, columns = _span(window.top, window.height), _span(window.left, window.width)
                part = array[:, columns, rows] if reverse else array[:, rows, columns]
            return np.ascontiguousarray(part.transpose(0, 2, 1) if reverse else part)
    name = _matlab5_variable(path, variable)[0]
    values = _matlab5_array(path, name).transpose(2, 0, 1)
    return np.ascontiguousarray(values if window is None else cut(values, window))


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise DataError(f"{path} holds Python objects; save an array of integers or real numbers.") from None
    return array


def _span(start: int, length: int) -> slice:
    return slice(start, start + length)


def _is_numpy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _is_hdf5(path: Path) -> bool:
    return bool(h5py.is_hdf5(path))


def _is_reversed(path: Path) -> bool:
    """Say whether an HDF5 file was written by MATLAB, whose arrays appear with their axes reversed."""
    with path.open("rb") as file:
        return file.read(10) == b"MATLAB 7.3"


def _three_axes(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DataError(f"{path} holds an array of {len(shape)} axes; save it as (bands, rows, columns).")
    return shape[0], shape[1], shape[2]


def _matlab5_array(path: Path, name: str) -> NDArray[Any]:
    import scipy.io  # a sixth of PyTorch's own start, for those who have such files

    array: NDArray[Any] = scipy.io.loadmat(path, variable_names=[name])[name]
    return array


def _matlab5_variable(path: Path, variable: str) -> tuple[str, tuple[int, int, int]]:
    import scipy.io

    arrays = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path) if len(shape) == 3 and kind in _NUMBERS}
    found = {name: shape for name, (shape, _) in arrays.items()}
    name = _choose(found, path, variable)
    require_plausible(path, _NUMBERS[arrays[name][1]] * math.prod(found[name]), [path])
    return name, _three_axes(found[name], path)


def _hdf5_variable(file: h5py.File, path: Path, variable: str) -> str:
    arrays: dict[str, h5py.Dataset] = {}

    def collect(name: str, found: Any) -> None:
        # Follows no link that leads out of the file.
        if isinstance(found, h5py.Dataset) and not name.startswith("#") and not found.is_virtual and not found.external:
            arrays[name] = found

    file.visititems(collect)
    return _choose({name: a.shape for name, a in arrays.items() if a.ndim == 3 and a.dtype.kind in "uif"}, path, variable)


def _choose(found: Mapping[str, tuple[int, ...]], path: Path, variable: str) -> str:
    listed = ", ".join(f"{name} {shape}" for name, shape in found.items()) or "none"
    if variable:
        if variable not in found:
            raise DataError(f"{path} has no numeric cube '{variable}' (it has: {listed}); correct dataset.variable or task.variable.")
        return variable
    if not found:
        raise DataError(f"{path} holds no cube of integers or real numbers with three axes; save one as (bands, rows, columns).")
    if len(found) != 1:
        raise DataError(
            f"{path} holds {len(found)} numeric cubes (of three axes: {listed}); choose one with dataset.variable=NAME or task.variable."
        )
    return next(iter(found))
