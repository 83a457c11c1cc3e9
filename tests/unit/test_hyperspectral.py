"""Cubes in every usual container, one scene in two regions, and the degradations and normalisers of spectral super-resolution."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
import torch

from rsdiff.data.hyperspectral import HyperspectralDataset
from rsdiff.data.normalisation import as_integers
from rsdiff.data.opening import without_warnings
from rsdiff.data.source import DataError, ImageSource
from rsdiff.degradations.bands import BandsConfig
from rsdiff.degradations.spectral_response import SrfConfig

CUBE = np.random.default_rng(0).integers(1, 4000, (6, 9, 12)).astype(np.uint16)


def write_raster(path: Path, driver: str, **options: str) -> None:
    bands, height, width = CUBE.shape
    with (
        without_warnings(),
        rasterio.open(path, "w", driver=driver, count=bands, height=height, width=width, dtype="uint16", **options) as file,
    ):
        file.write(CUBE)


def write_matlab73(path: Path) -> None:
    """As MATLAB does: HDF5 behind a block of 512 bytes that names the format, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["scene"] = CUBE.transpose(0, 2, 1)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["swath/radiance"] = CUBE


WRITERS = {
    "pixel.tif": lambda path: write_raster(path, "GTiff", interleave="pixel"),
    "band.tif": lambda path: write_raster(path, "GTiff", interleave="band", compress="deflate"),
    "bsq.dat": lambda path: write_raster(path, "ENVI", interleave="bsq"),
    "bil.dat": lambda path: write_raster(path, "ENVI", interleave="bil"),
    "bip.dat": lambda path: write_raster(path, "ENVI", interleave="bip"),
    "scene.pix": lambda path: write_raster(path, "PCIDSK"),
    "old.mat": lambda path: scipy.io.savemat(path, {"scene": CUBE.transpose(1, 2, 0)}),
    "packed.mat": lambda path: scipy.io.savemat(path, {"scene": CUBE.transpose(1, 2, 0)}, do_compression=True),
    "new.mat": write_matlab73,
    "scene.h5": write_hdf5,
    "scene.npy": lambda path: np.save(path, CUBE),
}


def opened(root: Path, split: str = "train", **options: object) -> ImageSource:
    return HyperspectralDataset(root=str(root), range="type", **options).build(split, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WRITERS)
