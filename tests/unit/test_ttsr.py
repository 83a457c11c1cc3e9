"""TTSR: published files by their names, the search against its definition, what training and other scales do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.adversaries import judging_by_slopes
from rsdiff.methods.base import Problem
from rsdiff.methods.ttsr import PERCEPTUAL, TTSR, TTSRConfig
from rsdiff.networks import ttsr as networks
from rsdiff.networks.ttsr import TTSRNetConfig, search, transferred
from rsdiff.weights.keymaps import KEY_MAPS
from tests.unit.referenced import batch, noise

WIDTH, BLOCKS, TEXTURES = 4, (2, 1, 1, 1), (4, 6, 8)
SMALL = TTSRConfig(
    network=TTSRNetConfig(width=WIDTH, blocks=BLOCKS, texture_channels=TEXTURES),
    extractor_start="random",
    perceptual=replace(PERCEPTUAL, weight=0.0),
    discriminator_width=2,
    discriminator_size=32,
)


def published() -> dict[str, Tensor]:
    """A file of the published code in small: every name of researchmm/TTSR, written out from its classes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inner: int, outer: int, side: int = 3) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, side, side), (outer,)

    def blocks(name: str, count: int) -> None:
        for number in range(count):
            conv(f"{name}.{number}.conv1", WIDTH, WIDTH)
            conv(f"{name}.{number}.conv2", WIDTH, WIDTH)

    conv("MainNet.SFE.conv_head", 3, WIDTH)
    blocks("MainNet.SFE.RBs", BLOCKS[0])
    conv("MainNet.SFE.conv_tail", WIDTH, WIDTH)
    for head, texture in (("conv11_head", 2), ("conv22_head", 1), ("conv33_head", 0)):
        conv(f"MainNet.{head}", TEXTURES[texture] + WIDTH, WIDTH)
    for up in ("conv12", "conv23"):
        conv(f"MainNet.{up}", WIDTH, 4 * WIDTH)
    for name, side in (("ex12.conv12", 1), ("ex12.conv21", 3), ("ex123.conv12", 1), ("ex123.conv13", 1), ("ex123.conv21", 3)):
        conv(f"MainNet.{name}", WIDTH, WIDTH, side)
    for name, side in (("ex123.conv23", 1), ("ex123.conv31_1", 3), ("ex123.conv31_2", 3), ("ex123.conv32", 3)):
        conv(f"MainNet.{name}", WIDTH, WIDTH, side)
    for exchange, levels in (("ex12", 2), ("ex123", 3)):
        for level in range(levels):
            conv(f"MainNet.{exchange}.conv_merge{level + 1}", levels * WIDTH, WIDTH)
    for level, count in enumerate(BLOCKS[1:], start=1):
        for branch in range(1, level + 1):
            blocks(f"MainNet.RB{level}{branch}", count)
            conv(f"MainNet.conv{level}{branch}_tail", WIDTH, WIDTH)
    for name, inner, outer, side in (
        ("conv13", WIDTH, WIDTH, 1), ("conv23", WIDTH, WIDTH, 1), ("conv_merge", 3 * WIDTH, WIDTH, 3),
        ("conv_tail1", WIDTH, WIDTH // 2, 3), ("conv_tail2", WIDTH // 2, 3, 1),
    ):  # fmt: skip
        conv(f"MainNet.merge_tail.{name}", inner, outer, side)
    first, second, third = TEXTURES
    for name, inner, outer in (
        ("slice1.0", 3, first), ("slice2.2", first, first), ("slice2.5", first, second), ("slice3.7", second, second),
        ("slice3.10", second, third),
    ):  # fmt: skip
        conv(f"LTE.{name}", inner, outer)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    std = torch.tensor([0.229, 0.224, 0.225])
    tensors["LTE.sub_mean.weight"] = torch.eye(3).view(3, 3, 1, 1) / std.view(3, 1, 1, 1)
    tensors["LTE.sub_mean.bias"] = -torch.tensor([0.485, 0.456, 0.406]) / std
    return tensors


def built(config: TTSRConfig = SMALL, scale: int = 4) -> TTSR:
    torch.manual_seed(0)
    method = config.build(Problem(scale=scale, bands=3, lr_bands=3))
    return method.eval()


def test_a_published_file_is_read_by_its_shapes_and_written_back_as_it_was() -> None:
    given = published()
    config, ours = KEY_MAPS["ttsr"].to_ours({f"module.{key}": value for key, value in given.items()}, None)
    assert config.network == SMALL.network
    method = built(replace(SMALL, network=config.network))
    lacking = method.load_state_dict(ours, strict=False)
    assert not lacking.unexpected_keys
    assert {key.partition(".")[0] for key in lacking.missing_keys} == {"discriminator"}
    back = KEY_MAPS["ttsr"].to_published(config, method.state_dict())
    assert back.keys() == given.keys()
    assert all(torch.allclose(back[key], given[key], atol=1e-6) for key in given)
    with pytest.raises(ValueError, match="not the shift by ImageNet's mean"):
        KEY_MAPS["ttsr"].to_ours({**given, "LTE.sub_mean.bias": torch.zeros(3)}, None)


def test_the_search_finds_the_largest_of_all_cosines_and_parts_of_it_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 5, 4, 6), torch.randn(2, 5, 3, 7)
    rows, columns = (F.normalize(F.unfold(x, 3, padding=1), dim=1) for x in (query, key))
    products = columns.transpose(1, 2) @ rows
    for most in (2**24, 100, 1):
        monkeypatch.setattr(networks, "LARGEST_PRODUCT", most)
        similarity, best = search(query, key)
        assert torch.equal(best, products.argmax(1))
        assert torch.allclose(similarity, products.amax(1), atol=1e-6)


