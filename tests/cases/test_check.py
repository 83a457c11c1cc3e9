"""task=check says at once what would end a run late; dataset.odd=skip goes on without what is damaged; both name it."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from tests.cases.test_leaks import TRAIN, counts, images
from tests.conftest import Command, Ended

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning", "ignore::PendingDeprecationWarning")
FOLDER = ("dataset=folder", "dataset.root=mine")
PAIRS = ("dataset=paired", "dataset.root=mine", "dataset.split=all")


def picture(path: Path, H: int, W: int, bands: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 255, (H, W, bands)).astype(np.uint8)
    Image.fromarray(values if bands > 1 else values[..., 0]).save(path)


def cut_short(path: Path) -> None:
    """Leave the header of an image and lose its end."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def raster(path: Path, values: np.ndarray, corner: tuple[float, float] = (1000.0, 2000.0), pixel: float = 1.0) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": from_origin(*corner, pixel, pixel)}
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **place) as file:
        file.write(values)


def problems(ended: Ended) -> list[str]:
    return re.findall(r"^ *\d+\. (.*)$", ended.out, re.MULTILINE)


def said(ended: Ended, *words: str) -> bool:
    """Say whether one of the problems listed holds all these words."""
    return any(all(word in problem for word in words) for problem in problems(ended))


def test_everything_that_is_wrong_with_a_folder_is_listed_and_skipping_it_trains(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "mine", 16)
    cut_short(tmp_path / "mine" / "3.png")
    cut_short(tmp_path / "mine" / "4.png")
    (tmp_path / "mine" / "page.png").write_text("<html>not found</html>")
    picture(tmp_path / "mine" / "grey.png", 24, 24, bands=1)
    Image.new("RGB", (24, 24), (7, 7, 7)).save(tmp_path / "mine" / "flat.png")
    checked = run_command("task=check", *TRAIN[:-1], *FOLDER)
    assert checked.code == 1
    for words in (
        ("3.png", "truncated"),
        ("4.png", "truncated"),
        ("page.png", "not an image"),
        ("grey.png", "1 band"),
        ("flat", "everywhere"),
    ):
        assert said(checked, *words), (words, checked.out)
    assert len(problems(checked)) == 5
    assert "5 problems were found" in checked.err
    (report,) = (tmp_path / "outputs" / "check").rglob("check.md")
    assert "page.png" in report.read_text()

    refused = run_command(*TRAIN, *FOLDER)
    assert refused.code == 1
    advised = re.search(r"dataset\.odd=\w+", refused.err)
    assert advised is not None
    trained = run_command(*TRAIN, *FOLDER, advised[0])
    assert trained.code == 0, trained.err
    assert sum(counts(trained).values()) == 15
    for name in ("3.png", "4.png", "page.png", "grey.png"):
        assert name in trained.out
        (results,) = (tmp_path / "outputs" / "train").rglob("results.md")
        assert name in results.read_text()

    for name in ("3", "4", "page", "grey", "flat"):
        (tmp_path / "mine" / f"{name}.png").unlink()
    again = run_command("task=check", *TRAIN[:-1], *FOLDER)
    assert again.code == 0, again.out
    assert "nothing wrong was found" in again.out


@pytest.mark.slow
def test_pairs_of_wrong_sizes_and_places_are_listed_and_left_out(run_command: Command, tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "mine" / "HR" / f"{number}.png", 24, 24)
        picture(tmp_path / "mine" / "LR" / f"{number}.png", 12, 12)
    picture(tmp_path / "mine" / "LR" / "2.png", 10, 12)
    picture(tmp_path / "mine" / "HR" / "alone.png", 24, 24)
    cut_short(tmp_path / "mine" / "LR" / "4.png")
    checked = run_command("task=check", *TRAIN[:-1], *PAIRS)
    assert checked.code == 1
    assert said(checked, "LR/2.png", "10x12")
    assert said(checked, "alone.png", "no partner")
    assert said(checked, "LR/4.png", "truncated")
    trained = run_command(*TRAIN, *PAIRS, "dataset.odd=skip")
    assert trained.code == 0, trained.err
    assert counts(trained) == {"training": 3, "validation": 1, "test": 4}


