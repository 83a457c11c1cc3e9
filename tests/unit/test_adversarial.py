"""Discriminators, adversarial losses and the perceptual loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rsdiff.methods.adversaries import AdversarialKind, AdversarialLossConfig, answer_loss
from rsdiff.methods.perceptual import PerceptualLossConfig, VGG19Features, read_vgg19
from rsdiff.networks.discriminators import (
    KAIR_PATCHES,
    VQGAN_PATCHES,
    PatchDiscriminator,
    PatchSizes,
    SpectralConv2d,
    UNetConfig,
    UNetDiscriminator,
    VGGConfig,
    VGGDiscriminator,
)
from rsdiff.weights.keymaps.discriminators import discriminator_name

KINDS: tuple[AdversarialKind, ...] = ("vanilla", "least_squares", "wasserstein", "hinge")


def small_vgg19() -> dict[str, Tensor]:
    """A network of VGG19's shape with few channels."""
    generator = torch.Generator().manual_seed(0)
    numbers, widths = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), (4, 4, 6, 6, *(8,) * 12)
    weights, before = {}, 3
    for number, width in zip(numbers, widths, strict=True):
        weights[f"features.{number}.weight"] = torch.randn(width, before, 3, 3, generator=generator) / math.sqrt(9 * before)
        weights[f"features.{number}.bias"] = torch.zeros(width)
        before = width
    return weights


def images(count: int = 2, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def test_power_iteration_ends_at_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(5, 7, 3, padding=1)
    for _ in range(200):
        weight = conv.normalised_weight()
    largest = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    torch.testing.assert_close(weight, conv.weight / largest, rtol=1e-4, atol=1e-6)


def test_spectral_norm_does_not_see_the_size_of_the_weight_and_stands_still_in_evaluation() -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 4, 3, padding=1, bias=False).eval()
    before = conv(images())
    with torch.no_grad():
        conv.weight.mul_(7)
    torch.testing.assert_close(conv(images()), before)
    vectors = conv.weight_u.clone()
    conv.train()(images())
    assert not torch.equal(conv.weight_u, vectors)


def test_mixed_precision_turns_the_vectors_as_full_precision_does() -> None:
    torch.manual_seed(0)
    full, mixed = SpectralConv2d(5, 7, 3), SpectralConv2d(5, 7, 3)
    mixed.load_state_dict(full.state_dict())
    full(images()[:, :1].expand(-1, 5, -1, -1))
    with torch.autocast("cpu", torch.bfloat16):
        mixed(images()[:, :1].expand(-1, 5, -1, -1))
    assert torch.equal(full.weight_u, mixed.weight_u)


def test_two_judgements_before_one_backward_pass_are_allowed() -> None:
    torch.manual_seed(0)
    network = UNetDiscriminator(UNetConfig(width=4), 3)
    (network(images()).mean() - network(1 - images()).mean()).backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (UNetDiscriminator(UNetConfig(width=4), 3), (2, 1, 32, 32)),
        (VGGDiscriminator(VGGConfig(width=4, size=32), 3), (2, 1)),
        (VGGDiscriminator(VGGConfig(width=4, size=32, biases=True), 3, is_kair=True), (2, 1)),
        (PatchDiscriminator(PatchSizes(width=4, layers=2), 3, VQGAN_PATCHES), (2, 1, 6, 6)),
        (PatchDiscriminator(PatchSizes(width=4, layers=2), 3, KAIR_PATCHES), (2, 1, 11, 11)),
    ],
)
def test_answers_have_their_shape_and_names_are_unique(network: nn.Module, shape: tuple[int, ...]) -> None:
    assert network(images()).shape == shape
    name = discriminator_name(network)  # type: ignore[arg-type]
    keys = network.state_dict()
    assert len({name(key) for key in keys}) == len(keys)


def test_sizes_that_a_discriminator_cannot_judge_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        UNetDiscriminator(UNetConfig(width=4), 3)(images(side=36))
    with pytest.raises(ValueError, match="built for 32x32"):
        VGGDiscriminator(VGGConfig(width=4, size=32), 3)(images(side=64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relative", ["no", "to_mean", "to_batch_mean"])
def test_each_side_is_pulled_the_right_way_and_the_other_is_left_alone(kind: AdversarialKind, relative: str) -> None:
    loss = AdversarialLossConfig(kind=kind, relative=relative)  # type: ignore[arg-type]
    truth = torch.zeros(3, 1)

    made = torch.zeros(3, 1, requires_grad=True)
    loss.generator_loss(lambda x: x, made, truth).backward()
    assert made.grad is not None
    assert bool((made.grad < 0).all())  # a step against the gradient makes restored images seem more real

    made, real = torch.zeros(3, 1, requires_grad=True), torch.zeros(3, 1, requires_grad=True)
    factor = torch.ones((), requires_grad=True)
    verdict = loss.discriminator_loss(lambda x: x * factor, made, real)
    verdict.total.backward()
    assert made.grad is None
    assert real.grad is not None
    assert bool((real.grad < 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_cost_less_than_wrong_ones(kind: AdversarialKind) -> None:
    real, fake = torch.ones(4, 1), torch.zeros(4, 1)
    assert answer_loss(kind, real, True) < answer_loss(kind, fake, True)
    assert answer_loss(kind, fake, False) < answer_loss(kind, real, False)


def test_a_perfect_image_has_no_perceptual_distance_and_others_have_gradients() -> None:
    loss = PerceptualLossConfig()
    network = VGG19Features(small_vgg19(), loss.layers)
    assert float(loss.distance_of(network, images(), images())) == 0
    image = images().requires_grad_(True)
    loss.distance_of(network, image, images() * 0.5).backward()
    assert image.grad is not None
    assert bool((image.grad != 0).any())
    assert all(not parameter.requires_grad for parameter in network.parameters())


def test_layers_add_up_with_their_weights() -> None:
    weights, target = small_vgg19(), images() * 0.5
    both = PerceptualLossConfig(layers=("conv2_2", "conv4_4"), layer_weights=(0.3, 2.0))
    parts = [PerceptualLossConfig(layers=(layer,), layer_weights=(1.0,)) for layer in both.layers]
    first, second = (float(part.distance_of(VGG19Features(weights, part.layers), images(), target)) for part in parts)
    assert float(both.distance_of(VGG19Features(weights, both.layers), images(), target)) == pytest.approx(0.3 * first + 2 * second)


def test_layers_beyond_the_deepest_are_not_kept_and_a_weights_file_is_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save(small_vgg19(), tmp_path / "vgg19.pth")
    network = VGG19Features(read_vgg19(tmp_path / "vgg19.pth"), ("conv2_2",))
    assert list(network.convolutions) == ["0", "2", "5", "7"]
    with pytest.raises(ValueError, match="16 px"):
        network(images(side=8))


def test_lists_that_do_not_fit_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="one factor for each"):
        PerceptualLossConfig(layer_weights=(1.0,))
