"""SECOND and CNAM-CD in the authors' layout, on tiny stand-ins; A/B/label folders; regions that count."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.data.paired import PairedDataset
from rsdiff.data.refsr import CnamCdDataset, RefSrDataset, SecondDataset, read_class_table, unchanged_code
from rsdiff.data.source import DataError, Window
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples

SCALE, NAMES = 8, ("00003.png", "00010.png", "00024.png")
TABLE = "class          code\nunchanged      0\nlow vegetation 85\nbuilding       170\n"


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def stand_in(root: Path, table: str = TABLE) -> Path:
    """The published layout with 64-pixel training and 32-pixel test targets; LR pixel = mean of its 8 x 8 target pixels."""
    random = np.random.default_rng(0)
    folder = root / "RefSR_dataset"
    for split, side, prefix in (("train", 64, "real_LR"), ("test", 32, "Bic_LR")):
        for name in NAMES:
            low = random.integers(0, 256, (side // 8, side // 8, 3))
            high = low.repeat(8, 0).repeat(8, 1)
            write(folder / split / "HR_512" / name, high)
            write(folder / split / "Ref" / name, 255 - high)
            write(folder / split / "CD_mask" / name, (high[..., 0] > 127) * 85)
            write(folder / split / "CD_mask_RGB" / name, high)
            write(folder / split / f"{prefix}_D8_{side // 8}" / name, low)
            write(folder / split / f"{prefix}_D16_{side // 16}" / name, low[::2, ::2])
    (folder / "CLASS_Table.txt").write_text(table)
    return root


@pytest.mark.parametrize("kind", [SecondDataset, CnamCdDataset])
@pytest.mark.parametrize("below", ["", "RefSR_dataset"])
def test_triples_with_masks_and_lr_are_found_by_their_names(tmp_path, kind, below):
    options = kind(root=str(stand_in(tmp_path) / below))
    options.check()
    source = options.build("test", SCALE)
    assert options.gives == source.gives == {"hr", "lr", "ref", "change_mask"}
    assert [source.name(index) for index in range(len(source))] == [f"test/{name[:-4]}" for name in NAMES]
    sample = source.read(0)
    assert sample.hr.shape == sample.ref.shape == (3, 32, 32)
    assert sample.lr.shape == (3, 4, 4)
    assert sample.change_mask.unique().tolist() == [0.0, pytest.approx(85 / 255)]
    torch.testing.assert_close(sample.ref, 1 - sample.hr)


def test_crops_and_flips_of_all_four_images_show_the_same_ground(tmp_path):
    samples = TrainingSamples(SecondDataset(root=str(stand_in(tmp_path))).build("train", SCALE), SCALE, 32, seed=1, draw=None)
    for epoch in range(6):
        sample = samples[SampleKey(epoch, 1, 0)]
        torch.testing.assert_close(sample.ref, 1 - sample.hr)
        torch.testing.assert_close(sample.change_mask[0], (sample.hr[0] > 127.5 / 255).float() * 85 / 255)
        torch.testing.assert_close(sample.lr.repeat_interleave(8, -1).repeat_interleave(8, -2), sample.hr)


def test_lr_images_may_be_made_instead_of_read_at_any_scale(tmp_path):
    options = SecondDataset(root=str(stand_in(tmp_path)), lr="degradation")
    assert "lr" not in options.gives
    assert options.build("train", 4).read(0).lr is None


def test_sixteen_fold_lr_images_are_found_too(tmp_path):
    assert SecondDataset(root=str(stand_in(tmp_path))).build("train", 16).read(0).lr.shape == (3, 4, 4)


def test_other_scales_are_refused_with_those_that_exist(tmp_path):
    with pytest.raises(DataError, match=r"x8 and x16, not at scale=4; choose .* dataset\.lr=degradation"):
        SecondDataset(root=str(stand_in(tmp_path))).build("train", 4)


def test_missing_folders_say_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"train/HR_512; download the SECOND .* set dataset\.root"):
        SecondDataset(root=str(tmp_path)).check()
    with pytest.raises(DataError, match="download the CNAM-CD"):
        CnamCdDataset(root=str(tmp_path)).check()


def test_a_target_without_partner_is_named(tmp_path):
    root = stand_in(tmp_path)
    (root / "RefSR_dataset/test/CD_mask" / NAMES[1]).unlink()
    with pytest.raises(DataError, match=r"CD_mask lacks 00010 of HR_512 \(1 such"):
        SecondDataset(root=str(root)).build("test", SCALE)


@pytest.mark.parametrize(("region", "counts"), [("unchanged", lambda mask: mask == 0), ("changed", lambda mask: mask > 0)])
def test_only_the_chosen_region_counts_in_tests(tmp_path, region, counts):
    options = SecondDataset(root=str(stand_in(tmp_path)), region=region)
    sample = options.build("test", SCALE).read(1)
    assert torch.equal(sample.valid, counts(sample.change_mask).float())
    assert options.build("train", SCALE).read(1).valid is None


def test_regions_are_cut_with_the_window(tmp_path):
    source = SecondDataset(root=str(stand_in(tmp_path)), region="changed").build("test", SCALE)
    window = Window(8, 16, 16, 8)
    assert torch.equal(source.read(0, window).valid, source.read(0).valid[:, 8:24, 16:24])


def test_class_tables_give_the_code_of_unchanged_ground(tmp_path):
    path = tmp_path / "CLASS_Table.txt"
    path.write_text("0: non-vegetated ground\n255: Un-changed\n")
    assert unchanged_code(read_class_table(path)) == 255


@pytest.mark.parametrize("table", ["unchanged 1 2 3\n", "unchanged 300\n", "water 3\n", ""])
def test_class_tables_that_are_not_understood_ask_for_the_code(tmp_path, table):
    root = stand_in(tmp_path, table)
    with pytest.raises(DataError, match=r"set dataset\.unchanged_code"):
        SecondDataset(root=str(root), region="unchanged").check()
    SecondDataset(root=str(root), region="unchanged", unchanged_code=7).check()


def test_codes_beyond_eight_bits_are_refused():
    with pytest.raises(ValueError, match="0 to 255"):
        SecondDataset(root="anywhere", unchanged_code=256)


def test_a_then_b_then_label_folders_are_a_target_a_reference_and_a_mask(tmp_path):
    for folder, level in (("A", 50), ("B", 200), ("label", 255)):
        for name in ("train_1", "test_1"):
            write(tmp_path / folder / f"{name}.png", np.full((16, 16) if folder == "label" else (16, 16, 3), level))
    options = PairedDataset(
        root=str(tmp_path), hr_folder="B", ref_folder="A", mask_folder="label", lr_folder="", split="pattern", region="changed"
    )
    samples = TestSamples(options.build("test", 4), 4, 0, None)
    sample = samples[0]
    assert (sample.hr[0, 0, 0], sample.ref[0, 0, 0], sample.change_mask[0, 0, 0]) == (pytest.approx(200 / 255), pytest.approx(50 / 255), 1)
    assert sample.valid.all()


def test_regions_need_masks():
    with pytest.raises(ValueError, match="without change masks"):
        PairedDataset(root="anywhere", region="unchanged")


def test_both_data_sets_are_one_layout():
    assert issubclass(SecondDataset, RefSrDataset)
    assert issubclass(CnamCdDataset, RefSrDataset)
