"""Readers of foreign checkpoints that execute nothing.

They read torch files (zip and legacy), Lightning's .ckpt, plain pickles and safetensors.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file

from rsdiff.weights import rebuild
from rsdiff.weights.pickle_machine import Record, UnsafeFileError, read_one_pickle
from rsdiff.weights.rebuild import Storage

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DAMAGE = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError)
"""What Python's zipfile raises at damaged directories: also names that are no text (ValueError) and negative places (OSError)."""
MAX_NESTING = 3
"""Torch files within pickles within torch files: EDM's snapshots need one level."""


def read_pickle(path: Path | str) -> Any:
    """Return what the file at `path` holds: containers, scalars, arrays, CPU tensors; any other object as a `Record`.

    Accepts torch files (zip and legacy, so Lightning's .ckpt too), and plain pickles of any protocol.
    Raises FileNotFoundError, or UnsafeFileError in one sentence if the file is of no such format, damaged or crafted.
    """
    path = Path(path)
    with path.open("rb") as stream:
        try:
            return _read(stream, 0)
        except UnsafeFileError as error:
            raise UnsafeFileError(f"{path.name} was not read: {error}") from error


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Return the top-level dictionary of a checkpoint: `read_pickle` for torch files and pickles, tensors by name for .safetensors."""
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise UnsafeFileError(f"{path.name} was not read: {' '.join(str(error).split())[:160]}.") from error
    content = read_pickle(path)
    if isinstance(content, Record):
        content = content.items or content.attributes()
    if not isinstance(content, Mapping) or not content:
        raise UnsafeFileError(f"{path.name} holds a {type(content).__name__}; a checkpoint is a non-empty dictionary.")
    return {str(key): value for key, value in content.items()}


def _read(stream: BinaryIO, nesting: int) -> Any:
    if nesting > MAX_NESTING:
        raise UnsafeFileError(f"torch files are nested more than {MAX_NESTING} deep.")
    start = stream.read(4)
    stream.seek(0)
    if start == b"PK\x03\x04":
        return _read_zip(stream, nesting)
    values = _table(nesting)
    first = read_one_pickle(stream, values)
    if isinstance(first, int) and first == LEGACY_MAGIC:
        return _read_legacy(stream, values)
    return first


def _table(nesting: int) -> dict[str, Any]:
    def load_torch(data: Any) -> Any:
        if not isinstance(data, bytes | bytearray):
            raise UnsafeFileError(f"a nested torch file is a {type(data).__name__} where bytes are expected.")
        return _read(io.BytesIO(data), nesting + 1)

    return rebuild.table(load_torch)


def _storage_id(pid: Any) -> tuple[Any, str, int, Any]:
    """Return (storage class, key, elements, view) of a persistent id."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] not in ("storage", b"storage"):
        raise UnsafeFileError("the file refers to external data in a way torch does not.")
    _, kind, key, _, count, *view = pid
    if not isinstance(key, str | int) or not isinstance(count, int) or count < 0:
        raise UnsafeFileError("the file describes a storage by something other than a key and a size.")
    return kind, str(key), count, view[0] if view else None


def _read_zip(stream: BinaryIO, nesting: int) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
    except DAMAGE as error:
        raise UnsafeFileError(f"the zip container is damaged ({error}).") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UnsafeFileError("the zip file is not a torch checkpoint: it does not hold exactly one data.pkl.")
    root = roots[0]
    budget = stream.seek(0, io.SEEK_END)

    def content(name: str) -> bytes:
        nonlocal budget
        entry = entries.get(root + name)
        if entry is None:
            raise UnsafeFileError(f"the torch file lacks its part {name}.")
        # torch never compresses, so no part can be larger than the file: a zip bomb is.
        budget -= entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or budget < 0:
            raise UnsafeFileError(f"part {name} of the torch file is compressed or larger than the file itself.")
        try:
            return archive.read(entry)
        except DAMAGE as error:
            raise UnsafeFileError(f"part {name} of the torch file is damaged ({error}).") from error

    if root + "byteorder" in entries and content("byteorder") != b"little":
        raise UnsafeFileError("the file was written on a big-endian machine; save it again on a little-endian one.")
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        kind, key, count, _ = _storage_id(pid)
        if key not in storages:
            dtype = rebuild.storage_dtype(kind)
            data = content(f"data/{key}")
            if len(data) != count * dtype.itemsize:
                raise UnsafeFileError(f"storage {key} has {len(data)} bytes where {count} elements of {dtype} are announced.")
            storages[key] = Storage(rebuild.flat_tensor(data, dtype))
        return storages[key]

    return read_one_pickle(io.BytesIO(content("data.pkl")), _table(nesting), persistent)


def _read_legacy(stream: BinaryIO, values: dict[str, Any]) -> Any:
    """Magic number (already read), protocol, system, object, storage keys: five pickles; then each storage as a count and raw data."""
    read_one_pickle(stream, values)
    system = read_one_pickle(stream, values)
    if isinstance(system, Mapping) and system.get("little_endian") is False:
        raise UnsafeFileError("the file was written on a big-endian machine; save it again on a little-endian one.")
    here = stream.tell()
    budget = stream.seek(0, io.SEEK_END) - here
    stream.seek(here)
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        nonlocal budget
        kind, key, count, view = _storage_id(pid)
        dtype = rebuild.storage_dtype(kind)
        if key not in storages:
            budget -= count * dtype.itemsize
            if budget < 0:
                raise UnsafeFileError(f"storage {key} of {count} elements is larger than the file.")
            storages[key] = Storage(rebuild.flat_tensor(bytes(count * dtype.itemsize), dtype))
        whole = storages[key].data
        if view is None:
            return storages[key]
        if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(part, int) and part >= 0 for part in view[1:]):
            raise UnsafeFileError(f"storage {key} is viewed by something other than an offset and a size.")
        return Storage(whole[view[1] : view[1] + view[2]])

    content = read_one_pickle(stream, values, persistent)
    keys = read_one_pickle(stream, values)
    for key in keys if isinstance(keys, list) else []:
        storage = storages.get(str(key))
        header = stream.read(8)
        if storage is None or len(header) != 8 or struct.unpack("<q", header)[0] != storage.data.numel():
            raise UnsafeFileError(f"storage {key} is announced but not stored as announced.")
        data = stream.read(storage.data.nbytes)
        if len(data) != storage.data.nbytes:
            raise UnsafeFileError(f"the file ends inside storage {key}.")
        if data:
            storage.data.copy_(rebuild.flat_tensor(data, storage.data.dtype))
    return content