def test_every_container_gives_the_cube_that_was_written(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    train, test = (opened(tmp_path, split).raw(0).arrays["hr"] for split in ("train", "test"))
    np.testing.assert_array_equal(np.concatenate([train, test], axis=2), CUBE)


@pytest.mark.parametrize(("units", "given"), [("Nanometers", 400.0), ("Micrometers", 0.4)])
def test_wavelengths_of_a_header_reach_the_responses_of_a_sensor(tmp_path: Path, units: str, given: float) -> None:
    write_raster(tmp_path / "scene.dat", "ENVI")
    centres = [given * (1 + 0.25 * band) for band in range(6)]
    header = tmp_path / "scene.hdr"
    header.write_text(header.read_text() + f"wavelength units = {units}\nwavelength = {{{', '.join(map(str, centres))}}}\n")
    found = opened(tmp_path).wavelengths
    np.testing.assert_allclose(found, [400, 500, 600, 700, 800, 900])
    averaged = SrfConfig(sensor="average", ranges=((450, 650), (650, 850)))
    np.testing.assert_allclose(averaged.for_wavelengths(found).weights(6).T[:, 1:5], [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert averaged.for_wavelengths(()) is averaged
    mine = SrfConfig(sensor="average", ranges=((450, 650),), wavelengths=(1.0, 2.0))
    assert mine.for_wavelengths(found) is mine


def test_training_and_test_region_share_no_pixel_and_keep_the_gap(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", CUBE)
    options = {"regions": "rows", "test_side": "first", "test_fraction": 1 / 3, "gap": 2, "area": (0, 1, 9, 10)}
    train, test = (opened(tmp_path, split, **options).raw(0).arrays["hr"] for split in ("train", "test"))
    np.testing.assert_array_equal(test, CUBE[:, :3, 1:11])
    np.testing.assert_array_equal(train, CUBE[:, 5:, 1:11])


def test_a_normaliser_is_measured_on_training_pixels_alone(tmp_path: Path) -> None:
    cube = CUBE.copy()
    cube[..., -1] = 60_000
    np.save(tmp_path / "scene.npy", cube)
    for split in ("train", "test"):
        source = HyperspectralDataset(root=str(tmp_path)).build(split, 1.0)  # type: ignore[arg-type]
        assert source.normaliser.low == (0.0,)
        assert source.normaliser.high == (float(CUBE[..., :9].max()),)


def test_tiles_of_a_region_are_named_and_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", CUBE)
    source = opened(tmp_path, train_tile=4)
    assert [source.name(i) for i in range(len(source))][:2] == ["scene_train_r00000_c00000", "scene_train_r00000_c00004"]
    np.testing.assert_array_equal(source.raw(3).arrays["hr"], CUBE[:, 4:8, 4:8])


def test_bands_that_the_header_marks_as_bad_are_dropped_and_told(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.dat", "ENVI")
    header = tmp_path / "scene.hdr"
    header.write_text(header.read_text() + "bbl = {1, 1, 0, 1, 0, 1}\nwavelength = {400, 500, 600, 700, 800, 900}\n")
    source = opened(tmp_path)
    assert source.bands == 4
    assert source.wavelengths == (400, 500, 700, 900)
    assert source.left_out[0][0] == "bands 3, 5"
    np.testing.assert_array_equal(source.raw(0).arrays["hr"], CUBE[[0, 1, 3, 5], :, :9])
    assert opened(tmp_path, bad_bands="keep").bands == 6


def test_a_region_that_leaves_nothing_is_refused_in_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", CUBE)
    with pytest.raises(DataError, match=r"dataset\.gap"):
        opened(tmp_path, gap=20)
    with pytest.raises(DataError, match=r"dataset\.area"):
        opened(tmp_path, area=(0, 0, 99, 99))


def test_real_numbers_are_rounded_half_up_and_saturate() -> None:
    values = np.array([-3.0, 0.5, 1.49, 65534.5, 7e4, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(as_integers(values, np.dtype(np.uint16)), [0, 1, 1, 65535, 65535, 0, 65535])


def test_bands_are_taken_in_the_order_that_is_asked_for() -> None:
    hr = torch.rand(2, 6, 8, 8)
    made = BandsConfig(bands=(5, 1)).build()
    decisions = made.draw(torch.Generator(), (6, 8, 8), (8, 8)) * 2
    assert torch.equal(made.apply(hr, decisions).lr, hr[:, [4, 0]])
    with pytest.raises(ValueError, match="takes band 7"):
        BandsConfig(bands=(7,)).lr_bands(6)


def test_a_flat_spectrum_looks_flat_to_every_sensor() -> None:
    wavelengths = tuple(np.linspace(380, 1050, 48).tolist())
    for sensor in ("sentinel2_10m", "ikonos"):
        made = SrfConfig(sensor=sensor, wavelengths=wavelengths).build()  # type: ignore[arg-type]
        hr = torch.full((1, 48, 4, 4), 0.3)
        lr = made.apply(hr, made.draw(torch.Generator(), (48, 4, 4), (4, 4))).lr
        assert lr.shape == (1, 4, 4, 4)
        torch.testing.assert_close(lr, torch.full_like(lr, 0.3))


def test_responses_beyond_the_cube_or_without_wavelengths_are_refused() -> None:
    with pytest.raises(ValueError, match="lies outside"):
        SrfConfig(sensor="landsat8", wavelengths=tuple(range(400, 1000, 10))).weights(60)
    with pytest.raises(ValueError, match=r"dataset\.wavelengths"):
        SrfConfig().lr_bands(48)


def test_a_table_of_responses_is_read_and_interpolated(tmp_path: Path) -> None:
    path = tmp_path / "camera.csv"
    path.write_text("nm,red,blue\n400,0,1\n500,0.5,0.5\n600,1,0\n")
    made = SrfConfig(sensor="table", table=str(path), wavelengths=(400.0, 450.0, 500.0, 550.0, 600.0), normalise=False)
    np.testing.assert_allclose(made.weights(5)[:, 0], [0, 0.25, 0.5, 0.75, 1])
    with pytest.raises(ValueError, match="no table of responses"):
        SrfConfig(sensor="table", table=str(tmp_path / "none.csv"), wavelengths=(500.0,)).weights(1)
