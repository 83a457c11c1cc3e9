"""Objects found in images: overlap, outlines, and scores by size as the package opensr-usecases has them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from rsdiff.data.synthetic import SyntheticDataset
from rsdiff.metrics.objects import objects_of, outlines
from rsdiff.networks.recognition import ObjectNetwork, SceneNetwork


def masks() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    true = np.zeros((60, 80), bool)
    for top, left, side in ((2, 3, 2), (10, 10, 5), (30, 20, 12), (5, 50, 20)):
        true[top : top + side, left : left + side] = True
    return true, np.where(true, 0.6, 0.2) + generator.uniform(-0.3, 0.3, true.shape)


def test_objects_are_scored_by_size_as_opensr_usecases_does() -> None:
    true, scores = masks()
    count, labels = cv2.connectedComponents(true.astype(np.uint8), connectivity=4)
    found = {one.pixels: one for one in objects_of(true, scores)}
    assert sorted(found) == [4, 25, 144, 400]
    for number in range(1, count):
        inside = scores[labels == number]
        assert found[len(inside)].mean == pytest.approx(inside.mean())  # its average score of an object
        assert found[len(inside)].highest == inside.max()  # it calls an object found where any pixel is above the threshold
    assert objects_of(np.zeros((4, 4), bool), np.zeros((4, 4))) == []


def test_outlines_agree_within_the_tolerance_and_pool_over_images() -> None:
    true, _ = masks()
    assert outlines(true, true).f1 == 1
    near, far = np.roll(true, 2, axis=1), np.roll(true, 5, axis=1)
    assert outlines(near, true, tolerance=2).f1 > 0.99
    assert outlines(far, true, tolerance=2).f1 < outlines(near, true, tolerance=1).f1 < 1
    assert outlines(np.zeros_like(true), true).f1 == 0
    assert math.isnan(outlines(np.zeros_like(true), np.zeros_like(true)).f1)
    near_lines, far_lines = outlines(near, true), outlines(far, true)
    both = near_lines + far_lines
    assert (both.true, both.true_right) == (2 * near_lines.true, near_lines.true_right + far_lines.true_right)
    assert far_lines.f1 < both.f1 < near_lines.f1


def test_buildings_of_generated_scenes_are_where_roofs_are_and_leave_the_images_as_they_are() -> None:
    plain = SyntheticDataset(size=64, train_images=3, second_date=False).build("train", 4)
    masked = SyntheticDataset(size=64, train_images=3, second_date=False, mask="buildings").build("train", 4)
    assert masked.gives == {"hr", "change_mask"}
    assert masked.fingerprint() != plain.fingerprint()
    shares = []
    for index in range(3):
        sample = masked.read(index)
        assert torch.equal(sample.hr, plain.read(index).hr)  # type: ignore[arg-type]
        shares.append(float(sample.change_mask.mean()))  # type: ignore[union-attr]
        assert set(np.unique(sample.change_mask)) <= {0.0, 1.0}
    assert 0 < max(shares) < 0.6


@pytest.mark.parametrize(("height", "width"), [(33, 47), (8, 8)])
def test_networks_take_images_of_any_size(height: int, width: int) -> None:
    images = torch.rand(2, 4, height, width)
    assert ObjectNetwork(4, 8)(images).shape == (2, 1, height, width)
    assert SceneNetwork(4, 5, 8)(images).shape == (2, 5)
