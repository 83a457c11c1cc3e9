"""Data sets on real images, where they are: RSDIFF_DATA names the folder that holds aid_small, levir_pairs, scenes and hsi."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rsdiff.data import FolderDataset, PackedDataset, PairedDataset
from rsdiff.data.source import DataError
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples
from rsdiff.tasks.prepare import prepare


@pytest.fixture
def images() -> Path:
    """Return the folder of real images, or skip."""
    place = Path(os.environ.get("RSDIFF_DATA", ""))
    if not os.environ.get("RSDIFF_DATA") or not (place / "aid_small").is_dir():
        pytest.skip("RSDIFF_DATA does not name a folder with real images")
    return place


def test_a_folder_of_classes_trains_tests_and_packs(images: Path, tmp_path: Path):
    data = FolderDataset(root=str(images / "aid_small"), limit=40, test_limit=10)
    train, test = data.build("train", 4.0), data.build("test", 4.0)
    sample = TrainingSamples(train, 4, 128, 0, None, views=2)[SampleKey(0, 3, 0)]
    assert sample.hr is not None
    assert tuple(sample.hr.shape) == (3, 128, 128)
    assert dict(sample.meta.labels)["class"] == sample.meta.name.split("/")[0]
    assert TestSamples(test, 4, 0, None)[0].lr_size == (37, 37)
    prepare(data, tmp_path / "aid.h5", "stop", lambda _done, _total: None)
    packed = PackedDataset(file=str(tmp_path / "aid.h5")).build("test", 4.0)
    for index in range(len(test)):
        np.testing.assert_array_equal(packed.raw(index).arrays["hr"], test.raw(index).arrays["hr"])


def test_two_dates_and_their_change_mask_are_read_together(images: Path):
    data = PairedDataset(
        root=str(images / "levir_pairs"), hr_folder="A", lr_folder="", ref_folder="B", mask_folder="label", split="pattern"
    )
    test = data.build("test", 8.0)
    assert (len(test), len(data.build("train", 8.0))) == (6, 2)
    for index in range(len(test)):
        sample = test.read(index)
        assert sample.change_mask is not None
        assert set(sample.change_mask.unique().tolist()) <= {0.0, 1.0}


def test_rasters_of_different_kinds_are_told_apart(images: Path):
    with pytest.raises(DataError, match=r"dataset\.odd=skip"):
        FolderDataset(root=str(images / "scenes"), split="all").build("train", 1.0)
    source = FolderDataset(root=str(images / "scenes"), split="all", odd="skip", convert="rgb").build("train", 1.0)
    sample = source.read(0)
    assert sample.meta.georeference is not None
    assert sample.valid is not None
    assert 0.3 < float(sample.valid.mean()) < 1


def test_a_hyperspectral_cube_keeps_all_its_bands(images: Path):
    source = FolderDataset(root=str(images / "hsi"), split="all").build("train", 1.0)
    assert (source.bands, source.size(0)) == (224, (145, 145))
    crop = TrainingSamples(source, 1, 32, 0, None)[SampleKey(0, 0, 0)].hr
    assert crop is not None
    assert tuple(crop.shape) == (224, 32, 32)
