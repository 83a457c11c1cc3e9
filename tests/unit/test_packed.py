"""Packed data sets: what goes in comes out, interruptions do not show, and damaged or hostile files are refused."""

import errno
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rsdiff.data import FolderDataset, PackedDataset, PairedDataset, SyntheticDataset
from rsdiff.data.packed import PackedSource, open_packed
from rsdiff.data.source import DataError, ImageSource, Window
from rsdiff.tasks.prepare import prepare, read_from, told
from tests.unit.test_files import broken_jpeg, folder_of, one_sentence, pairs, pixels, write_png, write_tiff

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of rasterio's own transforms


def silent(_done: int, _total: int) -> None:
    """No progress is shown."""


def small_scenes(**options: Any) -> SyntheticDataset:
    return SyntheticDataset(size=32, train_images=3, test_images=2, cache_mb=0, **options)


def assert_same(one: ImageSource, other: ImageSource) -> None:
    assert (len(one), one.gives, one.bands, one.lr_bands) == (len(other), other.gives, other.bands, other.lr_bands)
    assert (one.normaliser, one.lr_normaliser, one.wavelengths) == (other.normaliser, other.lr_normaliser, other.wavelengths)
    for i in range(len(one)):
        assert one.size(i) == other.size(i)
        H, W = one.size(i)
        for window in (None, Window(2, 4, H - 6, W - 8)):
            a, b = one.raw(i, window), other.raw(i, window)
            assert a.meta == b.meta
            assert set(a.arrays) == set(b.arrays)
            for role, array in a.arrays.items():
                assert array.dtype == b.arrays[role].dtype
                np.testing.assert_array_equal(array, b.arrays[role])


