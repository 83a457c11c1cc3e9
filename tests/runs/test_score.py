"""task=score: folders that any tool restored, against their references, as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image import PeakSignalNoiseRatio

import rsdiff
from rsdiff.reporting.records import read_records
from tests.conftest import Command

SIDE, COUNT = 48, 7


def picture(seed: int, noise: float = 0.0) -> NDArray[np.uint8]:
    low = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(low).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.float64)
    noisy = whole + np.random.default_rng(seed + 100).normal(0, noise, whole.shape) if noise else whole
    return noisy.clip(0, 255).round().astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """References in two classes, and what two tools made of them, with names of their own."""
    for index in range(COUNT):
        label = "port" if index % 2 else "field"
        for folder, name, noise in (("hr", "{}", 0.0), ("good", "{}_SRx4", 3.0), ("bad", "{}", 12.0)):
            path = tmp_path / folder / label / f"{name.format(index)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(index, noise)).save(path)
    return tmp_path


def score(run_command: Command, folders: Path, *words: str) -> Path:
    """Give the command and return the run's folder."""
    ended = run_command("task=score", f"hr={folders / 'hr'}", f"outputs={folders / 'outputs'}", *words)
    assert ended.code == 0, ended.err
    (page,) = (folders / "outputs").rglob("report.html")
    return page.parent


def test_a_folder_of_another_tool_gets_tables_records_and_a_page_and_torchmetrics_values(run_command: Command, folders: Path) -> None:
    place = score(run_command, folders, f"sr={folders / 'good'}", "metrics=basicsr_rgb", "scale=4")
    records = read_records(place / "evaluation")
    assert len(records) == COUNT
    for _, row in records.iterrows():
        index = int(str(row["name"]).rsplit("/", 1)[1])
        images = [torch.from_numpy(picture(index, noise)[4:-4, 4:-4].astype(np.float32)) for noise in (3.0, 0.0)]
        assert row["psnr"] == pytest.approx(float(PeakSignalNoiseRatio(data_range=255.0)(*images)), abs=1e-4)
        assert row["class"] == ("port" if index % 2 else "field")
    summaries = json.loads((place / "evaluation" / "summary.json").read_text())
    assert set(summaries) == {"", "field", "port"}
    assert "### port" in (place / "results.md").read_text()


