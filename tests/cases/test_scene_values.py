"""No value of a scene is cut, invented or spread: ranges of every type, what lies outside them, and missing pixels of single bands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rsdiff.config import UserError
from rsdiff.data.normalisation import Normaliser, NormaliserConfig, measured
from tests.cases.scene_cases import bicubic_job, enlarged_mask, interpolated, masks, smooth
from tests.scene_methods import job, pixels, regression, restored, write_raster

SCENES: dict[str, NDArray[Any]] = {
    "heights below zero": smooth(1, 40, 50, -80, 300).astype(np.int16),
    "int8": smooth(1, 40, 50, -100, 100).astype(np.int8),
    "int32": smooth(1, 40, 50, -5000, 5000).astype(np.int32),
    "uint32": smooth(1, 40, 50, 4.0e9, 4.2e9).astype(np.uint32),
    "uint16": smooth(3, 40, 50, 300, 3000).astype(np.uint16),
    "uint8": smooth(3, 40, 50, 20, 230).astype(np.uint8),
    "radar in dB": smooth(2, 40, 50, -25, 3).astype(np.float32),
    "reflectance times 10000": smooth(4, 40, 50, 200, 6000).astype(np.float32),
    "reflectance from below 0 to above 1": smooth(4, 40, 50, -0.05, 1.4).astype(np.float32),
    "float64": smooth(1, 40, 50, 0, 1),
}


@pytest.mark.parametrize("scaling", ["trained", "none", "percentile"])
@pytest.mark.parametrize("name", SCENES)
def test_bicubic_changes_no_value_beyond_interpolation(tmp_path: Path, name: str, scaling: str) -> None:
    values = SCENES[name]
    result = restored(bicubic_job(tmp_path, write_raster(tmp_path / "scene.tif", values), len(values), scaling=scaling))
    expected, found = interpolated(values), pixels(result.outputs[0])
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        expected = np.clip(np.floor(expected + 0.5), limits.min, limits.max)
        # 1: the rounding of ties; the float32 of the network's range holds 2**-24 of three times the scene's own
        tolerance = max(1.0, 3 * float(np.ptp(values.astype(np.float64))) * 2**-22)
    else:
        tolerance = 1e-5 * float(np.ptp(values))
    assert found.dtype == values.dtype
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=tolerance)
    assert result.outside == 0


def test_every_band_keeps_its_digits_beside_one_of_another_order(tmp_path: Path) -> None:
    values = np.concatenate([smooth(1, 40, 50, 0.01, 0.6), smooth(1, 40, 50, -400, 8e6), np.full((1, 40, 50), 3e7)]).astype(np.float32)
    output = restored(bicubic_job(tmp_path, write_raster(tmp_path / "scene.tif", values), 3)).outputs[0]
    for band in (0, 1):
        np.testing.assert_allclose(pixels(output)[band], interpolated(values[band : band + 1])[0], rtol=0, atol=1e-5 * np.ptp(values[band]))
    np.testing.assert_allclose(pixels(output)[2], 3e7, rtol=1e-6)


def test_a_range_is_measured_on_what_is_known_and_refused_where_nothing_is() -> None:
    images = np.stack([smooth(1, 20, 20, 3, 7)[0], np.full((20, 20), np.nan)]).astype(np.float32)
    found = measured([images], (0, 100), clip=False)
    assert found.low == (3, 3)
    assert found.high == (7, 7)
    config = NormaliserConfig(rule="maximum")
    assert config.build(np.dtype(np.float32), 2, lambda count: iter([images[1:], images])).high == (7,)
    for rule in ("maximum", "percentile", "measured"):
        with pytest.raises(UserError, match=r"is missing; give images with known pixels, or .*dataset.range=\[LOW,HIGH\]"):
            NormaliserConfig(rule=rule).build(np.dtype(np.float32), 2, lambda count: iter([images[1:]]))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_marks_what_is_missing_though_it_knows_no_nodata(tmp_path: Path, ending: str) -> None:
    values = smooth(3, 40, 50, 20, 230).astype(np.uint8)
    values[:, 5:12, 8:20] = 0
    source = write_raster(tmp_path / "scene.tif", values, nodata=0)
    output = restored(bicubic_job(tmp_path, source, 3, f"out.{ending}")).outputs[0]
    np.testing.assert_array_equal(masks(output, 3), enlarged_mask(values != 0))


def clouded(seed: int = 0) -> NDArray[np.uint16]:
    values = smooth(3, 60, 70, 300, 3000, seed).astype(np.uint16)
    values[:, 30:36, 30:38] = 14000
    return values


TRAINED = Normaliser((0.0,), (10000.0,))


def test_clouds_above_the_trained_range_are_carried_around_the_network_and_counted(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", clouded())
    work = replace(job(tmp_path, source, regression(), scaling="trained"), trained=TRAINED)
    result = restored(work)
    limited = write_raster(tmp_path / "limited.tif", np.minimum(clouded(), 10000))
    below = replace(work, input=limited, output=tmp_path / "below.tif", scratch=tmp_path / "below")
    assert restored(below).outside == 0
    found, without = pixels(result.outputs[0]).astype(int), pixels(tmp_path / "below.tif").astype(int)
    assert result.outside == 3 * 6 * 8
    with rasterio.open(result.outputs[0]) as file:
        assert "144 of 12600 values (1.1 %) lie outside 0 to 10000" in file.tags()["RSDIFF_OUTSIDE"]
    inside = (slice(None), slice(4 * 32, 4 * 34), slice(4 * 32, 4 * 36))
    np.testing.assert_allclose(found[inside] - without[inside], 4000, atol=300)  # bicubic overshoots at the cloud's edge
    far = np.ones(found.shape[1:], bool)
    far[4 * 28 : 4 * 38, 4 * 28 : 4 * 40] = False
    np.testing.assert_array_equal(found[:, far], without[:, far])


UNFIT: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "16 bits on 8": (smooth(3, 40, 50, 0, 65535).astype(np.uint16), {}),
    "reflectance as counts on 8 bits": (smooth(3, 40, 50, 300, 9000).astype(np.uint16), {}),
    "reflectance on 8 bits": (smooth(3, 40, 50, 0.0, 1.0).astype(np.float32), {}),
    "radar on 8 bits": (smooth(3, 40, 50, -25, 3).astype(np.float32), {}),
    "counts taken as they are": (smooth(3, 40, 50, 300, 9000).astype(np.uint16), {"scaling": "none"}),
    "a gain that is not theirs": (smooth(3, 40, 50, 20, 230).astype(np.uint8), {"scaling": "gain", "gain": 0.1}),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_range_of_other_data_is_refused_with_options_that_work(tmp_path: Path, name: str) -> None:
    values, options = UNFIT[name]
    source = write_raster(tmp_path / "scene.tif", values)
    with pytest.raises(ValueError, match=r"holds values from .*; set task\.scaling=") as refusal:
        restored(job(tmp_path, source, regression(), **{"scaling": "trained", **options}))
    choices = str(refusal.value).rsplit("; set ", 1)[1].rstrip(".").split(" or ")
    for number, choice in enumerate(choices):
        typed = dict(re.findall(r"task\.(\w+)=(\S+)", choice))
        gain = {"gain": float(typed["gain"])} if "gain" in typed else {}
        result = restored(job(tmp_path, source, regression(), name=f"{number}.tif", scaling=typed["scaling"], **gain))
        assert result.outputs[0].exists()


def test_the_scale_and_offset_of_the_file_can_be_the_range(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth(3, 40, 50, 1200, 9000).astype(np.uint16))
    with pytest.raises(ValueError, match=r"has no scale and offset of its own.*set task\.scaling=gain"):
        restored(job(tmp_path, source, regression(), scaling="file"))
    with rasterio.open(source, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    result = restored(job(tmp_path, source, regression(), scaling="file"))
    np.testing.assert_allclose(result.value_range, ((1000.0,), (11000.0,)))


# Missing pixels


def one_band_missing(dtype: str, nodata: float) -> NDArray[Any]:
    values = smooth(3, 40, 50, 500, 3000).astype(dtype)
    values[1, 10:20, 10:20] = nodata
    values[:, 25:35, 5:15] = nodata
    return values


def swath_edge(seed: int = 0) -> NDArray[np.uint16]:
    """Bands that end at different columns, as at the rim of a Sentinel-2 granule; 0 marks what is beyond."""
    values = smooth(4, 40, 50, 300, 3000, seed).astype(np.uint16)
    for band in range(4):
        values[band, :, 30 + 3 * band :] = 0
    return values


MARKED: dict[str, tuple[NDArray[Any], float]] = {
    "uint16": (one_band_missing("uint16", 65535), 65535),
    "int16": (one_band_missing("int16", -9999), -9999),
    "float32": (one_band_missing("float32", np.nan), np.nan),
    "float32 of ESRI": (one_band_missing("float32", -3.4028234663852886e38), -3.4028234663852886e38),
    "swath edge": (swath_edge(), 0),
}


def known(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    return np.isfinite(values) if np.isnan(nodata) else values != np.asarray(nodata, values.dtype)


@pytest.mark.parametrize("name", MARKED)
def test_pixels_missing_in_one_band_stay_missing_there_alone_and_spread_nowhere(tmp_path: Path, name: str) -> None:
    values, nodata = MARKED[name]
    source = write_raster(tmp_path / "scene.tif", values, nodata=nodata)
    result = restored(bicubic_job(tmp_path, source, len(values)))
    valid = known(values, nodata)
    np.testing.assert_array_equal(masks(result.outputs[0], len(values)), enlarged_mask(valid))
    found = pixels(result.outputs[0]).astype(np.float64)
    for band in range(len(values)):
        inside, own = found[band][enlarged_mask(valid)[band]], values[band][valid[band]].astype(np.float64)
        overshoot = 0.25 * np.ptp(own)
        assert own.min() - overshoot <= inside.min()
        assert inside.max() <= own.max() + overshoot
        assert abs(inside.mean() - own.mean()) < 0.01 * np.ptp(own)


def test_bands_of_a_mosaic_with_different_nodata_are_missing_each_by_its_own(tmp_path: Path) -> None:
    parts = []
    for number, nodata in ((1, 65535), (2, 65000)):
        values = smooth(1, 40, 50, 500, 3000, number).astype(np.uint16)
        values[0, 10 * number : 10 * number + 10, 10:20] = nodata
        write_raster(tmp_path / f"{number}.tif", values, nodata=nodata)
        parts.append(
            f'<VRTRasterBand dataType="UInt16" band="{number}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{number}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
        )
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{"".join(parts)}</VRTDataset>')
    result = restored(bicubic_job(tmp_path, mosaic, 2))
    expected = np.ones((2, 40, 50), bool)
    expected[0, 10:20, 10:20] = expected[1, 20:30, 10:20] = False
    np.testing.assert_array_equal(masks(result.outputs[0], 2), enlarged_mask(expected))
    assert pixels(result.outputs[0])[masks(result.outputs[0], 2)].max() < 4000


def test_a_mask_beside_a_nodata_value_counts_as_well(tmp_path: Path) -> None:
    values = smooth(2, 40, 50, 500, 3000).astype(np.uint16)
    values[:, :5] = 0
    source = write_raster(tmp_path / "scene.tif", values, nodata=0)
    mask = np.ones((40, 50), bool)
    mask[20:30, 20:30] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as file:
        file.write_mask(mask)
    result = restored(bicubic_job(tmp_path, source, 2))
    np.testing.assert_array_equal(masks(result.outputs[0], 2), enlarged_mask((values != 0) & mask))


HOLES = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 35), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(holes=HOLES, bands=st.lists(st.integers(0, 2), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_what_stands_in_missing_pixels_changes_no_valid_pixel(tmp_path: Path, holes: list[Any], bands: list[int], seed: int) -> None:
    """The same holes, marked by NaN, by a value far off and by another one, per band: the network's result is the same beside them."""
    values = smooth(3, 26, 36, 0.1, 0.9, seed).astype(np.float32)
    missing = np.zeros(values.shape, bool)
    for (top, left, height, width), band in zip(holes, bands * 4, strict=False):
        missing[band, top : top + height, left : left + width] = True
    found = []
    for number, marker in enumerate((np.nan, -9999.0, 1e30)):
        source = write_raster(tmp_path / f"{number}.tif", np.where(missing, np.float32(marker), values), nodata=marker)
        work = job(tmp_path, source, regression(), name=f"out{number}.tif", scaling="none")
        result = restored(replace(work, input=source.rename(tmp_path / "scene.tif")))
        found.append(pixels(result.outputs[0]))
    valid = ~missing.repeat(4, axis=1).repeat(4, axis=2)
    for other in found[1:]:
        np.testing.assert_array_equal(other[valid], found[0][valid])


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(holes=HOLES, kind=st.sampled_from(["mask", "alpha"]), seed=st.integers(0, 99))
def test_what_stands_under_a_mask_changes_no_valid_pixel(tmp_path: Path, holes: list[Any], kind: str, seed: int) -> None:
    values = smooth(3, 26, 36, 20, 230, seed).astype(np.uint8)
    valid = np.ones((26, 36), bool)
    for top, left, height, width in holes:
        valid[top : top + height, left : left + width] = False
    found = []
    for garbage in (0, 255):
        hidden = np.where(valid, values, np.uint8(garbage))
        if kind == "alpha":
            hidden = np.concatenate([hidden, np.where(valid, np.uint8(200), np.uint8(0))[None]])
            source = write_raster(tmp_path / "scene.tif", hidden, photometric="rgb", alpha="yes")
        else:
            source = write_raster(tmp_path / "scene.tif", hidden)
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as file:
                file.write_mask(valid)
        result = restored(job(tmp_path, source, regression(), name=f"{garbage}.tif"))
        found.append(pixels(result.outputs[0])[:3])
    large = valid.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(found[0][:, large], found[1][:, large])


