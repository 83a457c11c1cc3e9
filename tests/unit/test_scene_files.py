"""What scenes are read from and written to: georeference, types, bands, masks, and files that cannot be used."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from rsdiff.data.source import DataError
from rsdiff.inference import scratch
from rsdiff.inference.scene_input import AlignedRaster, SceneReader
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.inference.scene_view import SceneView
from tests.scene_methods import ROTATED, job, landscape, pixels, regression, restored, write_raster


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("transform", [None, ROTATED], ids=["north up", "rotated"])
def test_corners_agree_with_the_input_to_a_millionth_of_a_pixel(tmp_path: Path, transform: Any, point: bool) -> None:
    placed = {} if transform is None else {"transform": transform}
    source = write_raster(tmp_path / "scene.tif", landscape(3, 40, 50), **placed)
    if point:
        with rasterio.open(source, "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
    result = restored(job(tmp_path, source, regression()))
    with rasterio.open(source) as before, rasterio.open(result.outputs[0]) as after:
        assert after.crs == before.crs
        assert after.tags()["AREA_OR_POINT"] == before.tags()["AREA_OR_POINT"]
        for row in (0, 40):
            for column in (0, 50):
                back = ~after.transform * (before.transform * (column, row))
                np.testing.assert_allclose(back, (4 * column, 4 * row), atol=1e-6)


def test_names_colours_tags_type_and_blocks_are_carried_over(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(4, 40, 50, "uint16"))
    with rasterio.open(source, "r+") as file:
        file.descriptions = ("blue", "green", "red", "nir")
        file.update_tags(SENSOR="test")
        file.update_tags(4, wavelength="842", STATISTICS_MEAN="3")
    result = restored(job(tmp_path, source, regression(3), bands=(3, 2, 1)))
    with rasterio.open(result.outputs[0]) as file:
        assert file.descriptions == ("red", "green", "blue")
        assert file.dtypes == ("uint16",) * 3
        assert file.tags()["SENSOR"] == "test"
        assert file.is_tiled
        assert file.compression.name == "deflate"
        assert file.nodata is None
    spectral = restored(job(tmp_path, source, regression(4), 4, name="four.tif", wavelengths=(490.0, 560.0, 665.0, 842.0)))
    with rasterio.open(spectral.outputs[0]) as file:
        assert file.tags(4)["wavelength"] == "842"
        assert "STATISTICS_MEAN" not in file.tags(4)


def test_an_alpha_band_marks_missing_pixels_and_is_enlarged(tmp_path: Path) -> None:
    values = np.concatenate([landscape(3, 40, 50), np.full((1, 40, 50), 255, np.uint8)])
    values[3, :10] = 0
    source = write_raster(tmp_path / "scene.tif", values, photometric="rgb", alpha="yes")
    result = restored(job(tmp_path, source, regression()))
    with rasterio.open(result.outputs[0]) as file:
        assert file.colorinterp[-1] == ColorInterp.alpha
        np.testing.assert_array_equal(file.read(4), values[3].repeat(4, axis=0).repeat(4, axis=1))


def test_a_mask_of_the_files_own_is_enlarged(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 40, 50))
    mask = np.ones((40, 50), bool)
    mask[5:20, 30:] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as file:
        file.write_mask(mask)
    result = restored(job(tmp_path, source, regression()))
    with rasterio.open(result.outputs[0]) as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, mask.repeat(4, axis=0).repeat(4, axis=1))
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".tif"}


def test_ground_control_points_and_rpcs_follow_the_pixels(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 40, 50), transform=None, crs=None)
    points = [GroundControlPoint(row=r, col=c, x=10 + c / 100, y=50 - r / 100, z=0) for r, c in ((0, 0), (0, 50), (40, 0), (40, 50))]
    coefficients = [1.0] + [0.0] * 19
    rpcs = RPC(0, 1, 50, 1, coefficients, coefficients, 19.5, 20, 10, 1, coefficients, coefficients, 24.5, 25, 1, 1)
    with rasterio.open(source, "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        file.rpcs = rpcs
    result = restored(job(tmp_path, source, regression()))
    with rasterio.open(result.outputs[0]) as file:
        assert [(point.row, point.col, point.x) for point in file.gcps[0]] == [(4 * p.row, 4 * p.col, p.x) for p in points]
        assert file.gcps[1].to_epsg() == 4326
        assert (file.rpcs.line_off, file.rpcs.line_scale, file.rpcs.samp_off) == (79.5, 80, 99.5)


def test_a_cog_is_valid_and_a_large_geotiff_has_overviews(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(1, 140, 160, "int16"))
    for form in ("geotiff", "cog"):
        result = restored(job(tmp_path, source, regression(1), 1, name=f"{form}.tif", format=form, tile=64))
        with rasterio.open(result.outputs[0]) as file:
            assert file.overviews(1) == [2] if form == "cog" else file.overviews(1)[0] == 2
            assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (form == "cog")
    np.testing.assert_array_equal(pixels(tmp_path / "geotiff.tif"), pixels(tmp_path / "cog.tif"))


def test_plain_pictures_are_restored_to_pictures(tmp_path: Path) -> None:
    Image.fromarray(landscape(3, 30, 40).transpose(1, 2, 0)).save(tmp_path / "photo.png")
    result = restored(job(tmp_path, tmp_path / "photo.png", regression(), name="photo_x4.png"))
    assert Image.open(result.outputs[0]).size == (160, 120)
    with pytest.raises(ValueError, match=r"ends in '.gif'"):
        restored(job(tmp_path, tmp_path / "photo.png", regression(), name="photo.gif"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 57), (90, 1), (5, 3)])
def test_scenes_of_a_pixel_or_a_line_are_restored(tmp_path: Path, shape: tuple[int, int]) -> None:
    result = restored(job(tmp_path, write_raster(tmp_path / "scene.tif", landscape(3, *shape)), regression()))
    assert pixels(result.outputs[0]).shape == (3, 4 * shape[0], 4 * shape[1])


@pytest.mark.parametrize("scaling", ["dtype", "percentile", "trained"])
def test_a_scene_without_any_valid_pixel_stays_empty(tmp_path: Path, scaling: str) -> None:
    source = write_raster(tmp_path / "scene.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    method = regression()
    result = restored(job(tmp_path, source, method, scaling=scaling))
    assert not pixels(result.outputs[0]).any()
    assert method.restored == 0


def test_values_keep_their_units_under_every_scaling(tmp_path: Path) -> None:
    method = regression(2)
    for layer in method.layers:
        for parameter in layer.parameters():
            parameter.data.zero_()  # what remains is enlargement by repeating pixels
    some = (1000 + 3000 * landscape(2, 40, 50, "float32")).astype(np.uint16)
    for scaling in ("dtype", "gain", "percentile"):
        values = some * 10 if scaling == "dtype" else some
        source = write_raster(tmp_path / "scene.tif", values)
        large = values.repeat(4, axis=1).repeat(4, axis=2)
        work = job(tmp_path, source, method, 2, name=f"{scaling}.tif", scaling=scaling, percentiles=(0.0, 100.0))
        np.testing.assert_array_equal(pixels(restored(work).outputs[0]), large)
    real = job(tmp_path, source, method, 2, name="real.tif", dtype="float32", scaling="gain")
    np.testing.assert_allclose(pixels(restored(real).outputs[0]), large, rtol=1e-5)


def test_a_range_that_the_model_was_not_trained_on_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 40, 50, "uint16"))
    with pytest.raises(ValueError, match=r"trained on 0 to 255, 100 % of them outside; set task\.scaling=dtype"):
        restored(job(tmp_path, source, regression(), scaling="trained"))


def test_a_damaged_block_ends_in_one_sentence(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 256, 256), compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = b"\xff" * 4000
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"scene\.tif is truncated or damaged"):
        restored(job(tmp_path, source, regression()))


@pytest.mark.parametrize("ending", ["tif", "png", "jpg"])
def test_a_truncated_file_ends_in_one_sentence(tmp_path: Path, ending: str) -> None:
    source = tmp_path / f"scene.{ending}"
    Image.fromarray(landscape(3, 90, 80).transpose(1, 2, 0)).save(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(DataError, match=r"truncated or damaged|not an image"):
        restored(job(tmp_path, source, regression()))


def test_a_wrong_number_of_bands_names_the_option(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(5, 40, 50))
    with pytest.raises(ValueError, match=r"gives 5 bands and the model restores 3; choose as many, for example task"):
        restored(job(tmp_path, source, regression()))


def test_a_disk_that_fills_up_leaves_no_output_and_the_run_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 60, 50))
    work = job(tmp_path, source, regression())
    restored(work)
    expected = work.output.read_bytes()
    work.output.unlink()

    def full(self: scratch.Scratch, block: int, images: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))

    with monkeypatch.context() as patch:
        patch.setattr(scratch.Scratch, "write_block", full)
        with pytest.raises(OSError, match="No space left"):
            restored(work)
    assert not work.output.exists()
    restored(work)
    assert work.output.read_bytes() == expected


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"tile": 32, "overlap": 20}, "more than half of tile=32"),
        ({"samples": 0}, "samples=0"),
        ({"bands": (0, 1)}, "counted from 1"),
        ({"gain": 0.0}, "gain=0.0"),
        ({"percentiles": (5.0, 2.0)}, "two rising numbers"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SceneOptions(**wrong)


def test_a_fourth_band_that_gdal_takes_for_alpha_can_be_restored(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(4, 40, 50))
    with pytest.raises(ValueError, match="band 4 says it is an alpha band"):
        restored(job(tmp_path, source, regression(4), 4))
    result = restored(job(tmp_path, source, regression(4), 4, bands=(1, 2, 3, 4)))
    with rasterio.open(result.outputs[0]) as file:
        assert ColorInterp.alpha not in file.colorinterp


def test_a_scratch_folder_half_deleted_by_a_kill_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = scratch.Scratch(tmp_path / "scene", {"tile": 16}, blocks=1)
    kept.open()
    kept.write_block(0, {"restored": np.ones((1, 4, 4), np.uint8)})
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda folder, ignore_errors: (folder / "restored.raw").unlink())
        kept.remove()
    kept.open()
    assert not kept.done().any()


@pytest.mark.parametrize("is_moved", [False, True], ids=["same grid", "warped"])
def test_a_raster_beside_the_scene_is_read_as_scenes_are(tmp_path: Path, is_moved: bool) -> None:
    scene = write_raster(tmp_path / "scene.tif", landscape(3, 10, 12))  # from 500000, 5000000, pixels of 10 m
    corner = from_origin(500_020 if is_moved else 500_000, 5_000_000, 5, 5)
    values, codes = landscape(3, 20, 24), (landscape(1, 20, 24) % 3).astype(np.uint8)
    write_raster(tmp_path / "plain.tif", values, transform=corner)
    with rasterio.open(write_raster(tmp_path / "codes.tif", codes, transform=corner), "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    shift = 4 if is_moved else 0
    with SceneReader(scene, SceneView()) as reader:

        def read(name: str, resampling: Resampling = Resampling.nearest) -> Any:
            raster = AlignedRaster(tmp_path / name, reader, Fraction(2), (20, 24), resampling)
            found = raster.window(0, 0, 20, 24)
            raster.close()
            return found

        for name, expected in (("plain.tif", values), ("codes.tif", codes)):
            found, valid = read(name)
            np.testing.assert_array_equal(found[..., shift:], expected[..., : 24 - shift])
            assert valid[..., shift:].all()
            assert not valid[..., :shift].any(), "ground beside the raster"
        if is_moved:
            with pytest.raises(DataError, match="has a palette, whose colours cannot be brought to the grid"):
                read("codes.tif", Resampling.cubic)
        else:
            assert read("codes.tif", Resampling.cubic)[0].shape == (3, 20, 24)  # a reference is seen in its colours
