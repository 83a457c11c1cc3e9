"""Writing packed data sets: resumable after a kill, verified before they get their name.

The HDF5 structure is created once, with all space laid out, beside the output as `<output>.partial`. Everything after that is written at
known byte positions without the HDF5 library, pixels before their checksum and the checksum before the state, so that a kill at any point
leaves a file that the next attempt continues. When all samples are read back and their checksums agree, the file is renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from rsdiff.data.durable import flush
from rsdiff.data.packed import (
    CHECKSUM_BYTES,
    FORMAT,
    LEFT_OUT,
    PACKED,
    REASON_BYTES,
    TO_DO,
    Manifest,
    PackedFile,
    RoleTable,
    checksum,
    open_packed,
    require_consistent,
    safe_name,
)
from rsdiff.data.source import LR_ROLES, ROLES, SPLITS, DataError, ImageSource, RawSample, Split

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples in all."""


@dataclass(frozen=True)
class PrepareReport:
    """What became of a preparation.

    images    samples in the file, of which `resumed` had been packed by an earlier attempt
    left_out  (name, reason) of images that are not in it
    was_done  whether the file was there already, made of the same data
    """

    output: Path
    images: int
    splits: Mapping[str, int]
    gives: tuple[str, ...]
    bands: int
    size_bytes: int
    resumed: int
    left_out: tuple[tuple[str, str], ...]
    was_done: bool


def pack(
    sources: Mapping[Split, ImageSource], output: Path, on_error: Literal["stop", "skip"], scale: float, progress: Progress
) -> PrepareReport:
    """Write the images of `sources` into `output` and verify them.

    on_error  'stop': the first image that cannot be read ends the preparation (repaired, it continues there); 'skip': it is left out and
              reported
    scale     ratio of hr to lr, for data that bring both
    Raises DataError in one sentence: unreadable image, full disk, output that holds other data.
    """
    samples = list_samples(sources)
    manifest = plan(samples, sources, probe(sources, on_error), scale)
    left_out = {name: reason for source in sources.values() for name, reason in source.left_out}
    if output.exists():
        return _report(same_data(output, manifest), left_out, resumed=len(samples), was_done=True)
    partial = output.with_name(output.name + ".partial")
    with _disk_errors(output):
        structure, resumed = open_partial(partial, output, manifest)
        write_samples(structure, [(sources[split], index) for split, index, _ in samples], on_error, progress)
        verify(open_packed(partial))
        flush(partial)
        partial.rename(output)
    return _report(open_packed(output), left_out, resumed, was_done=False)


def list_samples(sources: Mapping[Split, ImageSource]) -> list[tuple[Split, int, str]]:
    """Return (split, index, name) of every sample, one per name: an image in both splits is stored once."""
    found: dict[str, tuple[Split, int, str]] = {}
    for split, source in sources.items():
        for index in range(len(source)):
            name = source.name(index)
            found.setdefault(safe_name(name), (split, index, name))
    return list(found.values())


def probe(sources: Mapping[Split, ImageSource], on_error: Literal["stop", "skip"]) -> RawSample:
    """Return the first sample that can be read, which tells types and band counts; 'stop': the very first must be."""
    for source in sources.values():
        for index in range(len(source)):
            try:
                return source.raw(index)
            except DataError as error:
                last = error
                if on_error == "stop":
                    raise _with_advice(error) from None
    raise DataError(f"not one image can be read, e.g.: {last}")


def plan(samples: Sequence[tuple[Split, int, str]], sources: Mapping[Split, ImageSource], read: RawSample, scale: float) -> Manifest:
    """Return the manifest of a file with `samples`: shapes from sizes, types and band counts from the sample that was `read`."""
    first = next(iter(sources.values()))
    if any(source.gives != first.gives or source.bands != first.bands or source.lr_bands != first.lr_bands for source in sources.values()):
        raise DataError("the training and the test images differ in bands or in what they give; prepare data whose splits are alike.")
    roles: dict[str, RoleTable] = {}
    positions = {name: position for position, (_, _, name) in enumerate(samples)}
    sizes = [sources[split].size(index) for split, index, _ in samples]
    lr_scale = scale if "lr" in first.gives else 1.0
    for role in [role for role in ROLES if role in read.arrays]:
        bands = read.arrays[role].shape[0]
        shapes = [(bands, round(H / lr_scale), round(W / lr_scale)) if role in LR_ROLES else (bands, H, W) for H, W in sizes]
        roles[role] = RoleTable(read.arrays[role].dtype.newbyteorder("<"), tuple(shapes))
    metas = [sources[split].meta(index) for split, index, _ in samples]
    origin = hashlib.blake2b("".join(source.fingerprint() for source in sources.values()).encode(), digest_size=16).hexdigest()
    manifest = Manifest(
        names=tuple(name for _, _, name in samples),
        labels=tuple(meta.labels for meta in metas),
        georeferences=tuple(meta.georeference for meta in metas),
        splits={
            split: tuple(positions[sources[split].name(i)] for i in range(len(sources[split]))) if split in sources else ()
            for split in SPLITS
        },
        roles=roles,
        wavelengths=first.wavelengths,
        normaliser=first.normaliser,
        lr_normaliser=first.lr_normaliser,
        scale=scale if {"hr", "lr"} <= set(roles) else 1.0,
        origin=origin,
    )
    require_consistent(manifest)
    return manifest


