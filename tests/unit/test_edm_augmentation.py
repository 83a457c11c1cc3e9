"""EDM's augmentation: which draws are made, what the network receives, and what happens to the image."""

from dataclasses import replace

import pytest
import torch

from rsdiff.diffusion.augmentation import AugmentationConfig, draw_augmentation
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise

NONE = AugmentationConfig(x_flip=0, y_flip=0, scale=0, rotation=0, stretch=0, translation=0)
PICTURE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def noise() -> SeededNoise:
    return SeededNoise([(0, "a"), (0, "b")])


def test_published_training_tells_the_network_nine_numbers():
    assert AugmentationConfig().label_width == 9
    assert draw_augmentation(AugmentationConfig(), noise(), 2, (16, 16)).labels.shape == (2, 9)


def test_absent_transforms_draw_nothing_and_tell_nothing():
    drawn = draw_augmentation(NONE, ReplayNoise([]), 2, (16, 16))
    assert drawn.labels.shape == (2, 0) == (2, NONE.label_width)
    assert torch.equal(drawn.apply(PICTURE), PICTURE)


@pytest.mark.parametrize("name", ["y_flip", "quarter_turn", "shift", "scale", "rotation", "stretch", "translation", "brightness", "hue"])
def test_a_transform_that_does_not_take_place_is_told_as_zero_and_changes_nothing(name):
    options = replace(NONE, **{name: 1.0}, probability=1e-9)
    drawn = draw_augmentation(options, noise(), 2, (16, 16))
    assert not drawn.labels.any()
    torch.testing.assert_close(drawn.apply(PICTURE)[..., 3:-3, 3:-3], PICTURE[..., 3:-3, 3:-3], atol=0.05, rtol=0)


def test_labels_do_not_depend_on_the_other_images_of_the_batch():
    options = AugmentationConfig(probability=1.0, brightness=1.0)
    both = draw_augmentation(options, noise(), 2, (16, 16))
    alone = draw_augmentation(options, SeededNoise([(0, "b")]), 1, (16, 16))
    torch.testing.assert_close(both.labels[1:], alone.labels)


def test_flips_are_flips():
    drawn = draw_augmentation(replace(NONE, x_flip=1e8, y_flip=1e8), ReplayNoise([[1, 0], [0.0, 0.0], [0, 1], [0.0, 0.0]]), 2, (16, 16))
    assert torch.equal(drawn.apply(PICTURE)[0], PICTURE[0].flip(-1))
    assert torch.equal(drawn.apply(PICTURE)[1], PICTURE[1].flip(-2))


def test_four_quarter_turns_are_none():
    turn = draw_augmentation(replace(NONE, quarter_turn=1.0, probability=1.0), ReplayNoise([[1, 1], [0.0, 0.0]]), 2, (16, 16))
    image = PICTURE
    for _ in range(4):
        image = turn.apply(image)
    assert torch.equal(image, PICTURE)
    assert not torch.equal(turn.apply(PICTURE), PICTURE)


def test_one_drawn_transform_serves_target_and_condition_alike():
    drawn = draw_augmentation(replace(AugmentationConfig(), probability=1.0), noise(), 2, (16, 16))
    together = drawn.apply(torch.cat([PICTURE, PICTURE], dim=1))
    torch.testing.assert_close(together[:, :3], together[:, 3:])


def test_what_cannot_be_transformed_is_refused():
    turned = draw_augmentation(replace(NONE, quarter_turn=1.0, probability=1.0), ReplayNoise([[1, 1], [0.0, 0.0]]), 2, (16, 8))
    with pytest.raises(ValueError, match="square"):
        turned.apply(PICTURE[..., :8])
    coloured = draw_augmentation(replace(NONE, hue=1.0, probability=1.0), noise(), 2, (16, 16))
    with pytest.raises(ValueError, match="4 bands"):
        coloured.apply(torch.zeros(2, 4, 16, 16))
