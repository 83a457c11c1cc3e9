"""One reader: what a file holds is the same for scenes and for data sets, whatever container it is in."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS

from rsdiff.data.folder import FolderDataset
from rsdiff.data.opening import without_warnings
from rsdiff.data.packed import PackedSource
from rsdiff.data.packing import pack
from rsdiff.data.paired import PairedDataset
from rsdiff.data.rasters import read_raster
from rsdiff.data.source import DataError, Window
from rsdiff.degradations import degrade_array
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_view import SceneView
from tests.cases.scene_cases import bicubic_job, smooth
from tests.scene_methods import pixels, restored, write_raster

CODES = smooth(1, 20, 24, 0, 5)[0].round().astype(np.uint8)
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 0, 255), (0, 128, 255)], np.uint8)


def palette(path: Path, transparent: int | None = None) -> Path:
    if path.suffix == ".tif":
        write_raster(path, CODES[None], nodata=transparent)
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {n: (*map(int, c), 255) for n, c in enumerate(COLOURS)})
        return path
    image = Image.new("P", (24, 20))
    image.putdata(CODES.ravel().tolist())
    image.putpalette(COLOURS.ravel().tolist())
    image.save(path, **({} if transparent is None else {"transparency": transparent}))
    return path


def as_scene(path: Path, **view: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with without_warnings(), SceneReader(path, SceneView(**view)) as reader:
        return reader.read(0, 0, reader.height, reader.width)


def as_data(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    with without_warnings():
        raster = read_raster(path)
    return raster.values, raster.valid


@pytest.mark.parametrize("transparent", [None, 3])
@pytest.mark.parametrize("ending", ["tif", "png", "gif"])
def test_a_palette_is_read_as_its_colours_and_a_transparent_one_is_missing(tmp_path: Path, ending: str, transparent: int | None) -> None:
    path = palette(tmp_path / f"scene.{ending}", transparent)
    expected = COLOURS[CODES].transpose(2, 0, 1)
    valid = np.broadcast_to((-1 if transparent is None else transparent) != CODES, expected.shape)
    values, found = as_scene(path)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(found, valid)
    values, of_data = as_data(path)
    np.testing.assert_array_equal(values, expected)
    assert (of_data is None) == (transparent is None)
    if of_data is not None:
        np.testing.assert_array_equal(of_data, valid)


def test_every_image_of_a_sample_brings_its_validity(tmp_path: Path) -> None:
    for folder, side in (("HR", 24), ("LR", 12)):
        (tmp_path / folder).mkdir()
        values = smooth(2, side, side, 20, 230).astype(np.uint8)
        values[1, :4, :6] = 0
        write_raster(tmp_path / folder / "a.tif", values, nodata=0)
    data = PairedDataset(root=str(tmp_path), split="all")
    source = data.build("test", 2.0)
    assert source.gives == {"hr", "lr", "valid", "lr_valid"}
    for sample in (source.read(0), source.read(0, Window(0, 0, 24, 24))):
        assert sample.valid is not None
        assert sample.lr_valid is not None
        assert (sample.valid.shape, sample.lr_valid.shape) == ((2, 24, 24), (2, 12, 12))
        assert float((1 - sample.valid).sum()) == float((1 - sample.lr_valid).sum()) == 24
    packed = tmp_path / "packed.h5"
    pack({"test": source}, packed, "stop", 2.0, lambda done, total: None)
    again = PackedSource(packed, "test", 2.0).read(0)
    assert again.lr_valid is not None
    np.testing.assert_array_equal(again.lr_valid.numpy(), source.read(0).lr_valid)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = (smooth(1, 20, 24, 0, 1) > 0.5).astype(np.uint8)
    path = write_raster(tmp_path / "scene.tif", bits, nbits=1)
    np.testing.assert_array_equal(as_scene(path)[0], 255 * bits)
    np.testing.assert_array_equal(as_data(path)[0], 255 * bits)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_alpha_marks_missing_pixels_where_it_is_no_band_of_the_image(tmp_path: Path, ending: str) -> None:
    image = smooth(4, 20, 24, 1, 255).astype(np.uint8)
    image[3, :5] = 0
    path = tmp_path / f"scene.{ending}"
    if ending == "png":
        Image.fromarray(image.transpose(1, 2, 0), "RGBA").save(path)
    else:
        write_raster(path, image, photometric="rgb", alpha="yes")
    assert not as_scene(path)[1][:, :5].any()
    assert as_scene(path)[1][:, 5:].all()
    assert as_scene(path, bands=(1, 2, 3, 4))[1].all()
    sample = FolderDataset(root=str(tmp_path), split="all", convert="rgb", extensions=(ending,)).build("train", 1.0).read(0)
    assert sample.valid is not None
    assert tuple(sample.valid.shape) == (3, 20, 24)
    assert not sample.valid[:, :5].any()
    assert "valid" not in FolderDataset(root=str(tmp_path), split="all", extensions=(ending,)).build("train", 1.0).gives


def grid_file(path: Path) -> NDArray[np.float32]:
    """Write a grid as xarray does, with its place by CF conventions, beside a second variable."""
    values = smooth(1, 20, 24, 0.1, 0.9)[0].astype(np.float32)
    wkt = CRS.from_epsg(32632).to_wkt()
    with h5py.File(path, "w") as file:
        for name, axis in (("y", 5_700_000 - 5 - 10.0 * np.arange(20)), ("x", 400_000 + 5 + 10.0 * np.arange(24))):
            found = file.create_dataset(name, data=axis)
            found.attrs["units"], found.attrs["standard_name"] = "m", f"projection_{name}_coordinate"
            found.make_scale(name)
        file.create_dataset("spatial_ref", data=0).attrs.update(crs_wkt=wkt, spatial_ref=wkt, grid_mapping_name="transverse_mercator")
        for name, factor in (("reflectance", 1), ("other", 0.5)):
            found = file.create_dataset(name, data=values * np.float32(factor))
            found.dims[0].attach_scale(file["y"])
            found.dims[1].attach_scale(file["x"])
            found.attrs["grid_mapping"], found.attrs["_FillValue"] = "spatial_ref", np.float32(-9999)
        file.attrs["Conventions"] = "CF-1.8"
    return values


def test_a_netcdf_grid_is_restored_in_its_place_and_a_variable_is_chosen(tmp_path: Path) -> None:
    values = grid_file(tmp_path / "grid.nc")
    with pytest.raises(DataError, match=r"holds 2 rasters \(.*reflectance.*\); choose one with task\.variable=NAME"):
        as_scene(tmp_path / "grid.nc")
    found, valid = as_scene(tmp_path / "grid.nc", variable="reflectance")
    np.testing.assert_array_equal(found, values[None])
    assert valid.all()
    result = restored(bicubic_job(tmp_path, tmp_path / "grid.nc", 1, variable="other"))
    with rasterio.open(result.outputs[0]) as file:
        assert file.crs.to_epsg() == 32632
        assert tuple(file.transform)[:6] == (5, 0, 400_000, 0, -5, 5_700_000)
        assert file.nodata == -9999


@pytest.mark.parametrize("ending", ["npy", "mat", "h5"])
def test_cubes_are_restored_as_they_are_trained_on(tmp_path: Path, ending: str) -> None:
    cube = np.random.default_rng(0).random((5, 12, 14)).astype(np.float32)
    path = tmp_path / f"cube.{ending}"
    if ending == "npy":
        np.save(path, cube)
    elif ending == "mat":
        scipy.io.savemat(path, {"cube": cube.transpose(1, 2, 0)})
    else:
        with h5py.File(path, "w") as file:
            file["cube"] = cube
    np.testing.assert_array_equal(as_scene(path)[0], cube)
    np.testing.assert_array_equal(as_data(path)[0], cube)
    assert restored(bicubic_job(tmp_path, path, 5)).size == (24, 28)


ODD_CUBES = {
    "complex": np.zeros((2, 3, 4), complex),
    "bool": np.zeros((2, 3, 4), bool),
    "text": np.full((2, 3, 4), "a"),
    "object": np.full((2, 3, 4), None, object),
    "longdouble": np.zeros((2, 3, 4), np.longdouble),
}


@pytest.mark.parametrize("name", ODD_CUBES)
@pytest.mark.parametrize("ending", ["npy", "mat", "h5", "npz"])
def test_cubes_that_hold_no_numbers_are_refused_with_what_to_save(tmp_path: Path, name: str, ending: str) -> None:
    path, values = tmp_path / f"cube.{ending}", ODD_CUBES[name]
    if ending == "mat" and name in ("complex", "bool"):
        scipy.io.savemat(path, {"cube": values})
    elif ending == "h5" and name not in ("text", "object"):
        with h5py.File(path, "w") as file:
            file["cube"] = values
    elif ending == "npz":
        np.savez(path, cube=values)
    else:
        np.save(path.with_suffix(".npy"), values)
        path = path.with_suffix(".npy")
    with pytest.raises(DataError, match=r"; save (an array of |the image alone|integers|one as)"):
        as_scene(path)


@pytest.mark.parametrize("ending", ["npy", "h5"])
def test_real_numbers_of_16_bits_are_read_as_32(tmp_path: Path, ending: str) -> None:
    values, path = smooth(2, 12, 14, 0, 1).astype(np.float16), tmp_path / f"cube.{ending}"
    if ending == "npy":
        np.save(path, values)
    else:
        with h5py.File(path, "w") as file:
            file["cube"] = values
    assert as_scene(path)[0].dtype == np.float32
    np.testing.assert_array_equal(as_scene(path)[0], values)
    assert pixels(restored(bicubic_job(tmp_path, path, 2)).outputs[0]).dtype == np.float32


def test_a_raster_in_an_archive_is_read(tmp_path: Path) -> None:
    values = smooth(1, 20, 24, 0, 255).astype(np.uint8)
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        archive.write(write_raster(tmp_path / "a.tif", values), "in/a.tif")
    path = Path(f"/vsizip/{tmp_path}/scenes.zip/in/a.tif")
    np.testing.assert_array_equal(as_scene(path)[0], values)
    with pytest.raises(DataError, match="does not exist"):
        as_scene(Path(f"/vsizip/{tmp_path}/none.zip/a.tif"))


VRT = (
    '<VRTDataset rasterXSize="24" rasterYSize="20"><Metadata><MDI key="DOI">https://doi.org/10.5270/S2</MDI></Metadata>'
    '<Metadata domain="xml:PRODUCT" format="xml"><n1:Product xmlns:n1="https://psd-14.example.com"/></Metadata>'
    '<VRTRasterBand dataType="Byte" band="1"><Description>see https://example.com</Description><SimpleSource>'
    '<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
    "{more}</VRTRasterBand></VRTDataset>"
)


def test_a_mosaic_may_tell_of_servers_but_not_open_them(tmp_path: Path) -> None:
    values = smooth(1, 20, 24, 0, 255).astype(np.uint8)
    write_raster(tmp_path / "a.tif", values)
    mosaic = tmp_path / "a.vrt"
    mosaic.write_text(VRT.format(relative=1, source="a.tif", more=""))
    np.testing.assert_array_equal(as_scene(mosaic)[0], values)
    code = "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    for refused in (
        VRT.format(relative=0, source="/vsicurl/http://127.0.0.1:9/a.tif", more=""),
        VRT.format(relative=1, source="a.tif", more=code),
        VRT.format(relative=1, source="inner.vrt", more=""),
        VRT.format(relative=1, source="a.tif", more='<sourcefilename a="http://127.0.0.1:9/a.tif"/>'),
        VRT.format(relative=1, source="a.tif", more="").replace("<MDI", "<VRTDataset>http://127.0.0.1:9</VRTDataset><MDI"),
    ):
        (tmp_path / "inner.vrt").write_text(VRT.format(relative=0, source="/vsicurl/http://127.0.0.1:9/a.tif", more=""))
        mosaic.write_text(refused)
        with pytest.raises(DataError, match="refers to servers, archives or code"):
            as_scene(mosaic)


def test_netcdf_that_takes_arrays_from_other_files_is_refused(tmp_path: Path) -> None:
    grid_file(tmp_path / "other.nc")
    with h5py.File(tmp_path / "linked.nc", "w") as file:
        file["reflectance"] = h5py.ExternalLink("other.nc", "reflectance")
        file.attrs["Conventions"] = "CF-1.8"
    with pytest.raises(DataError, match="takes 'reflectance' from another file"):
        as_scene(tmp_path / "linked.nc")


def test_arrays_that_are_no_image_are_refused_with_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"looks channels first; give \(H, W, C\)"):
        degrade_array(np.zeros((4, 64, 64), np.uint8), "bicubic")
    with pytest.raises(ValueError, match="masked array"):
        degrade_array(np.ma.masked_equal(np.zeros((64, 64), np.uint8), 0), "bicubic")
    reflectances = (smooth(3, 64, 64, 300, 3360).transpose(1, 2, 0)).round().astype(np.uint16)
    with pytest.raises(ValueError, match=r"no value above 33[0-9][0-9].*give the value that stands for 1, for example peak=10000"):
        degrade_array(reflectances, "bsrgan")
    lr, hr, _ = degrade_array(reflectances, "bsrgan", peak=10000)
    assert np.array_equal(hr, reflectances)
    assert lr.max() < 12000  # noise of some hundred, not of thousands
    real = reflectances.astype(np.float32)
    with pytest.raises(ValueError, match="give the value that stands for 1, for example peak=10000"):
        degrade_array(real, "bicubic")
    assert degrade_array(real, "bicubic", peak=10000)[0].mean() == pytest.approx(real.mean(), rel=0.01)
    with pytest.raises(ValueError, match="subtract the lowest value"):
        degrade_array(real - 1000, "bicubic", peak=10000)
    assert degrade_array(np.zeros((64, 64, 4), np.uint8), "bicubic", scale=2.5)[0].shape == (25, 25, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_a_file_of_several_pictures_is_never_taken_for_its_first(tmp_path: Path, ending: str) -> None:
    first, second = (Image.fromarray(smooth(3, 20, 24, 0, 255, seed).astype(np.uint8).transpose(1, 2, 0)) for seed in (1, 2))
    path = tmp_path / f"several.{ending}"
    first.save(path, save_all=True, append_images=[second], **({"lossless": True} if ending == "webp" else {}))
    with pytest.raises(DataError, match="holds 2 rasters" if ending == "tif" else "holds 2 pictures, an animation"):
        as_data(path)
    if ending == "tif":  # as the message says
        np.testing.assert_array_equal(as_scene(path, variable="2")[0], np.asarray(second).transpose(2, 0, 1))
        second.save(tmp_path / "one.tif")
        np.testing.assert_array_equal(as_scene(tmp_path / "one.tif", variable="1")[0], np.asarray(second).transpose(2, 0, 1))
