"""Reading training crops from a packed file, against decoding them from the folder it was made of.

`pytest tests/benchmarks/test_packed.py -p no:xdist` shows both in one table; the ratio also stands in the packed row's extra_info.
"""

import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from rsdiff.data import FolderDataset, PackedDataset, SyntheticDataset
from rsdiff.data.source import ImageSource, Window
from rsdiff.tasks.prepare import prepare

COUNT, SIDE, CROP = 24, 512, 128
ENDINGS = ("png", "jpg", "tif")


def read_crops(source: ImageSource) -> None:
    for index in range(len(source)):
        source.read(index, Window(64 + index, 32 + index, CROP, CROP))


def seconds(work: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.fixture(scope="module", params=ENDINGS)
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSource, ImageSource]:
    """The same images as files of one format, and packed."""
    place: Path = tmp_path_factory.mktemp(request.param)
    scenes = SyntheticDataset(size=SIDE, train_images=COUNT, second_date=False).build("train", 1.0)
    for index in range(COUNT):
        Image.fromarray(scenes.raw(index).arrays["hr"].transpose(1, 2, 0)).save(place / f"{index:03d}.{request.param}")
    folder = FolderDataset(root=str(place), split="all")
    prepare(folder, place / "packed.h5", "stop", lambda _done, _total: None)
    return folder.build("train", 1.0), PackedDataset(file=str(place / "packed.h5")).build("train", 1.0)


def test_crops_from_the_folder(benchmark, sources):
    benchmark(read_crops, sources[0])


def test_crops_from_the_packed_file(benchmark, sources):
    benchmark.extra_info["times_faster_than_the_folder"] = round(
        seconds(lambda: read_crops(sources[0])) / seconds(lambda: read_crops(sources[1])), 1
    )
    benchmark(read_crops, sources[1])


@pytest.mark.parametrize("way", ["packed", "h5py", "npy"])
def test_pixels_of_a_crop_by_the_memory_map_by_h5py_and_from_npy(benchmark, tmp_path, way):
    """Why packed files are HDF5 read through a memory map: what any tool opens, at the speed of .npy files; h5py takes twice as long.

    `python -m tests.benchmarks.test_packed` gives the ratios in one process, interleaved. `packed` also checks windows and gives metadata.
    """
    benchmark(ways_to_read(tmp_path)[way])


def ways_to_read(folder: Path) -> dict[str, Callable[[], None]]:
    """Return three functions that copy the same COUNT crops: of the packed file as it is read, by h5py, of an .npy file."""
    scenes = SyntheticDataset(size=SIDE, train_images=COUNT, second_date=False)
    prepare(scenes, folder / "packed.h5", "stop", lambda _done, _total: None)
    packed = PackedDataset(file=str(folder / "packed.h5")).build("train", 1.0)
    array = h5py.File(folder / "packed.h5", "r")["pixels/hr"]
    np.save(folder / "pixels.npy", array[...])
    mapped = np.load(folder / "pixels.npy", mmap_mode="r")
    rows = range(len(packed))

    def by_packed() -> None:
        for row in rows:
            packed.raw(row, Window(64 + row, 32 + row, 96, 96))

    def by_h5py() -> None:
        for row in rows:
            array[row, :, 64 + row : 160 + row, 32 + row : 128 + row]

    def by_npy() -> None:
        for row in rows:
            np.array(mapped[row, :, 64 + row : 160 + row, 32 + row : 128 + row])

    return {"packed": by_packed, "h5py": by_h5py, "npy": by_npy}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        ways = ways_to_read(Path(place))
        spent = dict.fromkeys(ways, 0.0)
        for _ in range(200):
            for name, work in ways.items():
                begin = time.process_time()
                work()
                spent[name] += time.process_time() - begin
        for name, taken in spent.items():
            print(f"{name:8} {200 * COUNT / taken:8.0f} crops per processor second, {taken / spent['npy']:.2f} x npy")