@pytest.mark.parametrize("bands", [1, 3, 7])
def test_generated_scenes_come_back_as_they_went_in(tmp_path: Path, bands: int):
    data = small_scenes(bands=bands)
    report = prepare(data, tmp_path / "a.h5", "stop", silent)
    assert (report.images, report.splits, report.bands) == (5, {"train": 3, "test": 2}, bands)
    packed = PackedDataset(file=str(tmp_path / "a.h5"))
    assert packed.gives == data.gives
    for split in ("train", "test"):
        assert_same(data.build(split, 2.0), packed.build(split, 2.0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_every_type_georeference_and_odd_size_comes_back(tmp_path: Path, dtype: str):
    for i, size in enumerate([(20, 31), (17, 25), (40, 13)]):
        write_tiff(tmp_path / "in" / "class" / f"{i}.tif", pixels(4, *size, dtype), nodata=0)
    data = FolderDataset(root=str(tmp_path / "in"), split="all", wavelengths=(490.0, 560.0, 665.0, 842.0))
    prepare(data, tmp_path / "a.h5", "stop", silent)
    assert_same(data.build("train", 1.0), PackedDataset(file=str(tmp_path / "a.h5")).build("test", 1.0))


def test_pairs_come_back_at_their_scale_only(tmp_path: Path):
    data = PairedDataset(root=str(pairs(tmp_path / "in", 2, sizes=(25, 33))), split="all")
    prepare(data, tmp_path / "a.h5", "stop", silent, scale=2.0)
    packed = PackedDataset(file=str(tmp_path / "a.h5"))
    assert_same(data.build("train", 2.0), packed.build("train", 2.0))
    with pytest.raises(DataError, match=r"holds LR images at scale=2 and the run has scale=4; set scale=2"):
        packed.build("train", 4.0)


def test_inputs_without_targets_come_back_at_any_scale(tmp_path: Path):
    data = FolderDataset(root=str(folder_of(tmp_path / "in", 3)), images_are="lr", split="all")
    prepare(data, tmp_path / "a.h5", "stop", silent)
    assert_same(data.build("test", 4.0), PackedDataset(file=str(tmp_path / "a.h5")).build("test", 4.0))


def test_a_packed_file_stands_for_the_folder_it_was_made_of(tmp_path: Path):
    data = FolderDataset(root=str(folder_of(tmp_path / "in")))
    prepare(data, tmp_path / "a.h5", "stop", silent)
    again = read_from(data, tmp_path / "a.h5")
    again.check()
    assert_same(data.build("test", 1.0), again.build("test", 1.0))
    assert len(FolderDataset(root=str(tmp_path / "a.h5"), limit=5).build("train", 1.0)) == 5


def test_equal_data_give_equal_bytes_and_are_not_packed_twice(tmp_path: Path):
    data = small_scenes()
    prepare(data, tmp_path / "a.h5", "stop", silent)
    prepare(data, tmp_path / "b.h5", "stop", silent)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    before = (tmp_path / "a.h5").stat().st_mtime_ns
    again = prepare(data, tmp_path / "a.h5", "stop", silent)
    assert again.was_done
    assert "already holds" in told(again)[0]
    assert (tmp_path / "a.h5").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"a.h5 exists and holds other data .*; delete it or choose another output=") as error:
        prepare(small_scenes(seed=1), tmp_path / "a.h5", "stop", silent)
    one_sentence(error)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done == count:
            raise Killed

    return progress


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_killed_preparation_continues_and_ends_with_the_same_bytes(tmp_path: Path, count: int):
    data = small_scenes()
    prepare(data, tmp_path / "whole.h5", "stop", silent)
    with pytest.raises(Killed):
        prepare(data, tmp_path / "a.h5", "stop", killed_after(count))
    assert not (tmp_path / "a.h5").exists()
    report = prepare(data, tmp_path / "a.h5", "stop", silent)
    assert report.resumed == count
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_preparation_killed_by_the_system_continues(tmp_path: Path):
    def work() -> None:
        prepare(small_scenes(), tmp_path / "a.h5", "stop", lambda done, _total: os.kill(os.getpid(), 9) if done == 2 else None)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert prepare(small_scenes(), tmp_path / "a.h5", "stop", silent).resumed == 2


def test_a_partial_file_of_other_data_or_with_a_broken_structure_is_started_anew(tmp_path: Path):
    with pytest.raises(Killed):
        prepare(small_scenes(seed=9), tmp_path / "a.h5", "stop", killed_after(2))
    assert prepare(small_scenes(), tmp_path / "a.h5", "stop", silent).resumed == 0
    (tmp_path / "b.h5.partial").write_bytes(b"killed while the structure was written")
    assert prepare(small_scenes(), tmp_path / "b.h5", "stop", silent).images == 5


def test_pixels_that_change_on_the_way_to_the_disk_are_found(tmp_path: Path):
    data = small_scenes()
    with pytest.raises(Killed):
        prepare(data, tmp_path / "a.h5", "stop", killed_after(5))
    partial = tmp_path / "a.h5.partial"
    structure = open_packed(partial)
    with partial.open("rb+") as file:
        os.pwrite(file.fileno(), b"\x01\x02\x03\x04", structure.layout.pixels["hr"] + 5)
    with pytest.raises(DataError, match=r"train_00000 was not stored as it was written .*repeat the same command") as error:
        prepare(data, tmp_path / "a.h5", "stop", silent)
    one_sentence(error)
    assert prepare(data, tmp_path / "a.h5", "stop", silent).resumed == 4


def test_an_unreadable_image_stops_or_is_left_out_as_told(tmp_path: Path):
    broken_jpeg(folder_of(tmp_path / "in", 6) / "broken.jpg")
    data = FolderDataset(root=str(tmp_path / "in"), split="all")
    with pytest.raises(DataError, match=r"broken.jpg is truncated or damaged .*task.on_error=skip") as error:
        prepare(data, tmp_path / "a.h5", "stop", silent)
    one_sentence(error)
    write_png(tmp_path / "in" / "odd.png", pixels(1, 40, 40))
    report = prepare(data, tmp_path / "a.h5", "skip", silent)
    assert report.images == 6
    assert sorted(name for name, _ in report.left_out) == ["broken", "odd"]
    assert any("broken: " in line and "truncated" in line for line in told(report))
    assert len(PackedDataset(file=str(tmp_path / "a.h5")).build("train", 1.0)) == 6


def test_a_full_disk_is_one_sentence_and_the_preparation_continues_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written, pwrite = [0], os.pwrite

    def full_after_two(file: int, data: Any, position: int) -> int:
        written[0] += len(data)
        if written[0] > 12_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, data, position)

    monkeypatch.setattr(os, "pwrite", full_after_two)
    with pytest.raises(DataError, match=r"the disk of .*a.h5 is full; free some space and repeat the same command") as error:
        prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    one_sentence(error)
    monkeypatch.undo()
    assert prepare(small_scenes(), tmp_path / "a.h5", "stop", silent).resumed > 0


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"has 0.0 MB free and the packed data need .* free space or choose another output=") as error:
        prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    one_sentence(error)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("rsdiff.data.packing.create_structure", refuse)
    with pytest.raises(DataError, match="cannot be written; choose another output=") as error:
        prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    one_sentence(error)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])  # spawned workers import everything anew
def test_workers_read_what_the_parent_reads(tmp_path: Path, method: str):
    prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    source = PackedDataset(file=str(tmp_path / "a.h5")).build("train", 1.0)
    expected = source.raw(1).arrays["hr"]  # the parent's map is open before the worker starts
    assert len(pickle.dumps(source)) < 20_000
    with multiprocessing.get_context(method).Pool(2) as pool:
        for sample in pool.map(source.raw, [1, 1, 1]):
            np.testing.assert_array_equal(sample.arrays["hr"], expected)


def test_the_fingerprint_is_that_of_the_pixels(tmp_path: Path):
    prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    prepare(small_scenes(seed=1), tmp_path / "b.h5", "stop", silent)
    first = PackedSource(tmp_path / "a.h5", "train", 1.0).fingerprint()
    (tmp_path / "a.h5").rename(tmp_path / "c.h5")
    assert PackedSource(tmp_path / "c.h5", "train", 1.0).fingerprint() == first
    assert PackedSource(tmp_path / "b.h5", "train", 1.0).fingerprint() != first


