"""Training crops and their order: laws that hold for any seed, size and process layout."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdiff.data.digests import digest_of
from rsdiff.data.loading import KeyBatches, make_loader, steps_of
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.sample import Sample, SampleMeta, collate
from rsdiff.data.source import CachedSource, DataError, RawSample, Window, cut, cut_sample, sample_from
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples, mirror_indices


class Coordinates:
    """A source whose pixels tell where they lie: band 0 holds the row, band 1 the column; LR pixels hold those of their first HR pixel."""

    left_out: Sequence[tuple[str, str]] = ()
    bands = lr_bands = 2
    wavelengths = ()
    normaliser = lr_normaliser = Normaliser((0.0,), (1000.0,))

    def __init__(self, sizes: Sequence[tuple[int, int]], roles: Sequence[str] = ("hr",), scale: int = 1) -> None:
        self.sizes, self.gives, self.scale = list(sizes), frozenset(roles), scale

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        return f"image{index}"

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def meta(self, index: int) -> SampleMeta:
        return SampleMeta(self.name(index), index)

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        H, W = self.sizes[index]
        full = np.stack(np.meshgrid(np.arange(H), np.arange(W), indexing="ij")).astype(np.uint16)
        whole = {
            "hr": full,
            "ref": full,
            "change_mask": full[:1],
            "valid": np.ones((1, H, W), np.uint8),
            "lr": full[:, :: self.scale, :: self.scale],
        }
        raw = RawSample(SampleMeta(self.name(index), index), {role: whole[role] for role in self.gives})
        return raw if window is None else cut_sample(raw, window, self.scale)

    def read(self, index: int, window: Window | None = None) -> Sample:
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        return str(self.sizes)

    def remarks(self) -> list[str]:
        return []

    def contents(self) -> list[str]:
        return [digest_of([str(index), *map(str, size)]) for index, size in enumerate(self.sizes)]


def draw(
    generator: torch.Generator, shape: tuple[int, int, int], lr_size: tuple[int, int], views: int
) -> list[tuple[float, tuple[int, ...]]]:
    return [(float(torch.rand((), generator=generator)), (*shape, *lr_size)) for _ in range(views)]


def positions(image: torch.Tensor) -> torch.Tensor:
    return (image * 1000).round().long()


def tensors(sample: Sample) -> Iterator[torch.Tensor]:
    return (value for value in vars(sample).values() if isinstance(value, torch.Tensor))


sizes = st.lists(st.tuples(st.integers(24, 60), st.integers(24, 60)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 2**31), st.integers(0, 5), st.sampled_from([1, 2, 3, 4]))
def test_a_crop_is_a_contiguous_square_of_the_image_up_to_flips(sizes, seed, epoch, scale):
    samples = TrainingSamples(Coordinates(sizes), scale, 24 // scale * scale, seed, draw, views=2)
    index = epoch % len(sizes)
    sample = samples[SampleKey(epoch, index, 0)]
    assert sample.hr is not None
    assert sample.hr_views is not None
    for crop in (sample.hr, sample.hr_views[0]):
        rows, columns = sorted(positions(crop), key=lambda band: band[0, 0] == band[0, -1], reverse=True)
        assert crop.shape == (2, 24 // scale * scale, 24 // scale * scale)
        for band in (rows, columns):
            values = band.unique()
            assert (values.diff() == 1).all()
            assert len(values) == crop.shape[-1]
    assert sample.lr_size == (24 // scale, 24 // scale)
    assert len(sample.decisions) == 2
    assert sample.decisions[0][1] == (2, *sample.hr.shape[-2:], *sample.lr_size)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 9), st.sampled_from([2, 3, 4]))
def test_everything_beside_hr_is_cut_and_flipped_like_hr(seed, epoch, scale):
    source = Coordinates([(12 * scale, 15 * scale)], ("hr", "lr", "ref", "change_mask", "valid"), scale)
    sample = TrainingSamples(source, scale, 6 * scale, seed, None)[SampleKey(epoch, 0, 0)]
    assert sample.hr is not None
    assert sample.lr is not None
    assert torch.equal(sample.hr, sample.ref)
    assert sample.change_mask is not None
    assert sample.lr.shape[-2:] == sample.lr_size == (6, 6)
    # an LR pixel holds the lowest row and column of the HR pixels it covers
    lowest = -torch.nn.functional.max_pool2d(-positions(sample.hr).float(), scale)
    assert torch.equal(lowest.long(), positions(sample.lr))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(6)))
def test_a_sample_does_not_depend_on_which_were_read_before(seed, order):
    first = TrainingSamples(Coordinates([(40, 40)] * 6), 2, 16, seed, draw)
    second = TrainingSamples(Coordinates([(40, 40)] * 6), 2, 16, seed, draw)
    expected = {i: first[SampleKey(3, i, 0)] for i in range(6)}
    for i in order:
        sample = second[SampleKey(3, i, 0)]
        assert torch.equal(sample.hr, expected[i].hr)
        assert sample.decisions == expected[i].decisions


def test_epochs_and_seeds_give_other_crops():
    samples = TrainingSamples(Coordinates([(200, 200)]), 4, 16, 0, None)
    crops = {tuple(positions(samples[SampleKey(epoch, 0, 0)].hr)[:, 0, 0].tolist()) for epoch in range(20)}
    assert len(crops) > 15
    other = TrainingSamples(Coordinates([(200, 200)]), 4, 16, 1, None)
    assert not torch.equal(other[SampleKey(0, 0, 0)].hr, samples[SampleKey(0, 0, 0)].hr)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.sampled_from([4, 8, 12]), st.integers(0, 99), st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)]))
def test_the_images_of_a_step_depend_neither_on_processes_nor_on_micro_batches(length, batch, seed, layout):
    world, accumulate = layout
    whole = list(islice(KeyBatches(length, batch, seed), 5))
    parts = [list(islice(KeyBatches(length, batch, seed, 0, rank, world, accumulate), 5 * accumulate)) for rank in range(world)]
    for step in range(5):
        joined = [key for micro in range(accumulate) for rank in range(world) for key in parts[rank][step * accumulate + micro]]
        assert joined == whole[step]
    assert next(iter(KeyBatches(length, batch, seed, start_step=3))) == whole[3]


@given(st.integers(1, 30), st.integers(0, 99))
def test_every_epoch_shows_every_image_once(length, seed):
    keys = [key for batch in islice(KeyBatches(length, 3, seed), 2 * length) for key in batch]
    for epoch in range(6):
        assert sorted(key.index for key in keys if key.epoch == epoch) == list(range(length))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int):
    samples = TrainingSamples(Coordinates([(40, 40), (50, 30), (33, 61)]), 2, 16, 5, draw, views=2)
    alone = list(islice(steps_of(make_loader(samples, KeyBatches(3, 4, 7, accumulate=2), 0), 2), 3))
    shared = list(islice(steps_of(make_loader(samples, KeyBatches(3, 4, 7, accumulate=2), workers), 2), 3))
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.need("hr"), b.need("hr"))
            assert torch.equal(a.need("hr_views"), b.need("hr_views"))
            assert a.decisions == b.decisions
            assert a.metas == b.metas


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    samples = TrainingSamples(Coordinates([(40, 40)]), 2, 16, 5, draw)
    next(steps_of(make_loader(samples, KeyBatches(1, 2, 7), 0), 1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_drawn_scale_is_common_to_a_step_and_changes_between_steps():
    samples = TrainingSamples(Coordinates([(80, 80)] * 2), 4, 64, 0, draw, scale_range=(1.5, 4.0))
    sides = {step: {samples[SampleKey(0, i, step)].hr.shape[-1] for i in range(2)} for step in range(12)}
    assert all(len(side) == 1 for side in sides.values())
    assert len({next(iter(side)) for side in sides.values()}) > 4
    assert all(24 <= next(iter(side)) <= 64 for side in sides.values())
    assert samples[SampleKey(0, 0, 0)].lr_size == (16, 16)


@given(st.integers(1, 9), st.integers(1, 40))
def test_mirroring_moves_by_one_pixel_at_most(length, wanted):
    positions = mirror_indices(length, wanted)
    assert len(positions) == max(length, wanted)
    assert (positions.diff().abs() <= 1).all()
    assert positions.min() >= 0
    assert positions.max() <= length - 1


def test_small_images_are_refused_skipped_or_mirrored_as_told():
    source = Coordinates([(40, 40), (10, 40), (40, 40)])
    with pytest.raises(
        DataError, match=r"image1 is 10x40 pixels, smaller than the training crop of 16x16 \(1 of 3 .*dataset.small=skip or pad"
    ):
        TrainingSamples(source, 2, 16, 0, None)
    skipping = TrainingSamples(source, 2, 16, 0, None, small="skip")
    assert len(skipping) == 2
    assert skipping[SampleKey(0, 1, 0)].meta.index == 2
    padding = TrainingSamples(source, 2, 16, 0, None, small="pad", augment=False)
    crop = padding[SampleKey(0, 1, 0)].hr
    assert crop is not None
    assert positions(crop)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5, 4]
    with pytest.raises(DataError, match="all 3 images are smaller"):
        TrainingSamples(source, 2, 64, 0, None, small="skip")


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(DataError, match=r"trainer.patch=18 is not a multiple of scale=4; set trainer.patch=16"):
        TrainingSamples(Coordinates([(40, 40)]), 4, 18, 0, None)
    with pytest.raises(DataError, match="no targets"):
        TrainingSamples(Coordinates([(40, 40)], ("lr",)), 4, 16, 0, None)
    with pytest.raises(DataError, match="LR images of its own"):
        TrainingSamples(Coordinates([(40, 40)], ("hr", "lr"), 2), 2, 16, 0, draw)
    with pytest.raises(ValueError, match=r"trainer.batch=6 cannot be shared by 4 processes .* multiple of 4"):
        KeyBatches(10, 6, 0, world=4)


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 70), st.integers(20, 70), st.sampled_from([1, 2, 3, 4, 8, 2.5, 3.7]), st.sampled_from(["crop", "keep"]))
def test_test_targets_follow_the_size_rule(H, W, scale, rule):
    samples = TestSamples(Coordinates([(H, W)]), scale, 0, draw, size_rule=rule)
    sample = samples[0]
    assert sample.hr is not None
    assert sample.lr_size == (int(H / scale), int(W / scale))
    assert samples.sizes(0) == (tuple(sample.hr.shape[-2:]), sample.lr_size)
    if rule == "keep":
        assert sample.hr.shape[-2:] == (H, W)
    else:
        assert sample.hr.shape[-2:] == (round(sample.lr_size[0] * scale), round(sample.lr_size[1] * scale))
    assert positions(sample.hr)[:, 0, 0].tolist() == [0, 0]


def test_test_decisions_depend_on_seed_and_name_only():
    many, few = TestSamples(Coordinates([(40, 40)] * 5), 2, 0, draw), TestSamples(Coordinates([(40, 40)] * 3), 2, 0, draw)
    assert many[2].decisions == few[2].decisions
    assert many[2].decisions != many[1].decisions
    assert many[2].decisions != TestSamples(Coordinates([(40, 40)] * 3), 2, 1, draw)[2].decisions


@given(st.integers(0, 20), st.integers(0, 20))
def test_the_cache_returns_what_the_source_returns(top, left):
    source = Coordinates([(40, 40)] * 3)
    cache = CachedSource(source, 2 * 40 * 40 * 2 * 2, 1.0)
    window = Window(top, left, 16, 18)
    for index in (0, 1, 2, 0, 2):
        np.testing.assert_array_equal(cache.raw(index, window).arrays["hr"], cut(source.raw(index).arrays["hr"], window))


def test_the_crop_that_keeps_its_size_is_the_one_asked_for() -> None:
    source = Coordinates([(80, 80)] * 2)
    for step in range(20):
        hr, lr = TrainingSamples(source, 4, 64, 0, draw, scale_range=(1.0, 8.0), scale_keeps="hr").crop_sizes(step)
        assert hr == 64
        assert 8 <= lr <= 64
        hr, lr = TrainingSamples(source, 4, 64, 0, draw, scale_range=(1.0, 8.0)).crop_sizes(step)
        assert lr == 8
        assert 8 <= hr <= 64


def test_images_of_a_batch_may_each_have_their_own_scale() -> None:
    def make_lr(hr: torch.Tensor, decisions: Sequence[Any]) -> torch.Tensor:
        return torch.nn.functional.interpolate(hr, (16, 16))

    samples = TrainingSamples(Coordinates([(80, 80)] * 4), 4, 64, 0, draw, scale_range=(1.0, 4.0), make_lr=make_lr)
    batch = collate([samples[SampleKey(0, index, 3)] for index in range(4)])
    assert batch.need("lr").shape == (4, 2, 16, 16)
    assert batch.need("hr").shape == (4, 2, 64, 64)
    assert batch.sizes is not None
    assert len(set(batch.sizes)) > 1
    assert all(16 <= H <= 64 and H == W for H, W in batch.sizes)
    for image, (H, W) in zip(batch.need("hr"), batch.sizes, strict=True):
        assert not image[:, H:].any()
        assert not image[:, :, W:].any()
    again = samples[SampleKey(0, 2, 99)]
    assert torch.equal(again.hr, batch.need("hr")[2])  # the scale belongs to the image, not to the step
