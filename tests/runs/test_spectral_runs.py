"""Spectral super-resolution as a user runs it: from a cube with an ENVI header to a GeoTIFF with the wavelengths of that header."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsdiff.data.opening import without_warnings
from rsdiff.training.checkpoints import read_checkpoint
from tests.conftest import Command

BANDS, WAVELENGTHS = 16, [400 + 40 * band for band in range(16)]
SHORT = [
    "trainer.steps=3",
    "trainer.batch=2",
    "trainer.patch=16",
    "trainer.validate_every_steps=3",
    "trainer.workers=0",
    "metrics.metrics=[sam,rmse]",
]


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """Write an ENVI cube of 40 x 48 pixels whose spectra are mixtures of four smooth curves, and return its folder."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(4), (40, 48)).transpose(2, 0, 1)
    curves = np.stack([np.sin(np.linspace(0.3, 1 + k, BANDS)) + 0.2 for k in range(4)])
    values = np.rint(4000 * np.einsum("krc,kb->brc", shares, curves)).clip(0).astype(np.uint16)
    folder = tmp_path / "cubes"
    folder.mkdir()
    path = folder / "scene.dat"
    with without_warnings(), rasterio.open(path, "w", driver="ENVI", count=BANDS, height=40, width=48, dtype="uint16") as file:
        file.write(values)
    header = path.with_suffix(".hdr")
    header.write_text(header.read_text() + f"wavelength units = Nanometers\nwavelength = {{{', '.join(map(str, WAVELENGTHS))}}}\n")
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "evaluation" / "records.csv").open() as stream:
        return list(csv.DictReader(stream))


def trained(run_command: Command, tmp_path: Path, cube: Path, *settings: str) -> Path:
    """Train in a few steps and return the run's folder."""
    ended = run_command("dataset=hyperspectral", f"dataset.root={cube}", *settings, *SHORT)
    assert ended.code == 0, ended.err
    assert "linear" in ended.out
    (folder,) = (tmp_path / "outputs/train").glob("*/*")
    return folder


def test_scdm_tiny_learns_both_stages_and_restores_a_sensors_image_to_a_cube_with_wavelengths(
    run_command: Command, tmp_path: Path, cube: Path
) -> None:
    folder = trained(run_command, tmp_path, cube, "model=scdm_quick", "sampler.steps=2", "degradation=srf", "degradation.sensor=ikonos")
    (row,) = rows(folder)
    assert 0 < float(row["linear_rmse"]) < float(row["rmse"])  # three steps; the world of `cube` is linear
    assert list((folder / "evaluation" / "panels").glob("*.spectra.png"))
    checkpoint = read_checkpoint(folder)
    assert checkpoint.card["problem"]["lr_bands"] == 4
    assert {key.split(".")[1] for key in checkpoint.weights if key.startswith("networks.")} == {"0", "1"}

    seen = np.random.default_rng(1).integers(0, 4500, (4, 21, 30)).astype(np.uint16)
    place = from_origin(271460, 3290891, 1, 1)
    with rasterio.open(
        tmp_path / "seen.tif", "w", count=4, height=21, width=30, dtype="uint16", driver="GTiff", crs="EPSG:32615", transform=place
    ) as file:
        file.write(seen)
    for dtype, expected in (("input", "uint16"), ("float32", "float32")):
        output = tmp_path / f"{dtype}.tif"
        ended = run_command(
            "task=restore", f"checkpoint={folder}", f"input={tmp_path / 'seen.tif'}", f"output={output}", f"task.dtype={dtype}"
        )
        assert ended.code == 0, ended.err
        with rasterio.open(output) as file:
            assert (file.count, file.height, file.width, file.dtypes[0]) == (BANDS, 21, 30, expected)
            assert (file.transform, file.crs.to_epsg()) == (place, 32615)
            assert [float(file.tags(band)["wavelength"]) for band in range(1, BANDS + 1)] == WAVELENGTHS
            values = file.read()
        if dtype == "input":
            whole = values
    assert np.abs(whole - values.clip(0, 65535)).max() <= 0.5 + 1e-3  # rounded to the nearest; float32 holds these to about 1e-4


def test_a_checkpoint_is_evaluated_beside_the_regression_that_stood_beside_its_training(
    run_command: Command, tmp_path: Path, cube: Path
) -> None:
    folder = trained(run_command, tmp_path, cube, "model=spectral_cnn_tiny", "degradation.bands=[2,6,11]")
    ended = run_command("task=evaluate", f"checkpoint={folder}", "metrics.metrics=[sam,rmse]")
    assert ended.code == 0, ended.err
    (again,) = (tmp_path / "outputs/evaluate").glob("*/*")
    columns = ("name", "sam", "rmse", "linear_sam", "linear_rmse")
    assert [[row[column] for column in columns] for row in rows(again)] == [[row[column] for column in columns] for row in rows(folder)]


def test_responses_without_wavelengths_are_refused_in_a_sentence(run_command: Command, tmp_path: Path, cube: Path) -> None:
    header = cube / "scene.hdr"
    header.write_text("\n".join(line for line in header.read_text().splitlines() if not line.startswith("wavelength")))
    ended = run_command("dataset=hyperspectral", f"dataset.root={cube}", "model=scdm_quick", "sampler.steps=2", "degradation=srf", *SHORT)
    assert ended.code in (1, 2)
    assert "dataset.wavelengths" in ended.err
    assert ended.err.count("\n") <= 2