def same_data(output: Path, manifest: Manifest) -> PackedFile:
    """Return the existing packed file if it was made of the same data; raises DataError if it holds anything else."""
    existing = open_packed(output)
    wrong = damaged(existing)
    if wrong:
        raise DataError(f"{output} exists and {len(wrong)} of its images are damaged; delete it and repeat the command.")
    if existing.manifest.origin != manifest.origin or existing.manifest.to_bytes() != manifest.to_bytes():
        raise DataError(f"{output} exists and holds other data or another version of these; delete it or choose another output=.")
    return existing


def open_partial(partial: Path, output: Path, manifest: Manifest) -> tuple[PackedFile, int]:
    """Return the unfinished file of the same plan, or a new one, and how many samples it already has."""
    if partial.exists():
        try:
            found = open_packed(partial)
        except DataError:
            found = None  # killed while the structure was being written
        if found is not None and found.manifest.to_bytes() == manifest.to_bytes():
            return found, int((found.states == PACKED).sum())
        partial.unlink()
    needed = sum(table.starts[-1] * table.dtype.itemsize for table in manifest.roles.values()) + 512 * len(manifest.names) + 1_000_000
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise DataError(
            f"{output.parent} has {free / 1e6:,.1f} MB free and the packed data need {needed / 1e6:,.1f} MB; free space or choose another "
            f"output=."
        )
    create_structure(partial, manifest)
    return open_packed(partial), 0


def create_structure(path: Path, manifest: Manifest) -> None:
    """Create the HDF5 file with all space laid out and nothing packed; equal manifests give equal bytes."""
    count = len(manifest.names)
    text = np.frombuffer(manifest.to_bytes(), np.uint8)
    with h5py.File(path, "w", alignment_threshold=4096, alignment_interval=4096) as file:
        file.attrs["format"] = FORMAT
        file.create_dataset("manifest", data=text)
        for name, shape in (("checksums", (count, CHECKSUM_BYTES)), ("states", (count,)), ("reasons", (count, REASON_BYTES))):
            _lay_out(file, name, shape, np.dtype(np.uint8), zeros=True)
        pixels = file.create_group("pixels")
        for role, table in manifest.roles.items():
            _lay_out(pixels, role, table.stored_shape, table.dtype, zeros=False)
            file.create_dataset(f"shapes/{role}", data=np.asarray(table.shapes, np.int64))
        file.create_dataset("names", data=list(manifest.names), dtype=h5py.string_dtype())
        for split, positions in manifest.splits.items():
            file.create_dataset(f"splits/{split}", data=np.asarray(positions, np.int64))


def write_samples(
    structure: PackedFile, samples: Sequence[tuple[ImageSource, int]], on_error: Literal["stop", "skip"], progress: Progress
) -> None:
    """Write every sample that the file does not have yet."""
    manifest, layout = structure.manifest, structure.layout
    starts = {role: table.starts for role, table in manifest.roles.items()}
    with structure.path.open("rb+", buffering=0) as file:

        def put(data: bytes | memoryview[Any], position: int) -> None:
            view = memoryview(data).cast("B")
            while view:  # a full disk may take a part of what it is given
                written = os.pwrite(file.fileno(), view, position)
                view, position = view[written:], position + written

        for row, (source, index) in enumerate(samples):
            if structure.states[row] == PACKED:
                progress(row + 1, len(samples))
                continue
            try:
                arrays = stored_arrays(source.raw(index), manifest, row)
            except DataError as error:
                if on_error == "stop":
                    raise _with_advice(error) from None
                put(str(error).encode()[:REASON_BYTES].ljust(REASON_BYTES, b"\0"), layout.reasons + row * REASON_BYTES)
                put(bytes([LEFT_OUT]), layout.states + row)
            else:
                for role, array in arrays.items():
                    put(array.data, layout.pixels[role] + starts[role][row] * array.itemsize)
                put(checksum(list(arrays.values())), layout.checksums + row * CHECKSUM_BYTES)
                put(b"\0" * REASON_BYTES, layout.reasons + row * REASON_BYTES)
                put(bytes([PACKED]), layout.states + row)
            progress(row + 1, len(samples))