def test_folders_of_all_references_are_degradations_with_a_row_each(run_command: Command, folders: Path) -> None:
    """Beside class folders, and with LR images of each degradation."""
    both, inputs = folders / "both", folders / "inputs"
    for name, tool in (("iso", "good"), ("aniso", "bad")):
        shutil.copytree(folders / tool, both / name)
        for path in (folders / "hr").rglob("*.png"):
            place = inputs / name / path.relative_to(folders / "hr")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).reduce(4 if name == "iso" else 8).resize((SIDE // 4,) * 2).save(place)
    words = "metrics=basicsr_rgb", "metrics.metrics=[psnr]", "scale=4"
    place = score(run_command, folders, f"sr={both}", f"task.lr_folder={inputs}", *words)
    records = read_records(place / "evaluation")
    assert len(records) == 2 * COUNT
    assert dict(records.groupby("degradation").size()) == {"iso": COUNT, "aniso": COUNT}
    assert set(json.loads((place / "evaluation" / "summary.json").read_text())) == {"", "iso", "aniso", "field", "port"}
    psnr, bicubic = (records.groupby("degradation")[column].mean() for column in ("psnr", "bicubic_psnr"))
    assert psnr["iso"] > psnr["aniso"] + 5
    assert bicubic["iso"] > bicubic["aniso"]
    ended = run_command("task=score", f"hr={folders / 'hr'}", f"outputs={folders / 'other'}", f"sr={folders / 'bad'}", *words)
    assert ended.code == 0
    (other,) = (folders / "other").rglob("records.csv")
    assert read_records(other.parent)["psnr"].mean() == pytest.approx(psnr["aniso"])


def test_two_tools_are_compared_over_the_same_images_with_corrected_tests(run_command: Command, folders: Path) -> None:
    place = score(run_command, folders, f"sr=[{folders / 'bad'},{folders / 'good'}]", "metrics=basicsr_rgb", "metrics.metrics=[psnr]")
    text = (place / "results.md").read_text()
    assert f"PSNR: {COUNT} images that all tools have" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    good, bad = (next(row for row in rows if row[0] == name) for name in ("good", "bad"))
    assert good[-1] == "1"
    assert "0%" in bad
    assert not any("n.s." in cell for cell in bad)
    assert len(read_records(place / "evaluation")) == 2 * COUNT


def test_bands_and_masks_have_their_say(run_command: Command, folders: Path) -> None:
    for index in range(COUNT):
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[: SIDE // 2] = 0
        path = folders / "mask" / ("port" if index % 2 else "field") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    words = (f"sr={folders / 'bad'}", "metrics=basicsr_rgb", "metrics.metrics=[psnr]", "task.per_band=true")
    place = score(run_command, folders, *words, f"task.mask_folder={folders / 'mask'}")
    row = read_records(place / "evaluation").set_index("name").loc["field/0"]
    made, target = (picture(0, noise).astype(np.float64)[4:-4, 4:-4][SIDE // 2 - 4 :] for noise in (12.0, 0.0))
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / ((made - target) ** 2).mean()), abs=1e-6)
    assert row["psnr_band2"] == pytest.approx(10 * np.log10(255**2 / ((made - target)[..., 1] ** 2).mean()), abs=1e-6)
    assert row["valid_share"] == pytest.approx(0.5)


def test_reflectances_are_scored_in_their_own_range_and_missing_pixels_are_not(run_command: Command, folders: Path) -> None:
    values = np.random.default_rng(0).integers(300, 3000, (2, 32, 32)).astype(np.uint16)
    made = values + 100
    made[:, :8] = 40000
    for name, array, nodata in (("hr", values, None), ("sr", made, 40000)):
        profile = {"driver": "GTiff", "count": 2, "height": 32, "width": 32, "dtype": "uint16", "nodata": nodata}
        with rasterio.open(folders / f"{name}.tif", "w", **profile) as file:
            file.write(array)
    words = ["metrics.metrics=[psnr]", "metrics.protocol.quantise=none", "metrics.protocol.border=none", "task.low=0", "task.high=10000"]
    files = [f"sr={folders / 'sr.tif'}", f"hr={folders / 'hr.tif'}"]
    ended = run_command("task=score", *files, *words, f"outputs={folders / 'outputs'}")
    assert ended.code == 0, ended.err
    (records,) = (folders / "outputs").rglob("records.parquet")
    assert read_records(records.parent)["psnr"][0] == pytest.approx(40.0, abs=1e-4)


def test_what_does_not_belong_together_is_named(run_command: Command, folders: Path) -> None:
    (folders / "good" / "port" / "1_SRx4.png").unlink()
    ended = run_command("task=score", f"sr={folders / 'good'}", f"hr={folders / 'hr'}", f"outputs={folders / 'outputs'}")
    assert ended.code == 1
    assert "1.png has no partner in" in ended.err
    ended = run_command("task=score", f"sr={folders / 'nowhere'}", f"hr={folders / 'hr'}", f"outputs={folders / 'outputs'}")
    assert "does not exist; give an image or a folder of images" in ended.err
    for rows in (20, 47):
        Image.fromarray(picture(0)[:rows]).save(folders / "bad" / "field" / "0.png")
        ended = run_command("task=score", f"sr={folders / 'bad'}", f"hr={folders / 'hr'}", f"outputs={folders / 'outputs'}")
        assert f"is {rows}x48 pixels and its reference 48x48" in ended.err


def test_sides_that_are_no_multiple_of_the_scale_keep_its_border(tmp_path: Path) -> None:
    hr, sr = (np.random.default_rng(seed).integers(0, 256, (41, 50, 3)).astype(np.uint8) for seed in (0, 1))
    error = (hr.astype(float) - sr)[4:-4, 4:-4]
    (row,) = rsdiff.score(sr, hr, "basicsr_rgb", metrics=["psnr"])
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.square(error).mean()))
    for folder, image in (("hr", hr), ("sr", sr[:40, :48])):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a.png")
    (row,) = rsdiff.score(tmp_path / "sr", tmp_path / "hr", "basicsr_rgb", metrics=["psnr"])
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.square((hr.astype(float) - sr)[4:36, 4:44]).mean()))


