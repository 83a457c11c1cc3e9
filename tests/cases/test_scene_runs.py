"""Restoring as a user types it: batches with a bad scene, outputs that are not ours, grey scenes through networks of three bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from tests.cases.scene_cases import smooth
from tests.conftest import Command
from tests.runs.test_restore import checkpoint
from tests.scene_methods import pixels, write_raster

__all__ = ["checkpoint"]
BICUBIC = ("task=restore", "model=bicubic", "scale=2", "task.preview=false")


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    folder = tmp_path / "batch"
    folder.mkdir()
    for number, name in enumerate(("a", "broken", "z")):
        write_raster(folder / f"{name}.tif", smooth(3, 20, 24, 0, 255, number).astype(np.uint8))
    content = (folder / "broken.tif").read_bytes()
    (folder / "broken.tif").write_bytes(content[: len(content) // 2])
    return folder


def test_a_batch_goes_on_after_a_bad_scene_and_the_command_continues_when_it_is_repaired(run_command: Command, batch: Path) -> None:
    (batch / "text.tif").write_text("no raster, which its first bytes say")
    ended = run_command(*BICUBIC, "input=batch", "output=out")
    assert ended.code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_x2.tif", "z_x2.tif"]
    assert "2 of 4 scenes failed, first " in ended.err
    assert "batch/broken.tif failed: " in ended.out
    complaints = [line for line in ended.err.splitlines() if "GDAL" in line or "TIFFRead" in line]
    assert len(complaints) <= 1  # the one sentence, nothing of GDAL's own
    before = Path("out/a_x2.tif").stat().st_mtime_ns
    again = run_command(*BICUBIC, "input=batch", "output=out")  # what failed is not finished
    assert again.code == 1
    assert "2 of 4 scenes failed" in again.err
    (batch / "text.tif").unlink()
    write_raster(batch / "broken.tif", smooth(3, 20, 24, 0, 255).astype(np.uint8))
    assert run_command(*BICUBIC, "input=batch", "output=out").code == 0
    assert len(list(Path("out").iterdir())) == 3
    assert Path("out/a_x2.tif").stat().st_mtime_ns >= before


def test_an_output_that_is_not_ours_is_replaced_only_if_asked(run_command: Command, batch: Path) -> None:
    for name in ("mine.tif", "mine.png"):
        if name.endswith("png"):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(name)
        else:
            write_raster(Path(name), np.zeros((1, 4, 4), np.uint8))
        before = Path(name).read_bytes()
        refused = run_command(*BICUBIC, f"input={batch / 'a.tif'}", f"output={name}")
        assert refused.code != 0
        assert "was not written by rsdiff; choose another output, or replace it with task.overwrite=true" in refused.err
        assert Path(name).read_bytes() == before
        assert run_command(*BICUBIC, f"input={batch / 'a.tif'}", f"output={name}", "task.overwrite=true").code == 0
        assert run_command(*BICUBIC, f"input={batch / 'z.tif'}", f"output={name}").code == 0  # it is ours now


def test_a_grey_scene_goes_through_a_network_of_three_bands(run_command: Command, tmp_path: Path, checkpoint: Path) -> None:
    grey = smooth(1, 20, 24, 0, 255).astype(np.uint8)
    source = write_raster(tmp_path / "grey.tif", grey, nodata=0)
    arguments = ["task=restore", f"checkpoint={checkpoint}", f"input={source}", "output=out.tif", "task.tile=32"]
    refused = run_command(*arguments)
    assert "set task.convert=rgb" in refused.err
    ended = run_command(*arguments, "task.convert=rgb")
    assert ended.code == 0, ended.err
    with rasterio.open("out.tif") as file:
        assert (file.count, file.shape, file.nodata) == (1, (80, 96), 0)


def test_the_format_names_the_outputs_of_a_folder(run_command: Command, batch: Path) -> None:
    (batch / "broken.tif").unlink()
    assert run_command(*BICUBIC, "input=batch", "output=out", "task.format=png").code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_x2.png", "a_x2.png.aux.xml", "z_x2.png", "z_x2.png.aux.xml"]
    assert pixels(Path("out/a_x2.png")).shape == (3, 40, 48)
    assert "name it c.png" in run_command(*BICUBIC, f"input={batch / 'a.tif'}", "output=c.tif", "task.format=png").err
