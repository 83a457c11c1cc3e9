"""Blocks of a scene without a single valid pixel are written without a tile being restored, read or blended for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rsdiff.inference.scene_input import NormalisedScene, SceneReader
from rsdiff.inference.tiling import Grid
from rsdiff.metrics.calibration import as_drawn
from tests.scene_methods import diffusion, job, landscape, pixels, regression, restored, write_raster

HEIGHT, WIDTH, VALID = 20, 300, 100
"""Input pixels; enlarged four times they make a row of three blocks of 512, of which the last two are empty."""


@pytest.fixture
def blended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the blocks that are blended from tiles, filled while scenes are restored."""
    blocks: list[int] = []
    blend = Grid.blend

    def noted(self: Grid, block: int, tiles: Any) -> Any:
        blocks.append(block)
        return blend(self, block, tiles)

    monkeypatch.setattr(Grid, "blend", noted)
    return blocks


def scene(folder: Path, bands: int = 3) -> Path:
    values = landscape(bands, HEIGHT, WIDTH)
    values[:, :, VALID:] = 0
    return write_raster(folder / "scene.tif", values, nodata=0)


def is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.broadcast_to(np.arange(4 * WIDTH) >= 4 * VALID, values.shape)


def test_empty_blocks_of_every_raster_are_missing_and_not_blended(tmp_path: Path, blended: list[int]) -> None:
    work = replace(job(tmp_path, scene(tmp_path), diffusion(), samples=2), calibration=as_drawn(2))
    image, spread, interval = (pixels(path) for path in restored(work).outputs)
    assert blended == [0]
    np.testing.assert_array_equal(image == 0, is_missing(image))
    np.testing.assert_array_equal(np.isnan(spread), is_missing(spread))
    np.testing.assert_array_equal(np.isnan(interval), is_missing(interval))


def test_empty_blocks_of_pictures_are_transparent(tmp_path: Path, blended: list[int]) -> None:
    restored(job(tmp_path, scene(tmp_path), regression(), name="out.png"))
    assert blended == [0]
    with rasterio.open(tmp_path / "out.png") as file:
        np.testing.assert_array_equal(file.read(4) == 0, is_missing(file.read(4)))


def test_a_band_that_is_shown_three_times_is_empty_once(tmp_path: Path, blended: list[int]) -> None:
    restored(job(tmp_path, scene(tmp_path, bands=1), regression(), convert="rgb"))
    assert blended == [0]
    image = pixels(tmp_path / "out.tif")
    assert len(image) == 1
    np.testing.assert_array_equal(image == 0, is_missing(image))


def test_windows_without_a_valid_pixel_are_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SceneReader(scene(tmp_path)) as reader:
        image = NormalisedScene(reader, job(tmp_path, scene(tmp_path), regression()).trained)  # type: ignore[arg-type]
        monkeypatch.setattr("rsdiff.inference.scene_input.filled", lambda *_: pytest.fail("an empty window was filled"))
        values, has_valid = image.window(0, VALID + 1, 30, 40)
    assert values.shape == (3, 30, 40)
    assert not has_valid