@pytest.mark.parametrize("kind", ["a transparent colour of a PNG", "the tag NODATA_VALUES"])
def test_a_colour_that_marks_missing_pixels_is_no_value_of_one_band(tmp_path: Path, kind: str) -> None:
    values = smooth(3, 40, 50, 30, 230).astype(np.uint8)
    values[:, 10:20, 10:20] = np.array([31, 32, 33], np.uint8)[:, None, None]
    values[0, 24:40] = 31  # a valid value of its band
    if kind.endswith("PNG"):
        source = tmp_path / "scene.png"
        Image.fromarray(values.transpose(1, 2, 0)).save(source, transparency=(31, 32, 33))
    else:
        source = write_raster(tmp_path / "scene.tif", values)
        with rasterio.open(source, "r+") as file:
            file.update_tags(NODATA_VALUES="31 32 33")
    result = restored(bicubic_job(tmp_path, source, 3))
    expected = np.ones((3, 40, 50), bool)
    expected[:, 10:20, 10:20] = False
    np.testing.assert_array_equal(masks(result.outputs[0], 3), enlarged_mask(expected))
    assert (pixels(result.outputs[0])[0, 56:76] == 31).all()


def test_twelve_bits_are_not_shown_to_a_model_as_sixteen(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth(3, 40, 50, 300, 3000).astype(np.uint16))
    with pytest.raises(UserError, match=r"fill next to nothing of it; set task.scaling=gain task.gain=0.0001 or task.scaling=percentile"):
        restored(job(tmp_path, source, regression(3), 3, scaling="dtype"))
    with pytest.raises(UserError, match=r"; set task.scaling=gain task.gain=0.0001 or task.scaling=percentile"):  # never the whole type
        restored(job(tmp_path, source, regression(3), 3, scaling="trained"))


def test_a_raster_that_the_model_does_not_use_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", smooth(3, 40, 50, 0, 255).astype(np.uint8))
    with pytest.raises(UserError, match=r"leave task\.reference out"):
        restored(job(tmp_path, source, regression(3), 3, reference=str(source)))
