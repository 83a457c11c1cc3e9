"""Readers of foreign checkpoints that execute nothing.

They read torch files (zip and legacy), Lightning's .ckpt, plain pickles and safetensors. Tensors of zip files lie in the file itself, which
is mapped into memory, copied where it is written to: reading takes no memory and little time.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rsdiff.foreign.inert import Record, UnsafeFileError, read_one_pickle
from rsdiff.foreign.rebuild import Storage, flat_tensor, storage_dtype, table

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DAMAGE = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError, struct.error)
"""What Python's zipfile raises at damaged directories: also names that are no text (ValueError) and negative places (OSError)."""
MAX_NESTING = 3
"""Torch files within pickles within torch files: EDM's snapshots need one level."""
BIG_ENDIAN = "the file was written on a big-endian machine; save it again on a little-endian one."


PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"BM", b"RIFF", b"\0\0\0\x0cjP")
"""How files of JPEG, PNG, GIF, TIFF, BMP, WebP and JPEG 2000 begin."""


def is_picture(path: Path) -> bool:
    """Whether a file begins as an image does, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(16).startswith(PICTURES)


def read_pickle(path: Path | str) -> Any:
    """Return what the file at `path` holds: containers, scalars, arrays, CPU tensors; any other object as a `Record`.

    Accepts torch files (zip and legacy, so Lightning's .ckpt too), and plain pickles of any protocol.
    Raises FileNotFoundError, or UnsafeFileError in one sentence if the file is of no such format, damaged or crafted.
    """
    path = Path(path)
    with path.open("rb") as stream:
        try:
            if path.stat().st_size == 0:
                raise UnsafeFileError("it is empty.")
            if is_picture(path):
                raise UnsafeFileError("it is an image, not a file of weights; task=restore input=IMAGE enlarges one.")
            return _read(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), 0)
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


def _read(data: mmap.mmap | bytearray, nesting: int) -> Any:
    """Return the object of a torch file or pickle held in memory, which its tensors may share."""
    if nesting > MAX_NESTING:
        raise UnsafeFileError(f"torch files are nested more than {MAX_NESTING} deep.")

    def load_torch(inner: Any) -> Any:
        if not isinstance(inner, bytes | bytearray):
            raise UnsafeFileError(f"a nested torch file is a {type(inner).__name__} where bytes are expected.")
        return _read(bytearray(inner), nesting + 1)

    values, stream = table(load_torch), cast(BinaryIO, io.BytesIO(data) if isinstance(data, bytearray) else data)
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data, stream, values)
    first = read_one_pickle(stream, values)
    return _read_legacy(data, stream, values) if isinstance(first, int) and first == LEGACY_MAGIC else first


def _storage_id(pid: Any) -> tuple[torch.dtype, str, int, Any]:
    """Return (element type, key, elements, view) of a persistent id."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] not in ("storage", b"storage"):
        raise UnsafeFileError("the file refers to external data in a way torch does not.")
    _, kind, key, _, count, *view = pid
    if not isinstance(key, str | int) or not isinstance(count, int) or count < 0:
        raise UnsafeFileError("the file describes a storage by something other than a key and a size.")
    return storage_dtype(kind), str(key), count, view[0] if view else None


def _parts(data: mmap.mmap | bytearray, stream: BinaryIO) -> Callable[[str], tuple[int, int]]:
    """Return the function that tells where a part of a torch zip file begins and ends, after checking that it is stored and intact."""
    try:
        entries = {entry.filename: entry for entry in zipfile.ZipFile(stream).infolist()}
    except DAMAGE as error:
        raise UnsafeFileError(f"the zip container is damaged ({error}).") from error
    roots = [name.removesuffix("data.pkl") for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise UnsafeFileError("the zip file is not a torch checkpoint: it does not hold exactly one data.pkl.")

    def place_of(name: str) -> tuple[int, int]:
        entry = entries.get(roots[0] + name)
        if entry is None:
            if name == "byteorder":  # older files have none
                return 0, 0
            raise UnsafeFileError(f"the torch file lacks its part {name}.")
        # torch never compresses, so no part can be larger than the file: a zip bomb is.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data):
            raise UnsafeFileError(f"part {name} of the torch file is compressed or larger than the file itself.")
        head = data[entry.header_offset : entry.header_offset + 30] if entry.header_offset >= 0 else b""
        if len(head) != 30 or head[:4] != b"PK\x03\x04":
            raise UnsafeFileError(f"part {name} of the torch file is damaged (no header where the directory says).")
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", head, 26))
        end = start + entry.file_size
        with memoryview(data) as whole:
            if end > len(data) or zlib.crc32(whole[start:end]) != entry.CRC:
                raise UnsafeFileError(f"part {name} of the torch file is damaged (its checksum is another).")
        return start, end

    return place_of


def _read_zip(data: mmap.mmap | bytearray, stream: BinaryIO, values: dict[str, Any]) -> Any:
    place_of = _parts(data, stream)
    if data[slice(*place_of("byteorder"))] not in (b"", b"little"):
        raise UnsafeFileError(BIG_ENDIAN)
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        dtype, key, count, _ = _storage_id(pid)
        if key not in storages:
            start, end = place_of(f"data/{key}")
            if end - start != count * dtype.itemsize:
                raise UnsafeFileError(f"storage {key} has {end - start} bytes where {count} elements of {dtype} are announced.")
            storages[key] = Storage(flat_tensor(data, dtype, start, count))
        return storages[key]

    return read_one_pickle(io.BytesIO(data[slice(*place_of("data.pkl"))]), values, persistent)


def _read_legacy(data: mmap.mmap | bytearray, stream: BinaryIO, values: dict[str, Any]) -> Any:
    """Magic number (already read), protocol, system, object, storage keys: five pickles; then each storage as a count and raw data."""
    read_one_pickle(stream, values)
    system = read_one_pickle(stream, values)
    if isinstance(system, Mapping) and system.get("little_endian") is False:
        raise UnsafeFileError(BIG_ENDIAN)
    budget = len(data) - stream.tell()
    storages: dict[str, Tensor] = {}

    def persistent(pid: Any) -> Storage:
        nonlocal budget
        dtype, key, count, view = _storage_id(pid)
        if key not in storages:
            budget -= count * dtype.itemsize
            if budget < 0:
                raise UnsafeFileError(f"storage {key} of {count} elements is larger than the file.")
            storages[key] = torch.zeros(count, dtype=dtype)
        if view is None:
            return Storage(storages[key])
        if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(part, int) and part >= 0 for part in view[1:]):
            raise UnsafeFileError(f"storage {key} is viewed by something other than an offset and a size.")
        return Storage(storages[key][view[1] : view[1] + view[2]])

    content = read_one_pickle(stream, values, persistent)
    keys = read_one_pickle(stream, values)
    for key in keys if isinstance(keys, list) else []:
        storage, header = storages.get(str(key)), stream.read(8)
        if storage is None or len(header) != 8 or struct.unpack("<q", header)[0] != storage.numel():
            raise UnsafeFileError(f"storage {key} is announced but not stored as announced.")
        start = stream.tell()
        if start + storage.nbytes > len(data):
            raise UnsafeFileError(f"the file ends inside storage {key}.")
        storage.copy_(flat_tensor(data, storage.dtype, start, storage.numel()))
        stream.seek(start + storage.nbytes)
    return content
