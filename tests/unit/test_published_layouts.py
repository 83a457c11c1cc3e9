"""Published data sets in the folders they are downloaded in: AIRS, WHU, UC Merced, SalCSSR and WorldStrat, a few small files of each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rasterio.transform import from_origin

from rsdiff.app.schemas import register_schemas
from rsdiff.config import config_from_mapping
from rsdiff.data import DATASETS
from rsdiff.data.layout import LayoutDataset
from rsdiff.data.source import DataError, Window
from rsdiff.data.tiles import TiledSource, grid
from rsdiff.tasks.prepare import prepare
from tests.conftest import REPOSITORY, Command

Pixels = np.ndarray[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::rasterio.errors.NotGeoreferencedWarning")


def pixels(H: int, W: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 255, (3, H, W)).astype(np.uint8)


def write(path: Path, image: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
        return path
    place = {"crs": "EPSG:2193", "transform": from_origin(1000, 2000, 0.5, 0.5)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=image.shape[1], width=image.shape[2], dtype="uint8", **place) as file:
        file.write(image)
    return path


@cache
def composed(name: str) -> DictConfig:
    """Return what conf/dataset/<name>.yaml composes to."""
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base=None):
        options = compose("config", [f"dataset={name}"]).dataset
    assert isinstance(options, DictConfig)
    return options


def shipped(name: str, root: Path, **changes: Any) -> Any:
    """Return the data set of conf/dataset/<name>.yaml with another root."""
    options = composed(name).copy()
    options.root = str(root)
    plain = OmegaConf.to_container(options, resolve=True)
    assert isinstance(plain, dict)
    kind = plain.pop("kind")
    return config_from_mapping(DATASETS[kind], {**{str(key): value for key, value in plain.items()}, **changes}, "dataset")


def test_tiles_cover_an_image_side_by_side_and_leave_out_what_is_not_whole() -> None:
    places = grid((21, 16), 8)
    assert places == [(0, 0), (0, 8), (8, 0), (8, 8)]
    assert grid((7, 100), 8) == []


@pytest.fixture
def airs(tmp_path: Path) -> Path:
    for split, count in (("train", 2), ("test", 1)):
        for number in range(count):
            write(tmp_path / "airs" / split / "image" / f"christchurch_{split}_{number}.tif", pixels(40, 50, number))
    return tmp_path / "airs"


def test_a_tile_is_the_window_of_its_raster_with_its_own_origin(airs: Path) -> None:
    source = shipped("airs", airs, tile=16, tiles_per_image=None).build("train", 4)
    names = [source.name(i) for i in range(len(source))]
    assert len(names) == len(set(names)) == 2 * 2 * 3
    index = names.index("train/image/christchurch_train_1_r00016_c00032")
    tile = source.raw(index)
    assert (tile.arrays["hr"] == pixels(40, 50, 1)[:, 16:32, 32:48]).all()
    assert tile.meta.georeference is not None
    assert tile.meta.georeference.transform[2::3] == (1000 + 32 * 0.5, 2000 - 16 * 0.5)
    inner = source.raw(index, Window(4, 8, 6, 5))
    assert (inner.arrays["hr"] == pixels(40, 50, 1)[:, 20:26, 40:45]).all()
    with pytest.raises(ValueError, match="does not lie inside"):
        source.raw(index, Window(10, 0, 8, 8))


def test_the_choice_of_tiles_is_fixed_by_their_names_alone(airs: Path) -> None:
    few = shipped("airs", airs, tile=16, tiles_per_image=2).build("train", 4)
    chosen = {few.name(i) for i in range(len(few))}
    assert len(chosen) == 4
    write(airs / "train" / "image" / "another.tif", pixels(40, 50, 9))
    more = shipped("airs", airs, tile=16, tiles_per_image=2).build("train", 4)
    assert chosen <= {more.name(i) for i in range(len(more))}
    limited = shipped("airs", airs, tile=16, tiles_per_image=None, limit=5).build("train", 4)
    assert len(limited) == 5
    assert few.fingerprint() != limited.fingerprint()


def test_images_of_a_tile_keep_their_names_and_smaller_ones_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0001.tif", pixels(16, 16, 0))
    write(tmp_path / "train" / "0002.tif", pixels(12, 16, 1))
    write(tmp_path / "AIRS_test" / "Image_1.tif", pixels(16, 16, 2))
    dataset = shipped("airs", tmp_path, tile=16)
    source = dataset.build("train", 4)
    assert isinstance(source, TiledSource)
    assert [source.name(i) for i in range(len(source))] == ["train/0001"]
    assert [name for name, _ in source.left_out] == ["train/0002"]
    assert dataset.build("test", 4).name(0) == "AIRS_test/Image_1"


def test_prepared_tiles_equal_the_tiles_of_the_rasters(airs: Path, tmp_path: Path) -> None:
    dataset = shipped("airs", airs, tile=16, tiles_per_image=3)
    prepare(dataset, tmp_path / "airs.h5", "stop", lambda done, total: None)
    packed = shipped("airs", tmp_path / "airs.h5")
    for split in ("train", "test"):
        raw, stored = dataset.build(split, 4), packed.build(split, 4)
        assert [raw.name(i) for i in range(len(raw))] == [stored.name(i) for i in range(len(stored))]
        for i in range(len(raw)):
            assert (raw.raw(i).arrays["hr"] == stored.raw(i).arrays["hr"]).all()
            assert raw.meta(i).georeference == stored.meta(i).georeference


def test_whu_images_become_four_tiles_each(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / split / "image" / "1.tif", pixels(32, 32, 0))
    assert len(shipped("whu", tmp_path, tile=16).build("train", 4)) == 4


def test_the_first_twenty_images_of_every_uc_merced_class_test(tmp_path: Path) -> None:
    for name in ("agricultural", "runway"):
        for number in (0, 9, 19, 20, 55, 99):
            write(tmp_path / "UCMerced_LandUse" / "Images" / name / f"{name}{number:02d}.tif", pixels(12, 12, number))
    dataset = shipped("ucmerced", tmp_path)
    test, train = dataset.build("test", 4), dataset.build("train", 4)
    assert sorted(test.name(i)[-2:] for i in range(len(test))) == ["00", "00", "09", "09", "19", "19"]
    assert sorted(train.name(i)[-2:] for i in range(len(train))) == ["20", "20", "55", "55", "99", "99"]
    assert test.meta(0).labels == (("class", "agricultural"),)


def test_a_list_chooses_images_in_any_layout(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "Images" / "beach" / f"beach{number:02d}.tif", pixels(12, 12, number))
    for name, numbers in (("train", (0, 2)), ("test", (1,))):
        (tmp_path / f"{name}.txt").write_text("".join(f"beach{n:02d}.tif\n" for n in numbers))
    lists = {"split": "list", "train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "test.txt")}
    dataset = shipped("ucmerced", tmp_path, **lists)
    assert [dataset.build("train", 4).name(i)[-2:] for i in range(2)] == ["00", "02"]
    assert len(dataset.build("test", 4)) == 1


def test_the_authors_folders_of_uc_merced_are_taken_where_they_exist(tmp_path: Path) -> None:
    write(tmp_path / "UCM_train" / "a.tif", pixels(12, 12, 0))
    write(tmp_path / "UCM_test" / "harbor" / "harbor13.tif", pixels(12, 12, 1))
    dataset = shipped("ucmerced", tmp_path)
    assert dataset.build("train", 4).name(0) == "UCM_train/a"
    assert dataset.build("test", 4).meta(0).labels == (("class", "harbor"),)


def test_blindsrsnf_folders_are_found(tmp_path: Path) -> None:
    for folder in ("SalCSSR-339/HR", "benchmark/sr-geo-15/HR", "benchmark/Google-15/HR"):
        write(tmp_path / folder / "1.png", pixels(12, 12, 0))
    assert shipped("salcssr", tmp_path).build("test", 4).name(0) == "benchmark/sr-geo-15/HR/1"
    assert shipped("salcssr_google15", tmp_path).build("test", 4).name(0) == "benchmark/Google-15/HR/1"


@pytest.fixture
def your_data(tmp_path: Path) -> Path:
    """LDCSR's layout for one's own data, x4, with different content everywhere."""
    for split, count in (("Train", 3), ("Val", 1), ("Test", 2)):
        for number in range(count):
            write(tmp_path / "YourData" / split / "HR" / f"{split}_{number}.png", pixels(24, 16, number))
            write(tmp_path / "YourData" / split / "LR" / f"{split}_{number}.png", pixels(6, 4, 10 + number))
    return tmp_path / "YourData"


def test_ldcsr_folders_of_ones_own_data_are_read_as_they_are(your_data: Path) -> None:
    for split, stem, count in (("train", "Train", 3), ("test", "Test", 2)):
        alone = shipped("folder", your_data).build(split, 4)
        pairs = shipped("paired", your_data).build(split, 4)
        inputs = shipped("folder", your_data, images_are="lr").build(split, 4)
        names = [f"{stem}/{stem}_{number}" for number in range(count)]
        for source in (alone, pairs, inputs):
            assert [source.name(index) for index in range(len(source))] == names
        for index in range(count):
            hr, lr = pixels(24, 16, index), pixels(6, 4, 10 + index)
            assert np.array_equal((255 * alone.read(index).hr.numpy()).round(), hr)
            assert alone.read(index).lr is None
            assert np.array_equal((255 * pairs.read(index).hr.numpy()).round(), hr)
            assert np.array_equal((255 * pairs.read(index).lr.numpy()).round(), lr)
            assert np.array_equal((255 * inputs.read(index).lr.numpy()).round(), lr)


def test_the_val_folder_tests_where_there_is_no_test_folder(your_data: Path) -> None:
    (your_data / "Test").rename(your_data / "later")
    for name in ("folder", "paired"):
        source = shipped(name, your_data).build("test", 4)
        assert [source.name(index) for index in range(len(source))] == ["Val/Val_0"]


def test_one_folder_named_hr_is_a_class_like_any_other(tmp_path: Path) -> None:
    for folder in ("HR", "other"):
        write(tmp_path / folder / "a.png", pixels(8, 8, 0))
    assert len(shipped("folder", tmp_path, split="all").build("test", 2)) == 2


def test_worldstrat_trains_on_hr_and_tests_on_its_real_lr(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "HR" / "1.png", pixels(16, 16, 0))
        write(tmp_path / split / "LR" / "1.png", pixels(4, 4, 1))
    assert shipped("worldstrat", tmp_path).build("train", 4).gives == {"hr"}
    sample = shipped("worldstrat_pairs", tmp_path).build("test", 4).read(0)
    assert sample.lr is not None
    assert sample.lr.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("set5", ["HR/baby.png", "LR_bicubic/X4/babyx4.png"], ["HR/baby"]),
        ("set14", ["GTmod12/bridge.png", "LRbicx4/bridge.png"], ["GTmod12/bridge"]),
        ("urban100", ["image_SRF_4/img_001_SRF_4_HR.png", "image_SRF_4/img_001_SRF_4_LR.png"], ["image_SRF_4/img_001_SRF_4_HR"]),
        ("bsd100", ["BSD100/3096.png"], ["BSD100/3096"]),
        ("manga109", ["AkkeraKanjinchou.png"], ["AkkeraKanjinchou"]),
        ("div2k", ["DIV2K_train_HR/0001.png", "DIV2K_valid_HR/0801.png"], ["DIV2K_valid_HR/0801"]),
        ("df2k", ["DF2K_HR/DIV2K_train_HR/0001.png", "DF2K_HR/Flickr2K_HR/000001.png", "DIV2K_valid_HR/0801.png"], ["DIV2K_valid_HR/0801"]),
        ("rsd46", ["train/Airplane/a.png", "val/Airplane/b.png"], ["val/Airplane/b"]),
        ("div2krk", ["gt/img_1_gt.png", "gt/img_2_gt.png", "lr_x4/im_1.png", "lr_x4/im_2.png"], ["img_1_gt", "img_2_gt"]),
    ],
)
def test_sets_of_photographs_are_recognised_as_they_are_distributed(
    name: str, files: list[str], expected: list[str], tmp_path: Path
) -> None:
    for number, file in enumerate(files):
        small = file.startswith("lr_x4")
        write(tmp_path / file, pixels(8 if small else 32, 8 if small else 32, number))
    source = shipped(name, tmp_path, limit=None).build("test", 4)
    assert [source.name(index) for index in range(len(source))] == expected


def test_jilin_images_are_inputs_without_targets(tmp_path: Path) -> None:
    write(tmp_path / "scene" / "1.tif", pixels(8, 8, 0))
    source = shipped("jilin", tmp_path).build("test", 4)
    assert source.gives == {"lr"}
    assert len(source) == 1


def test_absent_jilin_images_are_the_users_to_bring(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Jilin-1 images come with a publication; put your own .* into .*nowhere"):
        shipped("jilin", tmp_path / "nowhere").check()


@pytest.mark.parametrize("name", ["airs", "whu", "ucmerced", "salcssr", "worldstrat", "worldstrat_pairs"])
def test_an_absent_data_set_says_what_to_get_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        shipped(name, missing).check()
    text = str(caught.value)
    assert "http" in text
    assert str(missing) in text
    assert "dataset.root=" in text
    assert "\n" not in text


def test_a_root_without_the_folders_says_which_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder of train images \(train/image, trainval/train/image, train\)"):
        shipped("airs", tmp_path).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_folders": ("a",)}, "belong together"),
        ({}, "belong together"),
        ({"image_folders": ("a",), "tile": -1}, "0 or more"),
        ({"image_folders": ("a",), "tiles_per_image": 2}, "no effect"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutDataset(root="x", **options)


def test_the_default_data_set_of_diffbsr_explains_itself_on_the_command_line(run_command: Command) -> None:
    ended = run_command("model=diffbsr", "dataset=airs", "degradation=diffbsr_aniso")
    assert ended.code != 0
    assert "airs-dataset.com" in ended.err
    assert "Traceback" not in ended.err
