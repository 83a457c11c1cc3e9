"""Images with missing pixels, as a user has them: scored as if the pixels were there and masked, and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from rsdiff.reporting.records import read_records
from tests.conftest import Command

SIDE, MISSING = 64, 65535
RANGE = ("dataset.normaliser.rule=fixed", "dataset.normaliser.high=[10000]")


def scene(seed: int) -> NDArray[np.uint16]:
    """Two bands of reflectances."""
    generator = np.random.default_rng(seed)
    low = generator.integers(500, 4000, (2, 8, 8)).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(band).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for band in low]).astype(np.uint16)


def write(path: Path, values: NDArray[Any], valid: NDArray[np.bool_], as_nodata: bool) -> None:
    """Write a GeoTIFF whose missing pixels hold a nodata value, or the true values under a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(values), "height": SIDE, "width": SIDE, "dtype": values.dtype.name}
    profile |= {"nodata": MISSING} if as_nodata else {}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(np.where(valid, values, MISSING) if as_nodata else values)
        if not as_nodata:
            file.write_mask(valid.all(0))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for index in range(3):
        valid = np.ones((2, SIDE, SIDE), np.bool_)
        valid[:, :, : 16 * index] = False
        for name in ("nodata", "mask"):
            write(tmp_path / name / f"{index}.tif", scene(index), valid, name == "nodata")
    return tmp_path


def test_scores_do_not_depend_on_how_missing_pixels_are_stored(run_command: Command, folders: Path) -> None:
    found = []
    for name in ("nodata", "mask"):
        data = ("dataset=folder", f"dataset.root={folders / name}", "dataset.split=test", *RANGE)
        words = ("task=evaluate", "model=bicubic", "scale=2", *data)
        ended = run_command(*words, "metrics.metrics=[psnr,ssim,lr_psnr]", f"outputs={folders / name}-out")
        assert ended.code == 0, ended.err
        (records,) = (folders / f"{name}-out").rglob("records.parquet")
        found.append(read_records(records.parent).drop(columns="seconds"))
    assert found[0].to_dict() == found[1].to_dict()
    assert found[0]["valid_share"].tolist()[1:] == pytest.approx([1 - (16 + 5) / SIDE, 1 - (32 + 5) / SIDE])  # bicubic x2 mixes 5 pixels


def test_training_on_images_with_missing_pixels_goes_on(run_command: Command, folders: Path) -> None:
    data = ("dataset=folder", f"dataset.root={folders / 'nodata'}", *RANGE)
    words = ("model=rrdb_tiny", "scale=2", *data, "trainer.steps=2", "trainer.batch=2", "trainer.validation_images=1")
    ended = run_command(*words, "trainer.patch=32", "trainer.workers=0", "trainer.validate_every_steps=0", f"outputs={folders / 'out'}")
    assert ended.code == 0, ended.err
    assert "valid_share" in next((folders / "out").rglob("records.csv")).read_text()
