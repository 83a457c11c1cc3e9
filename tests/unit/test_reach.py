"""The measured reach of a restoration is that of its filters, and scenes are cut by it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.inference.reach import measured_reach
from tests.scene_methods import job, landscape, pixels, regression, restored, write_raster

CPU = torch.device("cpu")


@pytest.mark.parametrize("radius", [0, 1, 4, 9])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_reach_of_a_box_is_its_radius(radius: int, scale: int) -> None:
    def restore(lr: Tensor) -> Tensor:
        blurred = F.avg_pool2d(F.pad(lr, (radius,) * 4, mode="reflect"), 2 * radius + 1, 1)
        return F.interpolate(blurred, scale_factor=scale)

    assert measured_reach(restore, (3, 64, 64), Fraction(scale), CPU) == radius


def test_what_reaches_everywhere_and_what_reaches_nowhere() -> None:
    assert measured_reach(lambda lr: lr + lr.amax(), (1, 32, 32), Fraction(1), CPU) == 16
    assert measured_reach(lambda lr: torch.zeros_like(lr), (1, 32, 32), Fraction(1), CPU) == 0


def test_scenes_are_cut_by_the_reach_of_the_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two convolutions of 3 x 3 reach two pixels: tiles that share four hardly differ from the untiled result."""
    source = write_raster(tmp_path / "scene.tif", landscape(3, 90, 90))

    def made(name: str, **options: Any) -> tuple[NDArray[np.int64], int]:
        """Return the pixels beside the scene's own border, and the number of tiles."""
        result = restored(job(tmp_path, source, regression(), name=name, **options))
        return pixels(tmp_path / name)[:, 8:-8, 8:-8].astype(np.int64), result.tiles

    found, tiles = made("auto.tif", overlap="auto", tile=24)
    assert "task.overlap=auto: 4 pixels, since one changes the result up to 2" in capfd.readouterr().out
    assert tiles < made("wide.tif", overlap=12, tile=24)[1]
    whole, _ = made("whole.tif", overlap=0, tile=96)
    assert np.abs(found - whole).max() <= 4
    assert np.abs(made("bare.tif", overlap=0, tile=24)[0] - whole).max() > 10
