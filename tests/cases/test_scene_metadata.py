"""What a file says of its pixels comes out again, for the target's pixels: units, tags, profiles, places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image, ImageCms, ImageOps
from rasterio.enums import ColorInterp

from rsdiff.data.opening import without_warnings
from rsdiff.data.rasters import open_file, read_raster
from rsdiff.data.source import Window
from tests.cases.scene_cases import bicubic_job, smooth
from tests.scene_methods import pixels, restored, write_raster


def test_scale_offset_unit_names_colours_and_tags_of_every_domain_are_written_back(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth(4, 20, 30, 1200, 6000).astype(np.uint16), nodata=0)
    kinds = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir)
    with rasterio.open(source, "r+") as file:
        file.scales, file.offsets, file.units = (1e-4, 1e-4, 1e-4, 2e-4), (-0.1,) * 4, ("reflectance",) * 4
        file.descriptions, file.colorinterp = ("B02", "B03", "B04", "B08"), kinds
        file.update_tags(PRODUCT="S2A")
        file.update_tags(ns="VENDOR", CLOUDS="0.1")
        file.update_tags(ns="IMD", satId="X", numRows="20")
        file.update_tags(1, STATISTICS_MEAN="1", central_wavelength_nm="492")
    outputs = [restored(bicubic_job(tmp_path, source, 4, f"{form}.tif", format=form)).outputs[0] for form in ("geotiff", "cog")]
    for output in outputs:
        with rasterio.open(output) as file:
            assert file.scales == (1e-4, 1e-4, 1e-4, 2e-4)
            assert file.offsets == (-0.1,) * 4
            assert file.units == ("reflectance",) * 4
            assert file.descriptions == ("B02", "B03", "B04", "B08")
            assert file.colorinterp == kinds
            assert file.tags()["PRODUCT"] == "S2A"
            assert (file.tags(ns="VENDOR").get("CLOUDS") or file.tags()["VENDOR#CLOUDS"]) == "0.1"
            assert file.tags(1) == {"central_wavelength_nm": "492"}
    with rasterio.open(outputs[0]) as file:
        assert file.tags(ns="IMD") == {"satId": "X"}
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_header_fields_of_envi_that_the_enlargement_leaves_right_are_kept(tmp_path: Path) -> None:
    values = smooth(3, 20, 30, 0, 9000).astype(np.int16)
    source = write_raster(tmp_path / "scene.dat", values, driver="ENVI", interleave="bil", nodata=-9999)
    header = tmp_path / "scene.hdr"
    header.write_text(header.read_text() + "sensor type = TEST\nfwhm = {1, 2, 3}\n")
    with rasterio.open(restored(bicubic_job(tmp_path, source, 3)).outputs[0]) as file:
        found = file.tags(ns="ENVI")
    assert found["sensor_type"] == "TEST"
    assert not {"samples", "lines", "interleave", "map_info"} & set(found)


def test_a_crs_without_transform_counts_pixels_of_half_the_size(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth(1, 20, 30, 0, 255).astype(np.uint8), transform=None)
    with without_warnings(), rasterio.open(restored(bicubic_job(tmp_path, source, 1)).outputs[0]) as file:
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == (0.5, 0, 0, 0, 0.5, 0)


def picture(side: tuple[int, int] = (24, 32)) -> Image.Image:
    image = smooth(3, *side, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    image[:6, :6] = (255, 0, 0)
    return Image.fromarray(image)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_colour_profile_is_kept(tmp_path: Path, ending: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().save(tmp_path / "photo.png", icc_profile=profile)
    output = restored(bicubic_job(tmp_path, tmp_path / "photo.png", 3, f"photo_x2.{ending}")).outputs[0]
    assert Image.open(output).info.get("icc_profile") == profile


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_lies_on_its_side_is_restored_upright_and_says_so_no_more(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "photo.webp", lossless=True, exif=exif)
    upright = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
    upright |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    seen = picture().transpose(upright[orientation]) if orientation > 1 else picture()
    seen.save(tmp_path / "upright.png")
    turned = restored(bicubic_job(tmp_path, tmp_path / "photo.webp", 3, "turned.png")).outputs[0]
    plain = restored(bicubic_job(tmp_path, tmp_path / "upright.png", 3, "plain.png")).outputs[0]
    np.testing.assert_array_equal(pixels(turned), pixels(plain))
    assert Image.open(turned).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", [1, 2, 6, 7])
def test_a_tiff_without_a_place_lies_as_its_tag_says_and_one_with_a_place_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    stored = np.asarray(picture((20, 32))).transpose(2, 0, 1)
    picture((20, 32)).save(tmp_path / "photo.tif", tiffinfo={0x0112: orientation})
    seen = ImageOps.exif_transpose(Image.open(tmp_path / "photo.tif"))
    expected = np.asarray(seen).transpose(2, 0, 1)
    raster = read_raster(tmp_path / "photo.tif")
    np.testing.assert_array_equal(raster.values, expected)
    with open_file(tmp_path / "photo.tif") as file:
        np.testing.assert_array_equal(file.read(Window(3, 5, 10, 8), [1, 3]).values, expected[[0, 2], 3:13, 5:13])
    seen.save(tmp_path / "upright.png")
    turned, plain = (
        restored(bicubic_job(tmp_path, tmp_path / name, 3, f"{name[:3]}.tif")).outputs[0] for name in ("photo.tif", "upright.png")
    )
    np.testing.assert_array_equal(pixels(turned), pixels(plain))
    assert Image.open(turned).getexif().get(0x0112, 1) == 1
    with rasterio.open(tmp_path / "photo.tif", "r+") as placed:
        placed.crs, placed.transform = "EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_000_000)
    np.testing.assert_array_equal(read_raster(tmp_path / "photo.tif").values, stored)


def test_a_window_and_a_box_have_the_place_and_the_noise_of_the_whole(tmp_path: Path) -> None:
    values = smooth(2, 40, 50, 0, 255).astype(np.uint8)
    source = write_raster(tmp_path / "scene.tif", values)  # begins at 500000, 5000000 with pixels of 10 m
    parts: dict[str, dict[str, Any]] = {
        "window": {"window": (8, 12, 20, 24)},
        "box": {"bbox": (500_120.0, 4_999_720.0, 500_360.0, 4_999_920.0)},
    }
    found = {name: restored(bicubic_job(tmp_path, source, 2, f"{name}.tif", **part)).outputs[0] for name, part in parts.items()}
    whole = pixels(restored(bicubic_job(tmp_path, source, 2, "whole.tif")).outputs[0])
    for output in found.values():
        with rasterio.open(output) as file:
            assert file.shape == (40, 48)
            assert tuple(file.transform)[:6] == (5, 0, 500_120, 0, -5, 4_999_920)
        np.testing.assert_array_equal(pixels(output)[:, 4:-4, 4:-4], whole[:, 20:52, 28:68])
    with pytest.raises(ValueError, match="does not lie inside"):
        restored(bicubic_job(tmp_path, source, 2, "no.tif", window=(30, 30, 20, 20)))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_of_a_place_keeps_it_beside_itself(tmp_path: Path, ending: str) -> None:
    picture().save(tmp_path / f"photo.{ending}")
    width, height = picture().size
    (tmp_path / "photo.wld").write_text("10\n0\n0\n-10\n400005\n4999995\n")
    for source in (tmp_path / f"photo.{ending}", write_raster(tmp_path / "map.tif", np.zeros((3, height, width), np.uint8))):
        output = restored(bicubic_job(tmp_path, source, 3, f"{source.stem}_x2.{ending}")).outputs[0]
        with rasterio.open(source) as before, rasterio.open(output) as after:
            assert before.transform.almost_equals(after.transform * Affine.scale(2), 1e-6)
            assert before.crs == after.crs
    picture().save(tmp_path / f"plain.{ending}")
    output = restored(bicubic_job(tmp_path, tmp_path / f"plain.{ending}", 3, f"map_x2.{ending}")).outputs[0]
    assert not output.with_name(f"{output.name}.aux.xml").exists()  # of the picture that was there
