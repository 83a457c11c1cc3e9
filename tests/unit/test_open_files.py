"""GeoTIFFs stay open between reads: with the pixels that a reader has that opens them each time, and no longer than they may."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from rsdiff.data import FolderDataset
from rsdiff.data.file_records import own_state
from rsdiff.data.open_files import Key, OpenFiles, open_files
from rsdiff.data.rasters import Raster, read_raster
from rsdiff.data.source import DataError, Window
from tests.scene_methods import landscape, write_raster

PARTS = [Window(3, 5, 17, 20), Window(0, 0, 40, 50), Window(3, 5, 17, 20)]


def with_mask(path: Path) -> None:
    write_raster(path, landscape(3, 40, 50))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(40, 50) == 0)


def turned(path: Path) -> None:
    Image.fromarray(landscape(3, 50, 40).transpose(1, 2, 0)).save(path, tiffinfo={274: 6})


def with_palette(path: Path) -> None:
    image = Image.fromarray(landscape(1, 40, 50)[0] % 8, mode="P")
    image.putpalette(list(range(24)))
    image.save(path)


FILES: dict[str, Callable[[Path], Any]] = {
    "8 bits": lambda path: write_raster(path, landscape(3, 40, 50)),
    "13 bands": lambda path: write_raster(path, landscape(13, 40, 50, "uint16"), tiled=True, blockxsize=16, blockysize=16),
    "nodata": lambda path: write_raster(path, landscape(2, 40, 50) // 64, nodata=1),
    "real numbers": lambda path: write_raster(path, np.where(landscape(1, 40, 50) < 99, np.nan, 1).astype(np.float32), crs=None),
    "alpha": lambda path: write_raster(path, landscape(4, 40, 50) // 64, photometric="rgb", alpha="yes"),
    "mask": with_mask,
    "palette": with_palette,
    "orientation": turned,
}


def read(pool: OpenFiles, path: Path, window: Window = PARTS[0], as_codes: bool = False, bands: tuple[int, ...] = ()) -> Raster:
    key: Key = (path, as_codes, "")
    return pool.read(key, own_state(path), window, bands)


def require_equal(found: Raster, wanted: Raster) -> None:
    np.testing.assert_array_equal(found.values, wanted.values)
    assert found.values.dtype == wanted.values.dtype
    assert (found.valid is None) == (wanted.valid is None)
    if found.valid is not None and wanted.valid is not None:
        np.testing.assert_array_equal(found.valid, wanted.valid)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_stays_open_gives_the_pixels_of_one_that_is_opened_each_time(tmp_path: Path, kind: str) -> None:
    FILES[kind](tmp_path / "image.tif")
    pool = OpenFiles(1)
    for limit in (1, 0):  # with 0 only its header is remembered
        pool._limit = limit
        for window in PARTS:
            for as_codes in (False, True):
                require_equal(read(pool, tmp_path / "image.tif", window, as_codes), read_raster(tmp_path / "image.tif", window, as_codes))
        assert len(pool.paths) == limit


def test_few_files_stay_open_those_read_last(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{number}.tif", landscape(1, 40, 50, seed=number)) for number in range(5)]
    pool = OpenFiles(2)
    for path in [*paths, paths[3]]:
        require_equal(read(pool, path), read_raster(path, PARTS[0]))
    assert pool.paths == [paths[4], paths[3]]
    (tmp_path / "broken.tif").write_bytes(paths[0].read_bytes()[:90])
    with pytest.raises(DataError, match="damaged"):
        read(pool, tmp_path / "broken.tif")
    picture = tmp_path / "picture.png"
    Image.fromarray(landscape(3, 40, 50).transpose(1, 2, 0)).save(picture)
    require_equal(read(pool, picture), read_raster(picture, PARTS[0]))
    assert picture not in pool.paths


def test_a_file_in_the_place_of_another_is_read_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    first, other = (write_raster(tmp_path / name, landscape(1, 40, 50, seed=seed)) for seed, name in enumerate(("a.tif", "b.tif")))
    pool = OpenFiles(2)
    read(pool, first)
    wanted = read_raster(other, PARTS[0])
    other.replace(first)
    require_equal(read(pool, first), wanted)
    source = FolderDataset(root=str(tmp_path), split="all").build("train", 1.0)
    source.fingerprint()
    before = source.raw(0).arrays["hr"]
    os.utime(first, (1, 1))  # copied anew: the same pixels
    np.testing.assert_array_equal(source.raw(0).arrays["hr"], before)
    write_raster(first, landscape(1, 40, 50, seed=9))
    with pytest.raises(DataError, match="changed since this run began"):
        source.raw(0)
    first.unlink()
    with pytest.raises(DataError, match="put it back"):
        source.raw(0)


def test_a_data_set_that_is_dropped_leaves_no_file_open(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", landscape(1, 40, 50))
    source = FolderDataset(root=str(tmp_path), split="all").build("train", 1.0)
    source.raw(0)
    assert path in open_files().paths
    del source
    gc.collect()
    assert path not in open_files().paths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_is_forked_opens_files_for_itself(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", landscape(3, 40, 50))
    wanted = read_raster(path, PARTS[0]).values
    np.testing.assert_array_equal(read(open_files(), path).values, wanted)
    with multiprocessing.get_context("fork").Pool(1) as workers:
        assert open_files().paths == []
        np.testing.assert_array_equal(workers.apply(read_here, [path]), wanted)
        np.testing.assert_array_equal(read(open_files(), path).values, wanted)
    assert not rasterio.env.hasenv()
    open_files().close([path])


def read_here(path: Path) -> Any:
    assert open_files().paths == []
    values = read(open_files(), path).values
    assert rasterio.env.hasenv()  # a worker stays in it
    return values


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not limited here")
def test_a_process_without_descriptors_closes_what_it_keeps_open(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{number}.tif", landscape(1, 40, 50, seed=number)) for number in range(4)]
    pool = OpenFiles(8)
    for path in paths[:3]:
        read(pool, path)
    wanted = read_raster(paths[3], PARTS[0])
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free: none is left below the limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        require_equal(read(pool, paths[3]), wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(free)
    assert pool.paths == paths[3:]