def edited_manifest(edit: Callable[[dict[str, Any]], None]) -> Callable[[h5py.File], None]:
    def harm(file: h5py.File) -> None:
        values = json.loads(file["manifest"][...].tobytes())
        edit(values)
        del file["manifest"]
        file["manifest"] = np.frombuffer(json.dumps(values).encode(), np.uint8)

    return harm


def replaced(name: str, make: Callable[[h5py.File], Any]) -> Callable[[h5py.File], None]:
    def harm(file: h5py.File) -> None:
        value = make(file)
        del file[name]
        file[name] = value

    return harm


HARM: dict[str, Callable[[h5py.File], None]] = {
    "an external link": replaced("pixels/hr", lambda _file: h5py.ExternalLink("/etc/passwd", "/x")),
    "a soft link": replaced("pixels/hr", lambda _file: h5py.SoftLink("/pixels/ref")),
    "another type": replaced("states", lambda file: file["states"][...].astype("float32")),
    "another length": replaced("checksums", lambda file: file["checksums"][:-1]),
    "a group for an array": lambda file: (file.__delitem__("reasons"), file.create_group("reasons"))[0],
    "no manifest": lambda file: file.__delitem__("manifest"),
    "huge shapes": edited_manifest(lambda v: v["roles"]["hr"]["shapes"].__setitem__(0, [3, 2**40, 2**40])),
    "negative shapes": edited_manifest(lambda v: v["roles"]["hr"]["shapes"].__setitem__(0, [3, -32, -32])),
    "an object type": edited_manifest(lambda v: v["roles"]["hr"].__setitem__("dtype", "|O")),
    "an unknown role": edited_manifest(lambda v: v["roles"].__setitem__("extra", v["roles"]["hr"])),
    "a name that leads out": edited_manifest(lambda v: v["names"].__setitem__(0, "../../home")),
    "an absolute name": edited_manifest(lambda v: v["names"].__setitem__(0, "/etc/passwd")),
    "positions beyond the end": edited_manifest(lambda v: v["splits"].__setitem__("train", [99])),
    "a normaliser of nonsense": edited_manifest(lambda v: v["normaliser"].__setitem__("high", [0.0])),
    "a manifest that is no JSON": replaced("manifest", lambda _file: np.frombuffer(b"{{{{", np.uint8)),
    "deep nesting": replaced("manifest", lambda _file: np.frombuffer(b"[" * 200_000, np.uint8)),
    "another format": lambda file: file.attrs.__setitem__("format", "something else"),
}


@pytest.mark.parametrize("harm", HARM)
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, harm: str):
    path = tmp_path / "a.h5"
    prepare(small_scenes(), path, "stop", silent)
    with h5py.File(path, "r+") as file:
        HARM[harm](file)
    with pytest.raises(DataError) as error:
        PackedDataset(file=str(path)).check()
    assert "task=prepare" in one_sentence(error)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_files_that_end_early_are_refused(tmp_path: Path, keep: float):
    path = tmp_path / "a.h5"
    prepare(small_scenes(), path, "stop", silent)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError) as error:
        PackedDataset(file=str(path)).build("train", 1.0)
    one_sentence(error)


def test_unfinished_and_missing_files_say_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match=r"dataset.file is not given"):
        PackedDataset().check()
    with pytest.raises(DataError, match=r"does not exist; make it with task=prepare"):
        PackedDataset(file=str(tmp_path / "a.h5")).check()
    with pytest.raises(Killed):
        prepare(small_scenes(), tmp_path / "a.h5", "stop", killed_after(2))
    with pytest.raises(DataError, match=r"is not finished; repeat the task=prepare command"):
        PackedDataset(file=str(tmp_path / "a.h5.partial")).build("train", 1.0)


def test_what_is_packed_already_is_not_packed_again(tmp_path: Path):
    prepare(small_scenes(), tmp_path / "a.h5", "stop", silent)
    for data in (PackedDataset(file=str(tmp_path / "a.h5")), FolderDataset(root=str(tmp_path / "a.h5"))):
        with pytest.raises(DataError, match="packed already"):
            prepare(data, tmp_path / "b.h5", "stop", silent)


@pytest.mark.parametrize("alike", [True, False])
def test_any_hdf5_tool_finds_the_images(tmp_path: Path, alike: bool) -> None:
    folder_of(tmp_path / "in", 3)
    if not alike:
        write_png(tmp_path / "in" / "wide.png", pixels(3, 9, 31))
    data = FolderDataset(root=str(tmp_path / "in"), split="all")
    source = data.build("train", 1.0)
    prepare(data, tmp_path / "out.h5", "stop", lambda done, total: None)
    with h5py.File(tmp_path / "out.h5", "r") as file:
        names = [name.decode() for name in file["names"]]
        assert [names[position] for position in file["splits/train"]] == [source.name(i) for i in range(len(source))]
        shapes, values = file["shapes/hr"][...], file["pixels/hr"]
        assert (values.ndim == 4) == alike
        starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
        for index, shape in enumerate(shapes):
            image = values[index] if alike else values[starts[index] : starts[index + 1]].reshape(shape)
            assert (image == source.raw(names.index(names[index])).arrays["hr"]).all()
