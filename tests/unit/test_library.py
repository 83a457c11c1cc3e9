"""`import rsdiff`: the few names, with images of every kind in and the same kind out."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
import xarray
from affine import Affine
from PIL import Image
from rasterio.io import MemoryFile

import rsdiff
from rsdiff.config import ConfigError, UserError
from rsdiff.inference.pictures import picture_of
from tests.conftest import REPOSITORY, Command

PIXELS = (np.random.default_rng(3).random((20, 24, 3)) * 255).astype(np.uint8)
GRID = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def test_importing_rsdiff_imports_nothing_else() -> None:
    code = "import json, sys; before = set(sys.modules); import rsdiff; print(json.dumps(sorted(set(sys.modules) - before)))"
    ended = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY / "src")}, capture_output=True, check=True)
    imported = {name.partition(".")[0] for name in json.loads(ended.stdout)}
    assert imported.isdisjoint({"torch", "numpy", "hydra", "omegaconf", "pydantic", "rasterio", "PIL"})


def images_of_every_kind() -> dict[str, object]:
    memory = MemoryFile()
    with memory.open(driver="GTiff", count=3, height=20, width=24, dtype="uint8", crs="EPSG:32633", transform=GRID) as file:
        file.write(PIXELS.transpose(2, 0, 1))
    coordinates = {"y": 4_999_995 - 10.0 * np.arange(20), "x": 500_005 + 10.0 * np.arange(24), "band": ["red", "green", "blue"]}
    return {
        "numpy": PIXELS,
        "tensor": torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()),
        "pillow": Image.fromarray(PIXELS),
        "rasterio": memory.open(),
        "xarray": xarray.DataArray(PIXELS, dims=["y", "x", "band"], coords=coordinates, attrs={"units": "1"}, name="scene"),
    }


def pixels_of(image: object) -> np.ndarray:
    values: np.ndarray = picture_of(image).values.transpose(1, 2, 0)
    return values


@pytest.mark.parametrize("scale", [2, 2.5])
def test_an_image_comes_back_as_it_was_given_at_any_scale(scale: float) -> None:
    model = rsdiff.load("bicubic")
    expected = model.restore(PIXELS, scale=scale)
    assert expected.shape == (round(20 * scale), round(24 * scale), 3)
    assert expected.dtype == np.uint8
    for kind, image in images_of_every_kind().items():
        made = model.restore(image, scale=scale)
        assert type(made) is type(image), kind
        np.testing.assert_array_equal(pixels_of(made), expected, err_msg=kind)
        lr, hr, _ = rsdiff.degrade(image, "bicubic", scale=2)
        assert type(lr) is type(hr) is type(image), kind
        np.testing.assert_array_equal(pixels_of(hr), PIXELS, err_msg=kind)


def test_where_an_image_lies_goes_along() -> None:
    images, model = images_of_every_kind(), rsdiff.load("bicubic")
    raster = model.restore(images["rasterio"], scale=2)
    assert raster.crs.to_epsg() == 32633
    assert raster.transform == GRID * Affine.scale(0.5)
    array = model.restore(images["xarray"], scale=2)
    assert array.dims == ("y", "x", "band")
    assert list(array.coords["band"].values) == ["red", "green", "blue"]
    assert array.attrs == {"units": "1"}
    np.testing.assert_allclose(array.coords["x"].values[:3], [500_002.5, 500_007.5, 500_012.5])
    np.testing.assert_allclose(array.coords["y"].values[:2], [4_999_997.5, 4_999_992.5])


def test_a_part_of_an_xarray_keeps_its_coordinates_under_any_name() -> None:
    given = images_of_every_kind()["xarray"].rename(y="lat", x="lon").transpose("band", "lon", "lat")
    given = given.assign_coords(spatial_ref=((), 0, {"GeoTransform": "500000 10 0 5000000 0 -10"}), lon=np.arange(24) ** 2.0)
    lr, hr, _ = rsdiff.degrade(given, "bicubic", scale=3)  # 20 x 24 pixels, of which 18 x 24 are used
    assert hr.dims == lr.dims == given.dims
    np.testing.assert_array_equal(hr.lat, given.lat[:18])
    np.testing.assert_allclose(lr.lat, given.lat[1:18:3])
    np.testing.assert_allclose(lr.lon, given.lon[1::3])
    assert lr.spatial_ref.attrs["GeoTransform"].split()[1] == "30.0"


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_of_wide_pixels_keep_their_values(mode: str) -> None:
    values = PIXELS[..., 0].astype(np.int32 if mode == "I" else np.float32) * 100 - 300
    made = rsdiff.load("bicubic").restore(Image.fromarray(values, mode), scale=2)
    assert made.mode == mode
    expected = rsdiff.load("bicubic").restore(values, scale=2)
    np.testing.assert_array_equal(np.asarray(made), expected)
    assert expected.max() > 10_000


def test_what_is_transparent_is_missing_and_stays_transparent() -> None:
    opaque = np.full((20, 24, 1), 255, np.uint8)
    opaque[:, :6] = 0
    first, second = (Image.fromarray(np.concatenate([np.where(opaque, PIXELS, under), opaque], -1).astype(np.uint8)) for under in (0, 200))
    made, other = (np.asarray(rsdiff.load("bicubic").restore(image, scale=2)) for image in (first, second))
    assert made.shape == (40, 48, 4)
    assert (made[:, :11, 3] == 0).all()
    assert (made[:, 13:, 3] == 255).all()
    np.testing.assert_array_equal(made[:, 12:], other[:, 12:])


def test_rasters_are_restored_from_threads_as_from_the_command(
    run_command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Commands of earlier tests of this process left handlers of the console, which pytest has closed since.
    monkeypatch.setattr(logging.root, "handlers", [one for one in logging.root.handlers if type(one) is not logging.StreamHandler])
    place = tmp_path / "é, [1]=#.tif"
    rasterio.shutil.copy(images_of_every_kind()["rasterio"], place, driver="GTiff")

    def restored(seed: int) -> list[Path]:
        found: list[Path] = rsdiff.restore(
            place, "bicubic", scale=2, seed=seed, output=tmp_path / f"x,{seed}.tif", outputs=tmp_path / "runs"
        )
        return found

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(restored, range(3)))
    assert made == [[tmp_path / f"x,{seed}.tif"] for seed in range(3)]
    print("heard")  # what one thread silences, another does not
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("heard\n", "")
    assert run_command("task=restore", "model=bicubic", "scale=2", f"input={place}", "output=typed.tif").code == 0
    with rasterio.open("typed.tif") as typed, rasterio.open(made[0][0]) as called:
        np.testing.assert_array_equal(typed.read(), called.read())
    (noted,) = {
        json.loads(path.read_text())["command"][:3:2] == ["-m", "task=restore"]
        for path in (tmp_path / "runs").glob("*/*/*/provenance.jsonl")
    }
    assert noted
    with pytest.raises(UserError, match="give output="):
        rsdiff.restore(place)


def test_floats_are_values_in_unit_range_and_layouts_are_named() -> None:
    model = rsdiff.load("bicubic")
    floats = PIXELS.astype(np.float32) / 255
    made = model.restore(floats, scale=2)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.clip(0, 1), model.restore(PIXELS, scale=2) / 255, atol=0.51 / 255)
    first = model.restore(floats.transpose(2, 0, 1), scale=2, layout="CHW")
    np.testing.assert_array_equal(first.transpose(1, 2, 0), made)
    gray = model.restore(PIXELS[..., 0], scale=2)
    assert gray.shape == (40, 48)
    mean, spread = model.restore(floats, scale=2, samples=2)
    assert mean.shape == spread.shape == (40, 48, 3)


def test_a_tensor_of_bfloat16_comes_back_as_one() -> None:
    floats = torch.from_numpy(PIXELS.transpose(2, 0, 1).astype(np.float32) / 255).to(torch.bfloat16)
    model = rsdiff.load("bicubic")
    assert torch.equal(model.restore(floats, scale=2), model.restore(floats.float(), scale=2).to(torch.bfloat16))


def test_the_spread_of_a_picture_is_in_its_grey_levels() -> None:
    """However small it is: one of less than a level is not spread over all of them."""
    even = (PIXELS // 64 + 100).astype(np.uint8)
    given = rsdiff.load("bicubic").restore(Image.fromarray(even), scale=2, samples=2)[1]
    spread = rsdiff.load("bicubic").restore(even, scale=2, samples=2)[1]
    np.testing.assert_array_equal(np.asarray(given), np.floor(spread + 0.5))


MISSING = (np.add.outer(np.arange(20) // 3, np.arange(24) // 4) % 5 == 0)[..., None] & np.array([True, False, True])


def images_with_holes(under: int) -> dict[str, object]:
    """Return an image of which `MISSING` is not known, as each kind tells it, with `under` in the missing pixels of the masks."""
    values = np.where(MISSING, under, np.maximum(PIXELS, 1))
    memory, floats = MemoryFile(), np.where(MISSING, np.nan, values / np.float32(255)).astype(np.float32)
    with memory.open(driver="GTiff", count=3, height=20, width=24, dtype="uint8", crs="EPSG:32633", transform=GRID, nodata=0) as file:
        file.write(np.where(MISSING, 0, values).astype(np.uint8).transpose(2, 0, 1))
    return {
        "masked": np.ma.MaskedArray(values.astype(np.uint8), MISSING),
        "numpy": floats,
        "tensor": torch.from_numpy(floats.transpose(2, 0, 1).copy()),
        "rasterio": memory.open(),
        "xarray": xarray.DataArray(np.where(MISSING, 0, values).astype(np.uint8), dims=["y", "x", "band"], attrs={"_FillValue": 0}),
    }


def test_what_is_missing_stays_missing_and_what_stands_there_changes_nothing() -> None:
    model, enlarged = rsdiff.load("bicubic"), MISSING.repeat(2, 0).repeat(2, 1)
    whole = model.restore(np.maximum(PIXELS, 1), scale=2)
    first, second = images_with_holes(200), images_with_holes(3)
    for kind, image in first.items():
        made = model.restore(image, scale=2)
        assert type(made) is type(image), kind
        valid = picture_of(made).valid.transpose(1, 2, 0)
        np.testing.assert_array_equal(valid, ~enlarged, err_msg=kind)
        np.testing.assert_array_equal(pixels_of(made)[valid], pixels_of(model.restore(second[kind], scale=2))[valid], err_msg=kind)
        unit = 1 if pixels_of(made).dtype.kind == "u" else 255
        assert abs((pixels_of(made)[..., 1] * float(unit)).clip(0, 255) - whole[..., 1]).max() <= 1, (
            kind
        )  # a band of which everything is known
        lr, hr, _ = rsdiff.degrade(image, "bicubic", scale=2)
        np.testing.assert_array_equal(picture_of(hr).valid.transpose(1, 2, 0), ~MISSING, err_msg=kind)
        known = picture_of(lr).valid.transpose(1, 2, 0)
        assert known[..., 1].all(), kind
        assert not known[::3, ::4, 0].all(), kind
        assert rsdiff.score(image, np.maximum(PIXELS, 1), metrics=["psnr"])[0]["psnr"] > 60, kind
    holes = np.ma.MaskedArray(PIXELS, np.ones(PIXELS.shape, np.bool_))
    with pytest.raises(UserError, match="every pixel of an image is missing"):
        rsdiff.degrade(holes, "bicubic", scale=2)


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path) -> None:
    model = rsdiff.load("bicubic")
    with pytest.raises(UserError, match=r"open it first"):
        model.restore("scene.tif")
    with pytest.raises(UserError, match=r"convert it: image.convert"):
        model.restore(Image.fromarray(PIXELS).convert("P"))
    with pytest.raises(UserError, match=r"image 0 has the shape"):
        rsdiff.score(PIXELS, PIXELS[:10])
    scene = images_of_every_kind()["xarray"]
    for wrong, said in (
        (PIXELS[:0], "0 x 24 pixels"),
        (PIXELS.transpose(2, 0, 1), "layout='CHW'"),
        (scene.expand_dims(time=2), r"array.isel\(time=0\)"),
        (scene.to_dataset(), r"dataset\['NAME'\]"),
    ):
        for call in (model.restore, lambda image: rsdiff.degrade(image, "bicubic"), lambda image: rsdiff.score(image, image)):
            with pytest.raises(UserError, match=said):
                call(wrong)
    for options, said in (
        ({"scale": 0}, "a number above 0"),
        ({"scale": 0.5}, "give 1 or more"),
        ({"seed": "x"}, "whole number"),
        ({"tiles": 8}, "^tiles is not an option .did you mean tile"),
        ({"sampler": {"stps": 3}}, "did you mean steps"),
    ):
        with pytest.raises(UserError, match=said):
            model.restore(PIXELS, **options)
    for degradation, said in (("gaussian8_x4", r"only=\['width1.8'\]"), ("paired", "makes no LR")):
        with pytest.raises(UserError, match=said):
            rsdiff.degrade(PIXELS, degradation)
    assert len(rsdiff.degrade(PIXELS, "gaussian8_x4", only=["width1.8"])) == 3
    for words, said in (
        (("-m", "scale=2"), "flags to the command"),
        ((["scale=2"],), "each by itself"),
        (("scale=2,4",), "several values"),
    ):
        with pytest.raises(ConfigError, match=said):
            rsdiff.compose(*words)
    with pytest.raises(UserError, match="give 'cpu'"):
        rsdiff.load("bicubic", device="gpu")
    with pytest.raises(UserError, match="weights to learn"):
        rsdiff.load("rrdb")
    with pytest.raises(ConfigError, match="did you mean"):
        rsdiff.compose("model=sr3_tny")
    with pytest.raises(UserError, match="does not exist"):
        rsdiff.load(tmp_path / "nowhere")


def test_a_trained_model_restores_and_is_evaluated_without_a_word(run_command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    small = ["trainer.steps=1", "trainer.batch=1", "trainer.patch=32", "dataset.size=64", "metrics.metrics=[psnr]"]
    assert run_command("model=rrdb_tiny", *small).code == 0
    (run,) = Path("outputs/train").glob("*/*")
    model = rsdiff.load(run)
    assert "x4, 3 to 3 bands" in repr(model)
    restored = model.restore(PIXELS, seed=1)
    assert restored.shape == (80, 96, 3)
    np.testing.assert_array_equal(restored, model.restore(PIXELS, seed=1))
    with pytest.raises(UserError, match="leave scale=3 out"):
        model.restore(PIXELS, scale=3)
    rows = rsdiff.evaluate(run, "metrics.metrics=[psnr]")
    assert len(rows) == 8
    assert rows["psnr"].notna().all()
    assert rsdiff.score([restored] * 2, [restored] * 2, "basicsr_y", metrics=["ssim"])[1]["ssim"] == pytest.approx(1.0)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def test_sixteen_bits_are_scored_by_a_peak_that_is_given_and_not_rounded() -> None:
    generator = np.random.default_rng(0)
    reference = generator.integers(300, 3360, (32, 32, 3)).astype(np.uint16)
    restored = reference + generator.integers(-20, 21, reference.shape).astype(np.int16).astype(np.uint16)
    with pytest.raises(UserError, match="for example peak=10000"):
        rsdiff.score(restored, reference, metrics=["psnr"])
    error = np.mean((restored.astype(np.float64) - reference) ** 2)
    for kind in (np.uint16, np.float32):
        (row,) = rsdiff.score(restored.astype(kind), reference.astype(kind), "basicsr_rgb", metrics=["psnr"], peak=10000, scale=1)
        inner = (slice(1, -1), slice(1, -1))  # of the border that the protocol leaves out at scale 1
        error = np.mean((restored.astype(np.float64) - reference)[inner] ** 2)
        assert row["psnr"] == pytest.approx(10 * np.log10(10000**2 / error), abs=1e-3)


def test_an_overshoot_of_what_was_restored_is_no_reason_to_refuse() -> None:
    reference = np.full((32, 32, 3), 0.999, np.float32)
    (row,) = rsdiff.score(reference + np.float32(0.01), reference, metrics=["psnr"])
    assert row["psnr"] > 30


def test_advice_of_a_restoration_is_given_in_python_and_works() -> None:
    reflectances = np.random.default_rng(0).integers(300, 3360, (24, 24, 3)).astype(np.uint16)
    model = rsdiff.load("zoo:any_scale")
    with pytest.raises(UserError) as refused:
        model.restore(reflectances, scale=2)
    said = str(refused.value)
    assert said.startswith("the image holds")
    advised = re.findall(r"scaling='(\w+)'(?:, gain=([\d.e-]+))?", said)
    assert advised
    for scaling, gain in advised:
        options = {"gain": float(gain)} if gain else {}
        restored = model.restore(reflectances, scale=2, scaling=scaling, **options)
        assert 0.5 < restored.mean() / reflectances.mean() < 2
