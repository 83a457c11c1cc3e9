"""Data sets read from image files: every layout, every type, and one sentence for each thing that can be wrong with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import rasterio.errors
import scipy.io
from PIL import Image
from rasterio.transform import from_origin

from rsdiff.data import FolderDataset, PairedDataset
from rsdiff.data.normalisation import Normaliser, NormaliserConfig
from rsdiff.data.rasters import raster_info, read_raster
from rsdiff.data.source import DataError, ImageSource, Window
from rsdiff.data.views import SampleKey, TrainingSamples

Pixels = np.ndarray[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::rasterio.errors.NotGeoreferencedWarning")


def pixels(bands: int, H: int, W: int, dtype: str = "uint8", seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.random((bands, H, W)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (bands, H, W)).astype(dtype)


def write_png(path: Path, image: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)).save(path)
    return path


def write_tiff(path: Path, image: Pixels, **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"crs": "EPSG:32631", "transform": from_origin(500000, 4600000, 0.5, 0.5), **profile}
    with rasterio.open(
        path, "w", driver="GTiff", count=image.shape[0], height=image.shape[1], width=image.shape[2], dtype=image.dtype, **profile
    ) as file:
        file.write(image)
    return path


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 4, 12])
def test_a_tiff_is_read_whole_and_in_windows_as_it_was_written(tmp_path: Path, dtype: str, bands: int):
    image = pixels(bands, 37, 53, dtype)
    path = write_tiff(tmp_path / "a.tif", image, compress="deflate")
    info = raster_info(path)
    assert (info.bands, info.height, info.width, info.dtype.name) == (bands, 37, 53, dtype)
    np.testing.assert_array_equal(read_raster(path).values, image)
    np.testing.assert_array_equal(read_raster(path, Window(5, 7, 11, 20)).values, image[:, 5:16, 7:27])


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_png_is_read_as_it_was_written(tmp_path: Path, bands: int):
    image = pixels(bands, 20, 31)
    path = write_png(tmp_path / "a.png", image)
    assert raster_info(path).bands == bands
    np.testing.assert_array_equal(read_raster(path).values, image)


def test_colour_pngs_of_16_bits_keep_them(tmp_path: Path):
    image = pixels(3, 20, 31, "uint16")
    path = tmp_path / "a.png"
    with rasterio.open(path, "w", driver="PNG", count=3, height=20, width=31, dtype="uint16") as file:
        file.write(image)
    assert raster_info(path).dtype == np.uint16
    np.testing.assert_array_equal(read_raster(path).values, image)


def test_cubes_of_both_matlab_generations_and_numpy_are_bands_rows_columns(tmp_path: Path):
    cube = pixels(5, 11, 17, "float64")
    scipy.io.savemat(tmp_path / "old.mat", {"cube": cube.transpose(1, 2, 0)})
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["cube"] = cube.transpose(0, 2, 1)  # what MATLAB's rows, columns, bands look like from outside
    with (tmp_path / "new.mat").open("rb+") as header:
        header.write(b"MATLAB 7.3 MAT-file".ljust(128))
    np.save(tmp_path / "a.npy", cube)
    for name in ("old.mat", "new.mat", "a.npy"):
        info = raster_info(tmp_path / name)
        assert (info.bands, info.height, info.width) == (5, 11, 17)
        np.testing.assert_array_equal(read_raster(tmp_path / name).values, cube)
        np.testing.assert_array_equal(read_raster(tmp_path / name, Window(2, 3, 4, 6)).values, cube[:, 2:6, 3:9])


def test_a_cube_file_with_several_arrays_asks_which(tmp_path: Path):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros((4, 4, 3)), "y": np.ones((4, 4, 2))})
    with pytest.raises(DataError, match=r"holds 2 numeric cubes .*dataset.variable=NAME") as error:
        raster_info(tmp_path / "a.mat")
    one_sentence(error)
    assert raster_info(tmp_path / "a.mat", variable="y").bands == 2


def truncated(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    return path


def broken_jpeg(path: Path) -> Path:
    Image.fromarray(pixels(3, 64, 64).transpose(1, 2, 0)).save(path)
    return truncated(path)


BROKEN: dict[str, Callable[[Path], Path]] = {
    "a.png": lambda path: truncated(write_png(path, pixels(3, 64, 64))),
    "a.jpg": broken_jpeg,
    "a.tif": lambda path: truncated(write_tiff(path, pixels(3, 64, 64))),
    "b.tif": lambda path: truncated(write_tiff(path, pixels(3, 64, 64), compress="deflate", tiled=True, blockxsize=16, blockysize=16)),
    "c.npy": lambda path: (np.save(path, pixels(3, 64, 64)), truncated(path))[1],
}


@pytest.mark.parametrize("name", BROKEN)
def test_truncated_files_are_refused_and_never_half_decoded(tmp_path: Path, name: str):
    path = BROKEN[name](tmp_path / name)
    with pytest.raises(DataError, match=f"{name} is truncated or damaged .*copy it again or delete it") as error:
        read_raster(path)
    one_sentence(error)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"hello, this is no image at all, just words", "not an image of a known format")]
)
def test_empty_and_foreign_files_are_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        raster_info(tmp_path / "a.png")
    one_sentence(error)


def names(source: ImageSource) -> set[str]:
    return {source.name(i) for i in range(len(source))}


def folder_of(root: Path, count: int = 20, size: int = 40) -> Path:
    for i in range(count):
        write_png(root / ("forest" if i % 2 else "beach") / f"{i:03d}.png", pixels(3, size, size, seed=i))
    return root


def test_a_folder_just_works(tmp_path: Path):
    data = FolderDataset(root=str(folder_of(tmp_path)))
    data.check()
    train, test = data.build("train", 4.0), data.build("test", 4.0)
    assert len(train) + len(test) == len(names(train) | names(test)) == 20
    sample = train.read(0)
    assert sample.meta.labels == (("class", sample.meta.name.split("/")[0]),)
    assert sample.hr is not None
    expected = read_raster(tmp_path / f"{sample.meta.name}.png").values
    np.testing.assert_array_equal((sample.hr.numpy() * 255).round(), expected)


def test_the_split_by_names_stays_when_files_are_added(tmp_path: Path):
    data = FolderDataset(root=str(folder_of(tmp_path)), test_fraction=0.4)
    before = {split: names(data.build(split, 1.0)) for split in ("train", "test")}
    folder_of(tmp_path, 40)
    for split in ("train", "test"):
        assert before[split] <= names(data.build(split, 1.0))


def test_split_folders_lists_patterns_and_limits(tmp_path: Path):
    for part, count in (("Train", 6), ("val", 2)):
        for i in range(count):
            write_png(tmp_path / part / f"{part}_{i}.png", pixels(3, 20, 20))
    data = FolderDataset(root=str(tmp_path), limit=4)
    assert [len(data.build(split, 1.0)) for split in ("train", "test")] == [4, 2]
    assert data.build("test", 1.0).name(0) == "val/val_0"
    by_pattern = FolderDataset(root=str(tmp_path), split="pattern", test_pattern="val_*")
    assert [len(by_pattern.build(split, 1.0)) for split in ("train", "test")] == [6, 2]
    (tmp_path / "list.txt").write_text("val_1.png\nTrain/Train_0\n")
    by_list = FolderDataset(root=str(tmp_path), split="list", train_list=str(tmp_path / "list.txt"))
    assert names(by_list.build("train", 1.0)) == {"val/val_1", "Train/Train_0"}
    (tmp_path / "list.txt").write_text("nowhere.png\n")
    with pytest.raises(DataError, match=r"names 'nowhere.png', which is not among the 8 images"):
        by_list.build("train", 1.0)


def test_a_limit_is_spread_over_the_classes(tmp_path: Path):
    for name in ("a", "b", "c", "d"):
        for i in range(20):
            write_png(tmp_path / name / f"{i}.png", pixels(3, 8, 8))
    source = FolderDataset(root=str(tmp_path), split="all", limit=20).build("train", 1.0)
    assert {dict(source.meta(i).labels)["class"] for i in range(20)} == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: FolderDataset(root=str(root / "nowhere")), r"dataset.root=.*nowhere does not exist; give the folder"),
        (lambda root: FolderDataset(), r"dataset.root is not given; set dataset.root=FOLDER"),
        (lambda root: FolderDataset(root=str(root)), r"holds no image \(png, .*\); give another dataset.root"),
        (lambda root: PairedDataset(root=str(root)), r"has no folder HR; set dataset.hr_folder"),
    ],
)
def test_missing_and_empty_folders_are_told_before_anything_else(tmp_path: Path, make: Callable[[Path], Any], words: str):
    with pytest.raises(DataError, match=words) as error:
        make(tmp_path).check()
    one_sentence(error)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (pixels(1, 40, 40), r"odd.png has 1 band and most others 3; use dataset.convert=rgb"),
        (pixels(4, 40, 40), r"odd.png has 4 bands and most others 3; use dataset.convert=rgb"),
    ],
)
def test_an_odd_band_count_is_refused_converted_or_left_out_as_told(tmp_path: Path, odd: Pixels, words: str):
    write_png(folder_of(tmp_path) / "odd.png", odd)
    options = {"root": str(tmp_path), "split": "all"}
    with pytest.raises(DataError, match=words) as error:
        FolderDataset(**options).build("train", 1.0)
    assert "dataset.odd=skip" in one_sentence(error)
    converted = FolderDataset(**options, convert="rgb").build("train", 1.0)
    assert (len(converted), converted.bands) == (21, 3)
    index = next(i for i in range(21) if converted.name(i) == "odd")
    np.testing.assert_array_equal(converted.raw(index).arrays["hr"], np.repeat(odd, 3, 0) if len(odd) == 1 else odd[:3])
    skipped = FolderDataset(**options, odd="skip").build("train", 1.0)
    assert len(skipped) == 20
    assert [name for name, _ in skipped.left_out] == ["odd"]


def test_an_odd_type_is_refused(tmp_path: Path):
    write_tiff(folder_of(tmp_path) / "odd.tif", pixels(3, 40, 40, "uint16"))
    with pytest.raises(DataError, match=r"odd.tif holds uint16 values and most others uint8; convert it, or leave") as error:
        FolderDataset(root=str(tmp_path), split="all").build("train", 1.0)
    one_sentence(error)


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    write_png(tmp_path / "a.png", pixels(3, 20, 20))
    write_png(tmp_path / "a.bmp", pixels(3, 20, 20))
    with pytest.raises(DataError, match=r"have the same name; choose one ending with dataset.extensions"):
        FolderDataset(root=str(tmp_path), split="all").build("train", 1.0)


def test_mixed_sizes_train_and_hidden_files_do_not_count(tmp_path: Path):
    write_png(tmp_path / "a.png", pixels(3, 40, 30))
    write_png(tmp_path / "b.png", pixels(3, 31, 64))
    (tmp_path / "._a.png").write_bytes(b"not an image")
    samples = TrainingSamples(FolderDataset(root=str(tmp_path), split="all").build("train", 2.0), 2, 24, 0, None)
    assert [tuple(samples[SampleKey(0, i, 0)].hr.shape) for i in range(2)] == [(3, 24, 24)] * 2


def test_an_image_smaller_than_the_crop_is_named(tmp_path: Path):
    write_png(folder_of(tmp_path) / "tiny.png", pixels(3, 12, 40))
    source = FolderDataset(root=str(tmp_path), split="all").build("train", 2.0)
    with pytest.raises(
        DataError, match=r"tiny is 12x40 pixels, smaller than the training crop of 32x32 .*dataset.small=skip or pad"
    ) as error:
        TrainingSamples(source, 2, 32, 0, None)
    one_sentence(error)


def pairs(root: Path, scale: int = 2, lr_of: Callable[[str], str] = lambda stem: stem, sizes: tuple[int, int] = (24, 32)) -> Path:
    for stem in ("a", "b", "c"):
        write_png(root / "HR" / f"{stem}.png", pixels(3, *sizes, seed=ord(stem)))
        write_png(root / "LR" / f"{lr_of(stem)}.png", pixels(3, sizes[0] // scale, sizes[1] // scale, seed=1 + ord(stem)))
    return root


def test_pairs_in_train_and_test_folders_are_matched_by_name(tmp_path: Path):
    for part in ("Train", "Test"):
        pairs(tmp_path / part)
    data = PairedDataset(root=str(tmp_path))
    data.check()
    assert data.gives == {"hr", "lr"}
    source = data.build("test", 2.0)
    assert [source.name(i) for i in range(3)] == ["Test/a", "Test/b", "Test/c"]
    raw = source.raw(1, Window(4, 6, 10, 12))
    np.testing.assert_array_equal(raw.arrays["hr"], read_raster(tmp_path / "Test/HR/b.png").values[:, 4:14, 6:18])
    np.testing.assert_array_equal(raw.arrays["lr"], read_raster(tmp_path / "Test/LR/b.png").values[:, 2:7, 3:9])


def test_pairs_of_another_scale_say_which(tmp_path: Path):
    data = PairedDataset(root=str(pairs(tmp_path, 4)), split="all")
    with pytest.raises(
        DataError, match=r"a.png is 6x8 pixels, which times scale=2 is not its HR size 24x32; these are x4 pairs: set scale=4"
    ) as error:
        data.build("train", 2.0)
    one_sentence(error)
    assert data.build("train", 4.0).size(0) == (24, 32)


def test_suffixes_and_remainders_of_pairs(tmp_path: Path):
    root = pairs(tmp_path, 2, lambda stem: f"{stem}x2", (25, 33))
    source = PairedDataset(root=str(root), split="all", lr_suffix="x{scale}").build("train", 2.0)
    assert source.size(0) == (24, 32)
    assert source.raw(0).arrays["hr"].shape == (3, 24, 32)


def test_a_file_without_partner_is_named(tmp_path: Path):
    (pairs(tmp_path) / "LR" / "b.png").unlink()
    with pytest.raises(DataError, match=r"HR/b.png has no partner in .*/LR \(that of a.png is a.png\)") as error:
        PairedDataset(root=str(tmp_path), split="all").build("train", 2.0)
    one_sentence(error)


def test_references_and_masks_lie_in_folders_of_their_own(tmp_path: Path):
    for stem in ("a", "b"):
        for folder, bands in (("A", 3), ("B", 3), ("label", 1)):
            write_png(tmp_path / folder / f"{stem}.png", pixels(bands, 16, 16, seed=ord(stem) + bands))
    data = PairedDataset(root=str(tmp_path), hr_folder="A", lr_folder="", ref_folder="B", mask_folder="label", split="all")
    sample = data.build("train", 4.0).read(0)
    assert data.gives == {"hr", "ref", "change_mask"}
    assert sample.change_mask is not None
    np.testing.assert_allclose(sample.change_mask.numpy() * 255, read_raster(tmp_path / "label/a.png").values, atol=1e-4)


def test_lr_only_folders_have_the_target_size_of_the_scale(tmp_path: Path):
    write_png(tmp_path / "a.png", pixels(3, 10, 12))
    data = FolderDataset(root=str(tmp_path), images_are="lr", split="all")
    source = data.build("test", 4.0)
    assert data.gives == {"lr"}
    assert source.size(0) == (40, 48)
    assert source.read(0).hr is None


def test_nodata_becomes_a_validity_mask_and_windows_move_the_georeference(tmp_path: Path):
    image = pixels(3, 30, 30) | 1
    image[:, :10, :5] = 0
    write_tiff(tmp_path / "a.tif", image, nodata=0)
    source = FolderDataset(root=str(tmp_path), split="all").build("train", 1.0)
    assert source.gives == {"hr", "valid"}
    sample = source.read(0, Window(4, 2, 20, 20))
    assert sample.valid is not None
    assert sample.valid[0, :6, :3].sum() == 0
    assert sample.valid.sum() == 3 * (400 - 18)
    assert sample.meta.georeference is not None
    assert sample.meta.georeference.crs == "EPSG:32631"
    assert sample.meta.georeference.transform == (0.5, 0.0, 500001.0, 0.0, -0.5, 4599998.0)


def test_real_numbers_outside_0_to_1_ask_for_a_normaliser(tmp_path: Path):
    write_tiff(tmp_path / "a.tif", pixels(2, 8, 8, "float32") * 300)
    with pytest.raises(DataError, match=r"holds float32 values from .* taken as 0 to 1, .* dataset\.range=measured") as error:
        FolderDataset(root=str(tmp_path), split="all").build("train", 1.0).read(0)
    one_sentence(error)
    fixed = FolderDataset(root=str(tmp_path), split="all", normaliser=NormaliserConfig(rule="fixed", high=(300.0,)))
    assert 0.5 < float(fixed.build("train", 1.0).read(0).hr.max()) <= 1


def test_percentiles_are_those_of_the_training_split(tmp_path: Path):
    for part, level in (("train", 100), ("test", 200)):
        write_tiff(tmp_path / part / "a.tif", np.linspace(0, level, 2 * 64 * 64).reshape(2, 64, 64).astype("uint16"))
    data = FolderDataset(root=str(tmp_path), normaliser=NormaliserConfig(rule="percentile", percentiles=(0.0, 100.0)))
    assert data.build("test", 1.0).normaliser == data.build("train", 1.0).normaliser
    assert data.build("test", 1.0).normaliser.high == (49.0, 100.0)  # the first band ends half way up, cut to an integer


def test_bands_can_be_chosen_and_carry_their_wavelengths(tmp_path: Path):
    image = pixels(5, 8, 8, "uint16")
    write_tiff(tmp_path / "a.tif", image)
    data = FolderDataset(root=str(tmp_path), split="all", take_bands=(4, 2), wavelengths=(842.0, 560.0))
    source = data.build("train", 1.0)
    np.testing.assert_array_equal(source.raw(0).arrays["hr"], image[[3, 1]])
    assert source.meta(0).wavelengths == (842.0, 560.0)


def test_the_fingerprint_follows_the_files(tmp_path: Path):
    data = FolderDataset(root=str(folder_of(tmp_path, 3)), split="all")
    first = data.build("train", 1.0).fingerprint()
    assert data.build("train", 2.0).fingerprint() == first
    write_png(tmp_path / "beach" / "000.png", pixels(3, 41, 41))
    assert data.build("train", 1.0).fingerprint() != first


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float64"])
def test_a_normaliser_is_inverted_and_recorded(dtype: str):
    values = pixels(2, 9, 9, dtype)
    normaliser = Normaliser((1.0, 3.0), (2.0**16, 2.0**17), clip=False)
    assert Normaliser.from_json(normaliser.to_json()) == normaliser
    np.testing.assert_allclose(normaliser.restore(normaliser.normalise(values)), values, rtol=1e-6, atol=0.02)


def test_8_bit_values_are_divided_by_255_with_correct_rounding():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(Normaliser((0.0,), (255.0,)).normalise(values), (values / 255.0).astype(np.float32))
