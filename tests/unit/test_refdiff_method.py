"""Ref-Diff and EDM super-resolution as methods: what masks do, any image size, any batch size, honest refusals."""

from dataclasses import replace

import pytest
import torch

from rsdiff.data.enlarging import enlarge_signed
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.augmentation import AugmentationConfig
from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.edm_sr import EdmSrConfig
from rsdiff.methods.refdiff import RefDiffConfig, estimate_change, with_errors
from rsdiff.networks.dhariwal_unet import DhariwalUNetConfig
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig
from rsdiff.networks.song_unet import SongUNetConfig
from tests.method_losses import losses_of

TRUNK = SongUNetConfig(model_channels=8, channel_mult=(1, 2), num_blocks=1, attention_levels=(), dropout=0.0)
REFDIFF = RefDiffConfig(network=RefDiffUNetConfig(trunk=TRUNK, modulation_width=4))
EDM = EdmSrConfig(song=TRUNK)
SAMPLER = SamplerConfig(solver="heun", steps=3, grid="edm", start="image_times_sigma", churn=1.0, churn_min=0.05, churn_max=50.0)
PROBLEM = Problem(scale=8, bands=3, lr_bands=3)


def batch(count: int = 2, height: int = 16, width: int = 24, bands: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(count, bands, height, width, generator=generator)
    return Batch(
        metas=[SampleMeta(f"image_{index}") for index in range(count)],
        size=(height, width),
        lr_size=(height // 8, width // 8),
        hr=hr,
        lr=torch.rand(count, bands, height // 8, width // 8, generator=generator),
        ref=torch.rand(count, bands, height, width, generator=generator),
        change_mask=torch.rand(count, 1, height, width, generator=generator).round(),
    )


def noise(count: int = 2) -> SeededNoise:
    return SeededNoise([(0, index) for index in range(count)])


def part(whole: Batch, index: int) -> Batch:
    images = {name: getattr(whole, name)[index : index + 1] for name in ("hr", "lr", "ref", "change_mask")}
    return replace(whole, metas=whole.metas[index : index + 1], **images)


def built(config):
    torch.manual_seed(0)
    method = config.build(PROBLEM)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return method.eval()


@pytest.mark.parametrize("config", [REFDIFF, EDM, replace(EDM, preconditioning="vp"), replace(EDM, preconditioning="ve")])
def test_losses_are_finite_and_reach_every_parameter_of_the_network(config):
    method = built(config)
    losses = losses_of(method, batch(), noise())
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.parametrize("config", [REFDIFF, EDM])
def test_any_image_size_is_restored(config):
    odd = batch(1, 24, 40)
    for name in ("hr", "ref", "change_mask"):
        setattr(odd, name, getattr(odd, name)[..., :23, :37])
    odd.size = (23, 37)
    restored = built(config).restore(odd, SAMPLER, noise(1))
    assert restored.shape == (1, 3, 23, 37)
    assert restored.isfinite().all()


@pytest.mark.parametrize("config", [REFDIFF, EDM])
def test_an_image_is_restored_alike_alone_and_in_a_batch(config):
    method, whole = built(config), batch()
    together = method.restore(whole, SAMPLER, noise())
    alone = method.restore(part(whole, 1), SAMPLER, SeededNoise([(0, 1)]))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def test_a_missing_mask_may_be_assumed_or_estimated_but_not_when_it_must_be_given():
    masked, bare = batch(), batch()
    bare.change_mask = None
    with pytest.raises(ValueError, match="change_mask"):
        built(REFDIFF).change_mask(bare)
    assert torch.equal(built(REFDIFF).change_mask(masked), masked.change_mask)
    assert REFDIFF.requires == {"hr", "lr", "ref", "change_mask"}
    for rule, values in (("unchanged", {0.25}), ("changed", {0.75}), ("estimated", {0.25, 0.75})):
        config = replace(REFDIFF, mask=rule, unchanged_code=0.25, changed_code=0.75)
        mask = built(config).change_mask(bare)
        assert config.requires == {"hr", "lr", "ref"}
        assert mask.shape == (2, 1, 16, 24)
        assert set(mask.unique().tolist()) <= values


def test_a_checked_mask_also_calls_changed_what_the_reference_contradicts():
    ref = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)), size=(96, 96))
    now = ref.clone()
    now[..., 32:64, 32:64] = 1 - now[..., 32:64, 32:64]
    given = torch.full((1, 1, 96, 96), 0.25)
    given[..., :16, :] = 0.5  # a class of changed ground, in the data's own code
    lr = torch.nn.functional.avg_pool2d(now, 8)
    seen = Batch([SampleMeta("pair")], (96, 96), (12, 12), hr=now, lr=lr, ref=ref, change_mask=given)
    config = replace(REFDIFF, mask="checked", change_threshold=0.1, unchanged_code=0.25, changed_code=0.75)
    assert config.requires == REFDIFF.requires
    mask = built(config).change_mask(seen)
    assert (mask[..., 40:56, 40:56] == 0.75).all()
    assert (mask[..., :16, :] == 0.5).all()
    assert torch.equal(mask[..., 80:, :], given[..., 80:, :])
    agreeing = replace(seen, lr=torch.nn.functional.avg_pool2d(0.8 * ref + 0.05, 8))  # another light
    assert torch.equal(built(config).change_mask(agreeing), given)


