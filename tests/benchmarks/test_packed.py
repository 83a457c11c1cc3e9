"""Reading training crops from a packed file, against decoding them from the folder it was made of.

`pytest tests/benchmarks/test_packed.py -p no:xdist` shows both in one table; the ratio also stands in the packed row's extra_info.
"""

import time
from collections.abc import Callable
from pathlib import Path

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
