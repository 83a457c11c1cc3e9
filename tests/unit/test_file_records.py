"""What is remembered of image files: content decides, and only a first look opens them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsdiff.data import FolderDataset, file_records
from rsdiff.data.file_records import FileRecords, states_of
from rsdiff.data.files import list_images
from rsdiff.data.rasters import raster_info
from rsdiff.data.source import DataError, ImageSource


def picture(path: Path, seed: int, side: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)).save(path)
    return path


def age(folder: Path) -> None:
    """Make files old enough to be remembered: one that changed a moment ago may change again within a tick of the clock."""
    old = time.time() - 100
    for path in folder.rglob("*"):
        os.utime(path, (old, old))
    time.sleep(0.01)


def opened(root: Path) -> ImageSource:
    return FolderDataset(root=str(root), split="all").build("train", 1.0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(6):
        picture(tmp_path / "images" / f"{number}.png", number)
    age(tmp_path)
    return tmp_path / "images"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_records, "_SETTLED_NS", 0)


def test_a_copy_elsewhere_with_other_times_is_the_same_data(images: Path, tmp_path: Path) -> None:
    before = opened(images).fingerprint()
    shutil.copytree(images, tmp_path / "elsewhere")
    age(tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere").fingerprint() == before


@pytest.mark.parametrize("change", ["content", "name", "removed", "added"])
def test_other_data_are_known_by_their_content(images: Path, change: str, settled: None) -> None:
    before = opened(images).fingerprint()
    times = (images / "0.png").stat()
    if change == "content":
        picture(images / "0.png", 99)
        os.utime(images / "0.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "name":
        (images / "0.png").rename(images / "zero.png")
    elif change == "removed":
        (images / "0.png").unlink()
    else:
        picture(images / "7.png", 7)
    assert opened(images).fingerprint() != before


def test_a_second_look_opens_no_file(images: Path, settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(images)
    before = first.fingerprint()

    def forbidden(*_: object) -> None:
        raise AssertionError("a file was opened again")

    monkeypatch.setattr("rsdiff.data.scanning.raster_info", forbidden)
    monkeypatch.setattr(file_records, "content_digest", forbidden)
    again = opened(images)
    assert again.fingerprint() == before
    assert [again.size(i) for i in range(len(again))] == [first.size(i) for i in range(len(first))]
    picture(images / "3.png", 33)
    with pytest.raises(AssertionError):
        opened(images)


def test_a_file_beside_an_image_renews_its_header(images: Path, settled: None) -> None:
    path = images / "0.png"
    before = states_of([path])[path]
    (images / "0.pgw").write_text("1\n0\n0\n-1\n0\n0\n")
    assert states_of([path])[path] != before
    assert states_of([path])[path][:4] == before[:4]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"reader": "x"}', b'{"reader": 1, "headers": 3, "files": []}'])
def test_damaged_records_are_made_anew(images: Path, settled: None, damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSDIFF_CACHE", str(tmp_path / "cache"))
    before = opened(images).fingerprint()
    (record,) = (tmp_path / "cache" / "files").iterdir()
    record.write_bytes(damage)
    assert opened(images).fingerprint() == before


def test_a_cache_that_cannot_be_written_is_no_error(images: Path, settled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RSDIFF_CACHE", str(tmp_path / "file"))
    assert opened(images).fingerprint() == opened(images).fingerprint()


def test_linked_folders_are_read_and_loops_of_links_end(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "b.png", 0)
    picture(tmp_path / "root" / "real" / "a.png", 1)
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "real" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    found = [path.relative_to(tmp_path / "root").as_posix() for path in list_images(tmp_path / "root", ["png"])]
    assert found == ["linked/b.png", "real/a.png"]


def test_a_file_that_is_gone_is_named(images: Path) -> None:
    path = images / "0.png"
    path.unlink()
    with pytest.raises(DataError, match=r"0\.png does not exist"):
        states_of([path])


def test_touching_a_file_while_it_is_used_changes_nothing_and_replacing_it_does(images: Path) -> None:
    source = opened(images)
    source.fingerprint()
    os.utime(images / "0.png")
    source.raw(0)
    picture(images / "0.png", 99)
    with pytest.raises(DataError, match=r"0\.png changed since this run began"):
        source.raw(0)


def test_headers_come_back_as_they_were_read(images: Path, settled: None) -> None:
    path = images / "0.png"
    first = FileRecords([path])
    info = first.header(path, False, "", raster_info)
    first.save()
    assert FileRecords([path]).header(path, False, "", lambda *_: pytest.fail("read again")) == info


def test_two_splits_that_were_opened_before_either_was_saved_are_both_remembered(images: Path, settled: None) -> None:
    paths = list_images(images, ("png",))
    first, second = FileRecords(paths), FileRecords(paths)
    read = {0: first.digests(paths[:3]), 1: second.digests(paths[3:])}
    first.header(paths[0], False, "", raster_info)
    first.save()
    second.header(paths[4], False, "", raster_info)
    second.save()
    third = FileRecords(paths)
    assert [third.knows(path, False, "") for path in paths] == [True, False, False, False, True, False]
    for path in paths:  # other bytes behind the same times: only what is remembered can tell the former digest
        state = path.stat()
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    third.states = first.states
    assert third.digests(paths) == read[0] | read[1]