def test_a_wrong_reference_is_checked_as_the_wrong_one():
    """Where every image of a batch gets its neighbour's reference, the mask must follow from that one."""
    config = replace(REFDIFF, mask="checked", change_threshold=0.02)
    generator = torch.Generator().manual_seed(3)
    hr = torch.nn.functional.interpolate(torch.rand(2, 3, 2, 3, generator=generator), size=(16, 24))
    pair = replace(batch(), hr=hr, ref=hr, lr=torch.nn.functional.avg_pool2d(hr, 8), change_mask=torch.zeros(2, 1, 16, 24))
    seen = []
    for chance in (0.0, 1.0):
        method = built(replace(config, wrong_reference=chance))
        inner = method.denoiser

        def watched(lr, ref, mask, inner=inner):
            seen.append((ref, mask))
            return inner(lr, ref, mask)

        method.denoiser = watched
        losses_of(method, pair, noise())
    (right, right_mask), (wrong, wrong_mask) = seen
    assert torch.equal(wrong, right.roll(1, dims=0))
    assert not right_mask.any()
    assert wrong_mask.mean() > 0.5


def test_a_hidden_reference_is_read_where_nothing_changed_and_only_there():
    def restored(changed_reference, ref):
        method = built(replace(REFDIFF, changed_reference=changed_reference))
        return method.restore(replace(seen, ref=ref), SAMPLER, noise(1))

    seen = batch(1)
    seen.change_mask = torch.ones_like(seen.change_mask)
    other = 1 - seen.ref
    assert torch.equal(restored("hidden", seen.ref), restored("hidden", other))
    assert not torch.equal(restored("shown", seen.ref), restored("shown", other))
    seen.change_mask = torch.zeros_like(seen.change_mask)
    assert torch.equal(restored("hidden", other), restored("shown", other))
    assert not torch.equal(restored("hidden", seen.ref), restored("hidden", other))


def test_classes_may_have_a_mask_channel_each():
    config = replace(REFDIFF, mask_codes=(0, 85, 255))
    method, masked = built(config), batch()
    masked.change_mask = torch.tensor([0, 85, 255, 7]).float().repeat(2, 1, 16, 6) / 255
    encoded = method.encoded(masked.change_mask)
    assert encoded.shape == (2, 3, 16, 24)
    assert encoded[0, :, 0, :4].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert method.restore(masked, SAMPLER, noise()).shape == (2, 3, 16, 24)
    with pytest.raises(ValueError, match="once"):
        replace(REFDIFF, mask_codes=(1, 1))


def test_change_is_estimated_where_the_images_differ_and_not_for_another_light():
    generator = torch.Generator().manual_seed(1)
    ref = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=generator), size=(96, 96), mode="bilinear")
    now = 0.8 * ref + 0.05
    now[..., 32:64, 32:64] = 1 - now[..., 32:64, 32:64]
    lr = torch.nn.functional.avg_pool2d(now, 8)
    changed = estimate_change(lr, ref, 0.1)
    assert changed[..., 40:56, 40:56].all()
    assert changed[..., :16, :].mean() < 0.1
    assert not estimate_change(torch.nn.functional.avg_pool2d(0.8 * ref + 0.05, 8), ref, 0.02).any()


def test_wrong_references_are_drawn_only_when_asked_for():
    method = built(REFDIFF)
    usual = losses_of(method, batch(), noise()).total
    method.options = replace(REFDIFF, wrong_reference=1.0)
    assert not torch.equal(usual, losses_of(method, batch(), noise()).total)


def test_the_published_loss_is_a_sum_over_256():
    method = built(REFDIFF)
    published = losses_of(method, batch(), noise())
    method.options = replace(REFDIFF, loss_divisor=None)
    mean = losses_of(method, batch(), noise())
    torch.testing.assert_close(published.total * 256, mean.total * batch().hr.numel())
    torch.testing.assert_close(mean.total, mean.terms["weighted_error"])


