"""Training crops per second from a folder, from GeoTIFF and packed, beside what others read: OpenCV, torchvision, LMDB.

`make benchmark` prints crops per processor second and the ratios. The same images lie in every store; as many crops of the same places are
read. Where a library is not installed, its comparison is skipped and says so; the stand-in of LMDB keeps encoded PNGs in one file that is
mapped into memory, with an index: LMDB's own tree only adds to that.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from rsdiff.data import FolderDataset, PackedDataset, SyntheticDataset
from rsdiff.data.open_files import BLOCKS
from rsdiff.data.source import ImageSource, Window
from rsdiff.tasks.prepare import prepare
from tests.benchmarks.ratios import Table, one_thread, seconds_of

COUNT, SIDE, CROP = 16, 600, 96
TIMES = (1, 10)
"""Files in a store, as multiples of COUNT: a store must not become slow with their number."""
Crops = Callable[[], None]


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    """Generated scenes (H, W, 3)."""
    source = SyntheticDataset(size=SIDE, train_images=COUNT, second_date=False).build("train", 1.0)
    return [np.ascontiguousarray(source.raw(index).arrays["hr"].transpose(1, 2, 0)) for index in range(COUNT)]


def place(index: int) -> tuple[int, int]:
    """Return (top, left) of the crop of an image."""
    return 37 * index % (SIDE - CROP), 61 * index % (SIDE - CROP)


def stored(images: list[NDArray[np.uint8]], folder: Path, ending: str, times: int = 1) -> list[Path]:
    """Write every image `times` times as files of one format."""
    paths = []
    for number in range(COUNT * times):
        path = folder / f"{number:05d}.{ending}"
        if number >= COUNT:
            path.hardlink_to(paths[number % COUNT])
        elif ending == "tif":
            form = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8", "tiled": True, "blockxsize": 256}
            with rasterio.open(path, "w", blockysize=256, compress="deflate", **form) as file:
                file.write(images[number].transpose(2, 0, 1))
        else:
            Image.fromarray(images[number]).save(path, quality=95)
        paths.append(path)
    return paths


def ours(source: ImageSource, count: int = COUNT) -> Crops:
    def read() -> None:
        for index in range(count):
            source.read(index, Window(*place(index), CROP, CROP))

    return read


def by_opencv(paths: list[Path]) -> Crops:
    """Return how BasicSR's folders are read: decoded whole, as float32 in [0, 1], RGB, then cut."""

    def read() -> None:
        for index, path in enumerate(paths[:COUNT]):
            image = cv2.imread(str(path)).astype(np.float32)[..., ::-1] / 255
            top, left = place(index)
            np.ascontiguousarray(image[top : top + CROP, left : left + CROP].transpose(2, 0, 1))

    return read


def by_torchvision(paths: list[Path]) -> Crops:
    transforms = pytest.importorskip("torchvision.transforms.functional")

    def read() -> None:
        for index, path in enumerate(paths[:COUNT]):
            with Image.open(path) as image:
                transforms.to_tensor(transforms.crop(image.convert("RGB"), *place(index), CROP, CROP))

    return read


def by_rasterio(paths: list[Path]) -> Crops:
    """Return how torchgeo's samplers read: a window of every file by GDAL."""

    def read() -> None:
        for index, path in enumerate(paths):
            top, left = place(index)
            with rasterio.open(path) as file:
                file.read(window=rasterio.windows.Window(left, top, CROP, CROP)).astype(np.float32) / 255

    return read


def from_lmdb(paths: list[Path], folder: Path) -> tuple[str, Crops]:
    """Return a name and how BasicSR's LMDB is read: encoded PNGs by key, decoded whole, then cut."""
    encoded = [path.read_bytes() for path in paths[:COUNT]]

    def cut(index: int, data: bytes) -> None:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(np.float32)[..., ::-1] / 255
        top, left = place(index)
        np.ascontiguousarray(image[top : top + CROP, left : left + CROP].transpose(2, 0, 1))

    try:
        import lmdb
    except ImportError:
        ends = np.cumsum([0, *map(len, encoded)])
        (folder / "images").write_bytes(b"".join(encoded))
        with (folder / "images").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return "PNGs in a mapped file", lambda: [cut(i, mapped[ends[i] : ends[i + 1]]) for i in range(COUNT)] and None
    store = lmdb.open(str(folder / "images.lmdb"), map_size=2**30)
    with store.begin(write=True) as transaction:
        for index, data in enumerate(encoded):
            transaction.put(f"{index}".encode(), data)

    def read() -> None:
        with store.begin() as transaction:
            for index in range(COUNT):
                cut(index, transaction.get(f"{index}".encode()))

    return "LMDB of PNGs", read


def add(table: Table, what: str, against: str, work: Crops, baseline: Crops, count: int = COUNT) -> None:
    """Add the ratio, and the crops that each reads in a processor second."""
    ratio = table.compare(what, against, work, baseline)
    with one_thread():
        best = min(seconds_of(work) for _ in range(3))
    table.note(f"{what}, crops per CPU second", f"{count / best:.0f}", f"{against}: {count / best * ratio:.0f}")


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_crops_of_a_folder(table: Table, images: list[NDArray[np.uint8]], tmp_path: Path, ending: str, times: int) -> None:
    paths = stored(images, tmp_path, ending, times)
    read = ours(FolderDataset(root=str(tmp_path), split="all").build("train", 1.0))
    what = f"16 crops of {CROP}, {len(paths)} {ending} of {SIDE}"
    add(table, what, "OpenCV", read, by_opencv(paths))
    add(table, what, "Pillow and torchvision's ImageFolder", read, by_torchvision(paths))


@pytest.mark.parametrize("times", TIMES)
def test_crops_of_geotiffs(table: Table, images: list[NDArray[np.uint8]], tmp_path: Path, times: int) -> None:
    """All files in turn: few stay open (`rsdiff.data.open_files`), of many each is opened anew; ours as in a worker of a loader."""
    paths = stored(images, tmp_path, "tif", times)
    crops = ours(FolderDataset(root=str(tmp_path), split="all").build("train", 1.0), len(paths))

    def read() -> None:
        with rasterio.Env(GDAL_CACHEMAX=BLOCKS):
            crops()

    what = f"{len(paths)} crops of {CROP}, {len(paths)} tiled GeoTIFFs of {SIDE}"
    add(table, what, "windows by rasterio, opened each time", read, by_rasterio(paths), len(paths))


@pytest.mark.parametrize("times", TIMES)
def test_crops_of_a_packed_file(table: Table, images: list[NDArray[np.uint8]], tmp_path: Path, times: int) -> None:
    (tmp_path / "png").mkdir()
    paths = stored(images, tmp_path / "png", "png", times)
    prepare(FolderDataset(root=str(tmp_path / "png"), split="all"), tmp_path / "packed.h5", "stop", lambda _done, _total: None)
    read = ours(PackedDataset(file=str(tmp_path / "packed.h5")).build("train", 1.0))
    name, lmdb = from_lmdb(paths, tmp_path)
    add(table, f"16 crops of {CROP}, {len(paths)} packed images of {SIDE}", name, read, lmdb)