def stored_arrays(raw: RawSample, manifest: Manifest, row: int) -> dict[str, NDArray[Any]]:
    """Return a sample's arrays in the types and shapes of the plan; raises DataError where they differ from it."""
    arrays = {}
    for role, table in manifest.roles.items():
        array = raw.arrays[role]
        if array.shape != table.shapes[row] or array.dtype.newbyteorder("<") != table.dtype:
            raise DataError(
                f"{raw.meta.name} ({role}) holds {array.dtype} values of shape {array.shape}, not {table.dtype} of {table.shapes[row]} as "
                f"the first image and its own header said; convert it."
            )
        arrays[role] = np.ascontiguousarray(array, table.dtype)
    return arrays


def verify(packed: PackedFile) -> None:
    """Read every packed sample back; raises DataError where one differs from what was written, after marking it as not packed."""
    wrong = damaged(packed)
    if wrong:
        with packed.path.open("rb+", buffering=0) as file:
            for row in wrong:
                os.pwrite(file.fileno(), bytes([TO_DO]), packed.layout.states + row)
        raise DataError(
            f"{packed.manifest.names[wrong[0]]} was not stored as it was written ({len(wrong)} such images: a failing disk or a crash); "
            f"repeat the same command, which packs them anew."
        )
    if not (packed.states == PACKED).any():
        raise DataError(f"not one image could be packed, e.g. {packed.manifest.names[0]}: {reasons(packed)[0][1]}")


def damaged(packed: PackedFile) -> list[int]:
    """Return the positions of packed samples whose pixels do not have the recorded checksum."""
    maps = packed.maps()
    starts = {role: table.starts for role, table in packed.manifest.roles.items()}

    def found(row: int) -> bytes:
        return checksum([maps[role][starts[role][row] : starts[role][row + 1]] for role in maps])

    rows = [int(row) for row in np.flatnonzero(packed.states == PACKED)]
    return [row for row in rows if found(row) != packed.checksums[row].tobytes()]


def reasons(packed: PackedFile) -> list[tuple[str, str]]:
    """Return (name, reason) of the samples that were left out."""
    with packed.path.open("rb") as file:
        found = []
        for row in np.flatnonzero(packed.states == LEFT_OUT):
            file.seek(packed.layout.reasons + int(row) * REASON_BYTES)
            found.append((packed.manifest.names[row], file.read(REASON_BYTES).rstrip(b"\0").decode(errors="ignore")))
    return found


def _with_advice(error: DataError) -> DataError:
    return DataError(f"{str(error).rstrip('.')}, or leave such images out with task.on_error=skip.")


def _lay_out(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], zeros: bool) -> None:
    """Create a contiguous array whose place in the file is fixed at once; `zeros`: fill it, else leave it to be written."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC if zeros else h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), properties)


def _report(packed: PackedFile, left_out: Mapping[str, str], resumed: int, was_done: bool) -> PrepareReport:
    manifest = packed.manifest
    main = "hr" if "hr" in manifest.roles else "lr"
    return PrepareReport(
        output=packed.path,
        images=int((packed.states == PACKED).sum()),
        splits={split: sum(int(packed.states[i]) == PACKED for i in rows) for split, rows in manifest.splits.items()},
        gives=tuple(manifest.roles),
        bands=manifest.roles[main].shapes[0][0],
        size_bytes=packed.path.stat().st_size,
        resumed=resumed,
        left_out=(*left_out.items(), *reasons(packed)),
        was_done=was_done,
    )


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """Say in one sentence what the file system refused."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full:
            raise DataError(f"the disk of {output} is full; free some space and repeat the same command, which continues.") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise DataError(f"{output.parent} cannot be written; choose another output= or change its permissions.") from None
        raise