def test_an_untrained_residual_model_gives_the_enlarged_lr():
    config = replace(REFDIFF, base=EnlargedConfig(), enlargement="bicubic")
    method = config.build(PROBLEM).eval()
    restored = method.restore(batch(), replace(SAMPLER, start="image", churn=0.0, churn_min=0.0, churn_max=float("inf")), noise())
    enlarged = (enlarge_signed(batch().need("lr"), (16, 24), "bicubic") + 1) / 2
    torch.testing.assert_close(restored, enlarged, atol=2e-3, rtol=0)
    assert losses_of(method, batch(), noise()).total.isfinite()


def test_enlarging_an_eight_bit_image_keeps_its_levels():
    levels = torch.arange(256).reshape(1, 1, 16, 16) / 255
    for rule in ("nearest", "bilinear"):
        same = enlarge_signed(levels, (16, 16), rule, eight_bit=True)
        torch.testing.assert_close((same + 1) / 2, levels, atol=1e-6, rtol=0)
    large = enlarge_signed(levels, (32, 32), "nearest")
    assert torch.equal(large[..., ::2, ::2], large[..., 1::2, 1::2])


@pytest.mark.parametrize(
    "config",
    [
        EDM,
        replace(
            EDM,
            architecture="dhariwal",
            dhariwal=DhariwalUNetConfig(model_channels=16, channel_mult=(1, 2), num_blocks=1, attention_levels=()),
        ),
    ],
)
def test_augmentation_gives_the_network_an_input_for_its_labels(config):
    augmented = replace(config, augmentation=AugmentationConfig(probability=0.5))
    assert augmented.network_options().augment_labels == 9
    assert config.network_options().augment_labels == 0
    square = batch(2, 16, 16)
    assert losses_of(built(augmented), square, noise()).total.isfinite()
    assert built(augmented).restore(square, SAMPLER, noise()).shape == (2, 3, 16, 16)


def test_what_cannot_work_is_refused_in_one_sentence():
    assert "equal bands" in str(REFDIFF.refuse(Problem(scale=8, bands=3, lr_bands=1)))
    coloured = replace(EDM, augmentation=AugmentationConfig(probability=0.1, hue=1.0))
    assert "1 or 3 bands" in str(coloured.refuse(Problem(scale=4, bands=4, lr_bands=4)))
    assert EDM.refuse(Problem(scale=4, bands=48, lr_bands=3)) is None
    for config in (REFDIFF, EDM):
        method, odd = built(config), replace(batch(1, 24, 24), size=(23, 24))
        with pytest.raises(ValueError, match="multiple of 2"):
            losses_of(method, odd, noise(1))
    with pytest.raises(ValueError, match="positive"):
        RefDiffConfig(loss_divisor=0)
    with pytest.raises(ValueError, match="0 to 1"):
        RefDiffConfig(wrong_reference=2)


@pytest.mark.parametrize("accuracy", [0.8, 0.6, 0.0])
def test_a_mask_of_some_accuracy_is_right_on_that_share_of_every_image_whatever_its_batch(accuracy: float) -> None:
    mask = torch.zeros(3, 1, 40, 48)
    mask[:2, :, :, :20] = 3 / 255
    mask[1, :, :5, :5] = 7 / 255
    options = replace(REFDIFF, mask_accuracy=accuracy)
    same, names = mask == 0, ["a", "b", "c"]
    wrong = with_errors(mask, same, options, names)
    assert ((wrong == mask).float().flatten(1).mean(1) - accuracy).abs().max() < 1 / mask[0].numel()
    assert set((255 * wrong[0]).round().unique().tolist()) == {0.0, 3.0}
    assert set(wrong[2][wrong[2] != 0].tolist()) <= {1.0}, "an image without change has no code of its own"
    assert torch.equal(with_errors(mask[1:2], same[1:2], options, ["b"])[0], wrong[1])
    patches = (wrong != mask).float()
    assert (patches[..., 1:] == patches[..., :-1]).float().mean() > 0.85, "errors come in patches"


def test_restoring_with_a_wrong_mask_changes_the_result_and_the_data_mask_is_needed() -> None:
    method = built(REFDIFF)
    images = batch()
    right = method.restore(images, SAMPLER, noise())
    method.options = replace(REFDIFF, mask_accuracy=0.6)
    assert not torch.allclose(method.restore(images, SAMPLER, noise()), right)
    with pytest.raises(ValueError, match="a share of pixels is 0 to 1"):
        replace(REFDIFF, mask_accuracy=1.2)