def test_pairs_on_other_ground_and_in_other_units_are_told(run_command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(4):
        low = generator.integers(20, 200, (3, 12, 12)).astype(np.uint8)
        corner = (1000.0, 2000.0) if number else (1003.0, 2000.0)  # one and a half LR pixels apart
        raster(tmp_path / "mine" / "HR" / f"{number}.tif", low.repeat(2, 1).repeat(2, 2).astype(np.uint16) * 40, corner)
        raster(tmp_path / "mine" / "LR" / f"{number}.tif", low, pixel=2.0)
    guessed = run_command("task=check", *TRAIN[:-1], *PAIRS)
    assert guessed.code == 1
    assert said(guessed, "HR holds uint16 values", "which they fill next to nothing", "dataset.range=measured")
    insisted = run_command("task=check", *TRAIN[:-1], *PAIRS, "dataset.range=type")
    assert insisted.code == 1
    assert said(insisted, "1 of 4 samples", "0", "1.5 LR pixels apart")
    assert said(insisted, "lr images are 6.4 times as bright as hr images")


def test_files_whose_bands_mean_something_else_are_told(run_command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    for number in range(4):
        low = generator.integers(20, 9000, (3, 12, 12)).astype(np.uint16)
        raster(tmp_path / "mine" / "HR" / f"{number}.tif", low.repeat(2, 1).repeat(2, 2))
        raster(tmp_path / "mine" / "LR" / f"{number}.tif", low, pixel=2.0)
        for role in ("HR", "LR"):
            with rasterio.open(tmp_path / "mine" / role / f"{number}.tif", "r+") as file:
                file.colorinterp = colours[::-1] if (role, number) == ("LR", 2) else colours
                file.scales, file.offsets = (1e-4,) * 3, (-0.1 if (role, number) == ("HR", 1) else 0.0,) * 3
        image = np.concatenate([low // 36, np.full((1, 12, 12), 255)]).astype(np.uint8)
        Image.fromarray(image.repeat(3, 1).repeat(3, 2).transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    pairs = run_command("task=check", *TRAIN[:-1], *PAIRS, "dataset.range=sentinel2_harmonized")
    assert pairs.code == 1
    assert said(pairs, "1 of 4 samples have files whose lr has the bands blue, green, red in another order than those of hr", "2")
    assert said(pairs, "1 of 4 lr images have the bands blue, green, red")
    assert said(pairs, "1 of 4 hr images have the scale 0.0001 and offset -0.1, not the 0.0001 and 0 of most others", "1")
    for word, is_told in (("dataset.extensions=[png]", True), ("dataset.take_bands=[1,2,3]", False)):
        opaque = run_command("task=check", *TRAIN[:-1], "dataset=folder", "dataset.root=.", "dataset.extensions=[png]", word)
        assert ("leave it out with dataset.take_bands=[1,2,3]" in " ".join(opaque.out.split())) == is_told, opaque.out


def test_a_range_that_does_not_suit_is_told_with_one_that_does(run_command: Command, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(8):
        raster(tmp_path / "mine" / f"{number}.tif", generator.integers(300, 3360, (3, 24, 24)).astype(np.uint16))
    checked = run_command("task=check", *TRAIN[:-1], *FOLDER)
    assert checked.code == 1
    advised = re.findall(r"dataset\.range=\w+", "\n".join(problems(checked)))
    assert advised[0] == "dataset.range=sentinel2_harmonized"
    assert run_command("task=check", *TRAIN[:-1], *FOLDER, advised[0]).code == 0


def test_images_too_small_for_the_crop_and_a_folder_that_is_not_there_are_told(run_command: Command, tmp_path: Path) -> None:
    missing = run_command("task=check", *TRAIN[:-1], *FOLDER)
    assert missing.code == 1
    assert said(missing, "dataset.root=mine does not exist")
    images(tmp_path / "mine", 8, side=12)
    small = run_command("task=check", *TRAIN[:-1], *FOLDER)
    assert said(small, "smaller than the training crop of 16x16")
    advised = re.search(r"trainer\.patch=\d+", "\n".join(problems(small)))
    assert advised is not None
    fitting = [word for word in TRAIN[:-1] if not word.startswith("trainer.patch")]
    assert run_command("task=check", *fitting, advised[0], *FOLDER).code == 0


def test_a_packed_file_that_is_damaged_is_told(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "mine", 8)
    assert run_command("task=prepare", "dataset=folder", "source=mine", "output=packed.h5").code == 0
    packed = ("dataset=packed", "dataset.file=packed.h5")
    assert run_command("task=check", *TRAIN[:-1], *packed).code == 0
    content = bytearray((tmp_path / "packed.h5").read_bytes())
    with h5py.File(tmp_path / "packed.h5", "r") as file:
        content[file["pixels/hr"].id.get_offset() + 100] ^= 255
    (tmp_path / "packed.h5").write_bytes(content)
    broken = run_command("task=check", *TRAIN[:-1], *packed)
    assert broken.code == 1
    assert said(broken, "1 images of packed.h5", "damaged")