def test_python_scores_folders_too(folders: Path) -> None:
    rows = rsdiff.score(folders / "good", folders / "hr", "basicsr_rgb", metrics=["psnr"])
    assert len(rows) == COUNT
    assert all(30 < row["psnr"] < 45 for row in rows)


def test_images_saved_by_an_evaluation_are_scored_as_the_evaluation_scored_them(run_command: Command, folders: Path) -> None:
    """Georeferenced where the references are, in their type; so any other tool can look at them. So are maps of their detail."""
    (folders / "geo").mkdir()
    (folders / "lr").mkdir()
    transform = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    for index in range(2):
        profile = {
            "driver": "GTiff",
            "count": 3,
            "height": SIDE,
            "width": SIDE,
            "dtype": "uint8",
            "crs": "EPSG:32633",
            "transform": transform,
        }
        with rasterio.open(folders / "geo" / f"{index}.tif", "w", **profile) as file:
            file.write(picture(index).transpose(2, 0, 1))
        Image.fromarray(picture(index)).reduce(4).save(folders / "lr" / f"{index}.png")
    judged = ["metrics.metrics=[psnr,opensr_hallucination]", "metrics.opensr.border=4", "task.save_maps=true"]
    words = ["metrics=basicsr_rgb", *judged, f"outputs={folders / 'outputs'}"]
    data = ["model=bicubic", "dataset=folder", f"dataset.root={folders / 'geo'}"]
    ended = run_command("task=evaluate", *data, "task.save_images=true", *words)
    assert ended.code == 0, ended.err
    (place,) = (folders / "outputs").rglob("evaluation/images")
    evaluated = read_records(place.parent).set_index("name")["psnr"]
    with rasterio.open(place / "1.tif") as file:
        assert (file.crs, file.transform, file.dtypes) == ("EPSG:32633", transform, ("uint8",) * 3)
    check_maps(place.parent, transform)
    ended = run_command("task=score", f"sr={place}", f"hr={folders / 'geo'}", *words)
    assert "save_maps=true compares with what the images were restored from; add task.lr_folder" in ended.err
    ended = run_command("task=score", f"sr={place}", f"hr={folders / 'geo'}", f"task.lr_folder={folders / 'lr'}", *words)
    assert ended.code == 0, ended.err
    (records,) = (folders / "outputs" / "score").rglob("records.parquet")
    check_maps(records.parent, transform)
    scored = read_records(records.parent).set_index("name")["psnr"]
    assert scored.to_dict() == pytest.approx({name: evaluated[name] for name in scored.index}, abs=1e-9)


def check_maps(evaluation: Path, transform: rasterio.transform.Affine) -> None:
    """Shares of improved, missing and invented detail add up to 1 inside the border, and their means are what the table has."""
    expected = read_records(evaluation).set_index("name")["opensr_hallucination"]
    for name in ("0", "1"):
        with rasterio.open(evaluation / "maps" / f"{name}.tif") as file:
            maps = file.read()
            assert file.descriptions == ("improvement", "omission", "hallucination")
            assert (file.crs, file.transform) == ("EPSG:32633", transform)
        assert np.isnan(maps[:, :4]).all()
        inside = maps[:, np.isfinite(maps).all(0)]
        assert 0 < inside.shape[1] <= (SIDE - 8) ** 2
        np.testing.assert_allclose(inside.sum(0), 1, atol=1e-5)
        assert inside[2].mean() == pytest.approx(expected[name], abs=1e-5)