def test_an_image_that_is_its_own_reference_gets_its_own_textures_back() -> None:
    features = [torch.rand(1, 3, 8 * factor, 8 * factor) for factor in (4, 2, 1)]
    similarity, best = search(features[2], features[2])
    assert torch.equal(best, torch.arange(64)[None])
    assert torch.allclose(similarity, torch.ones(1, 64), atol=1e-5)
    for texture, own, factor in zip(transferred(features, best, (8, 8)), features, (4, 2, 1), strict=True):
        inner = slice(factor, -factor)
        assert torch.allclose(texture[..., inner, inner], own[..., inner, inner], atol=1e-6)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_any_multiple_of_four_and_a_reference_of_any_size_are_restored_alike_alone_and_in_a_batch(scale: int) -> None:
    method, both = built(scale=scale), batch(scale, 64, 46)
    image = method.restore(both, SamplerConfig(), noise())
    assert image.shape == (2, 3, 64, 64)
    alone = replace(both, metas=both.metas[1:], lr=both.need("lr")[1:], ref=both.need("ref")[1:], hr=None)
    assert torch.allclose(method.restore(alone, SamplerConfig(), noise())[0], image[1], atol=1e-5)
    with_other = replace(both, ref=both.need("ref").flip(0))
    assert not torch.allclose(method.restore(with_other, SamplerConfig(), noise()), image, atol=1e-3), "the reference is not used"


def test_what_cannot_work_is_refused() -> None:
    for problem, words in (
        (Problem(scale=3, bands=3, lr_bands=3), "enlarges by 4"),
        (Problem(scale=4, bands=3, lr_bands=1), "compares LR and reference"),
        (Problem(scale=4, bands=5, lr_bands=5), "extractor_start=random"),
    ):
        assert words in str(replace(SMALL, extractor_start="vgg19").refuse(problem))
    assert SMALL.refuse(Problem(scale=4, bands=5, lr_bands=5)) is None
    with pytest.raises(ValueError, match="multiple of 32"):
        replace(SMALL, discriminator_size=40)


@pytest.mark.parametrize("by_similarity", [False, True])
def test_both_stages_train_their_networks_and_the_judge_learns_from_its_own_loss_alone(by_similarity: bool) -> None:
    method = built(replace(SMALL, by_similarity=by_similarity)).train()
    first, whole = method.stages()
    assert (first.groups, whole.groups) == (("restorer", "extractor"), ("restorer", "extractor", "discriminator"))
    for stage in (first, whole):
        method.zero_grad()
        made = method.losses(batch(), stage, noise())
        assert tuple(made) == stage.groups
        expected = {"l1"} if stage is first else {"l1", "transferal", "adversarial"}
        assert set(made["restorer"].terms) == expected
        reached: set[int] = set()
        for name, parameters in method.groups().items():
            if name in made:
                made[name].total.backward()
                now = {id(parameter) for parameter in method.parameters() if parameter.grad is not None} - reached
                assert now <= {id(parameter) for parameter in parameters}, name
                reached |= now


def test_the_extractor_gets_the_gradient_of_the_whole_objective() -> None:
    """Which the two groups' losses share out: by one pass, and by one backward pass through everything."""
    method, images = built().train(), batch()
    made = method.losses(images, method.stages()[0], noise())
    made["extractor"].total.backward()
    shared = [parameter.grad.clone() for parameter in method.extractor.parameters() if parameter.grad is not None]
    method.zero_grad()
    F.l1_loss(method.network(*method.found(images)), 2 * images.need("hr") - 1).backward()
    whole = [parameter.grad for parameter in method.extractor.parameters() if parameter.grad is not None]
    assert len(shared) == len(whole) == 10
    for one, other in zip(shared, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)


def test_the_penalty_is_that_of_a_slope_other_than_one() -> None:
    slope = 3.0

    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return slope * images.flatten(1)[:, :1]

    made = judging_by_slopes(Linear(), torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), 10.0, noise())
    assert torch.allclose(made.terms["penalty"], torch.tensor((slope - 1) ** 2))
    assert torch.allclose(made.total, torch.tensor(-slope + 10 * (slope - 1) ** 2))
