"""DATSR: released files by their names, search and deformed convolution against their definitions, what training and other scales do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.datsr import DATSR, MATCHING_FILE, PERCEPTUAL, DATSRConfig
from rsdiff.methods.perceptual import VGG19_FILE
from rsdiff.networks import datsr as networks
from rsdiff.networks import masa, ttsr
from rsdiff.networks.datsr import DATSRNetConfig, Deformed, Flow, search, warped
from rsdiff.networks.ttsr import CONVOLUTIONS, VGG_NUMBERS
from rsdiff.weights.keymaps import KEY_MAPS
from tests.unit.referenced import batch, noise

WIDTH, TEXTURES, GROUPS, WINDOW = 8, (4, 6, 8), 2, 8
SMALL = DATSRConfig(
    network=DATSRNetConfig(width=WIDTH, groups=GROUPS, depths=(2, 1), heads=(2, 4), texture_channels=TEXTURES),
    extractors="random",
    perceptual=replace(PERCEPTUAL, weight=0.0),
    discriminator_width=2,
)


def shapes_of_published() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every name of caojiezhang/DATSR, written out from its classes."""

    def conv(name: str, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (outer, inner, 3, 3)), (f"{name}.bias", (outer,)))

    def linear(name: str, inner: int, outer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (outer, inner)), (f"{name}.bias", (outer,)))

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (WIDTH,)), (f"{name}.bias", (WIDTH,)))

    def body(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from norm(f"{name}.patch_embed.norm")
        yield from norm(f"{name}.norm")
        for group, (depth, heads) in enumerate(((2, 2), (1, 4))):
            for block in range(depth):
                place = f"{name}.layers.{group}.residual_group.blocks.{block}"
                yield from norm(f"{place}.norm1")
                yield from norm(f"{place}.norm2")
                yield f"{place}.attn.relative_position_bias_table", ((2 * WINDOW - 1) ** 2, heads)
                yield from linear(f"{place}.attn.qkv", WIDTH, 3 * WIDTH)
                yield from linear(f"{place}.attn.proj", WIDTH, WIDTH)
                yield from linear(f"{place}.mlp.fc1", WIDTH, 2 * WIDTH)
                yield from linear(f"{place}.mlp.fc2", 2 * WIDTH, WIDTH)
            yield from conv(f"{name}.layers.{group}.conv", WIDTH, WIDTH)

    start = "dyn_agg_restore"
    yield from conv(f"{start}.unet_head", 3, WIDTH)
    for way, size, texture in (("down", "large", 4), ("down", "medium", 6), ("up", "small", 8), ("up", "medium", 6), ("up", "large", 4)):
        yield from conv(f"{start}.{way}_{size}_offset_conv1", WIDTH + 2 * texture, texture)
        yield from conv(f"{start}.{way}_{size}_offset_conv2", texture, texture)
        yield from conv(f"{start}.{way}_{size}_dyn_agg", texture, texture)
        yield from conv(f"{start}.{way}_{size}_dyn_agg.conv_offset_mask", texture, 27 * GROUPS)
        yield from conv(f"{start}.{way}_head_{size}.0", WIDTH + texture, WIDTH)
        yield from body(f"{start}.{way}_body_{size}")
    for size in ("large", "medium"):
        yield from conv(f"{start}.down_tail_{size}", WIDTH, WIDTH)
    for size in ("small", "medium"):
        yield from conv(f"{start}.up_tail_{size}.0", WIDTH, 4 * WIDTH)
    yield from conv(f"{start}.up_tail_large.0", WIDTH, WIDTH // 2)
    yield from conv(f"{start}.up_tail_large.2", WIDTH // 2, 3)


def published() -> dict[str, Tensor]:
    """A file of the published code in small, without what no result depends on."""
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes_of_published()}


def extractor_files(folder: Path) -> tuple[str, ...]:
    """Write the two files of extractors, in small, and return the folder as an option."""
    widths = dict(zip(CONVOLUTIONS, ((3, 4), (4, 4), (4, 6), (6, 6), (6, 8)), strict=True))
    starts = {layer: torch.randn(outer, inner, 3, 3) for layer, (inner, outer) in widths.items()}
    torch.save(
        {
            f"feature_extraction_image{copy}.model.{layer}.{kind}": copy * weight if kind == "weight" else torch.zeros(len(weight))
            for copy in (1, 2)
            for layer, weight in starts.items()
            for kind in ("weight", "bias")
        },
        folder / MATCHING_FILE,
    )
    vgg = {
        f"features.{number}.{kind}": 3 * starts[layer] if kind == "weight" else torch.zeros(len(starts[layer]))
        for layer, number in VGG_NUMBERS.items()
        for kind in ("weight", "bias")
    }
    torch.save(vgg, folder / VGG19_FILE)
    return (str(folder),)


def built(config: DATSRConfig = SMALL, scale: int = 4) -> DATSR:
    torch.manual_seed(0)
    return config.build(Problem(scale=scale, bands=3, lr_bands=3)).eval()


def test_a_published_file_is_read_by_its_shapes_and_completed_by_the_two_files_of_extractors(tmp_path: Path) -> None:
    given = published()
    folders = extractor_files(tmp_path)
    unread = {"content_extractor.conv_first.bias": torch.zeros(8)}
    config = replace(SMALL, extractors="published", weight_folders=folders)
    assert KEY_MAPS["datsr"].infer(given).network == replace(SMALL.network, drop_path=0.1)
    config, ours = KEY_MAPS["datsr"].to_ours({**given, **unread}, config)
    method = built(config)
    lacking = method.load_state_dict(ours, strict=False)
    assert not lacking.unexpected_keys
    assert {key.partition(".")[0] for key in lacking.missing_keys} == {"discriminator"}
    first = [method.get_parameter(f"{name}.conv1_1.weight") for name in ("matching_lr", "matching_ref", "extractor")]
    assert torch.equal(first[1], 2 * first[0])
    assert torch.equal(first[2], 3 * first[0])
    back = KEY_MAPS["datsr"].to_published(config, method.state_dict())
    assert all(torch.equal(back[key], given[key]) for key in given)
    assert not {key for key in back if key not in given and not key.endswith(("attn_mask", "relative_position_index"))} - {
        key for key in back if key.startswith("content_extractor.")
    }
    own = built(SMALL)
    _, again = KEY_MAPS["datsr"].to_ours(KEY_MAPS["datsr"].to_published(SMALL, own.state_dict()), SMALL)  # fresh extractors travel along
    assert torch.equal(again["extractor.conv1_1.weight"], own.get_parameter("extractor.conv1_1.weight"))
    with pytest.raises(ValueError, match=MATCHING_FILE):
        KEY_MAPS["datsr"].to_ours(given, replace(config, weight_folders=(str(tmp_path / "none"),)))


def test_the_search_finds_the_most_similar_patches_and_parts_of_it_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 5, 6, 7), torch.randn(2, 5, 6, 7)
    rows, columns = (F.normalize(F.unfold(F.normalize(x, dim=1), 3), dim=1) for x in (query, key))
    products = columns.transpose(1, 2) @ rows
    for most in (2**24, 100, 1):
        monkeypatch.setattr(networks, "LARGEST_PRODUCT", most)
        flow = search(query, key)
        own = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij"))
        found = flow.shift[:, :, :4, :5] + own
        assert torch.equal(found[:, 0] * 5 + found[:, 1], products.argmax(1).unflatten(1, (4, 5)))
        assert not flow.shift[:, :, 4:].any()
        assert not flow.shift[:, :, :, 5:].any()
        assert torch.allclose(flow.similarity[:, 0, 1:-1, 1:-1], products.amax(1).unflatten(1, (4, 5)), atol=1e-4)
    larger = search(query, key).at(2)
    assert torch.equal(warped(key.repeat_interleave(2, 2).repeat_interleave(2, 3), larger.shift)[..., ::2, ::2], warped(key, flow.shift))


def test_matches_and_positions_are_not_rounded_to_half_precision() -> None:
    """Neither here nor where TTSR and MASA-SR search; 160.25 is no number of bfloat16."""
    torch.manual_seed(0)
    features = [torch.randn(1, 4, 16, 24) for _ in range(2)]
    exact = search(*features).shift, ttsr.search(*features)[1], masa.match(*features).position
    layer, wide = Deformed(2, 1), torch.arange(200.0).expand(1, 2, 3, 200)
    torch.nn.init.zeros_(layer.offsets.weight)
    torch.nn.init.constant_(layer.offsets.bias, 0.025)  # a quarter of a pixel
    flow = Flow(torch.zeros(1, 2, 3, 200, dtype=torch.int64), torch.ones(1, 1, 3, 200))
    moved = layer(wide, wide, flow, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = search(*features).shift, ttsr.search(*features)[1], masa.match(*features).position
        torch.testing.assert_close(layer(wide, wide, flow, 1), moved, rtol=1e-3, atol=1e-2)
    for one, other in zip(exact, mixed, strict=True):
        assert torch.equal(one, other)


def test_a_deformed_convolution_sums_the_taps_where_they_were_moved_to() -> None:
    """Tap by tap and pixel by pixel, with what lies beyond the image being 0; each group of channels by itself."""
    torch.manual_seed(0)
    layer = Deformed(4, 2).double()
    torch.nn.init.normal_(layer.offsets.weight, 0, 0.05)
    ref, seen = torch.randn(1, 4, 5, 6, dtype=torch.float64), torch.randn(1, 4, 5, 6, dtype=torch.float64)
    flow = Flow(torch.randint(-2, 3, (1, 2, 5, 6)), torch.rand(1, 1, 5, 6, dtype=torch.float64))
    learned = layer.offsets(seen)[0].detach()

    def at(channel: int, row: float, column: float) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for y in (math.floor(row), math.floor(row) + 1):
            for x in (math.floor(column), math.floor(column) + 1):
                if 0 <= y < 5 and 0 <= x < 6:
                    total = total + (1 - abs(row - y)) * (1 - abs(column - x)) * ref[0, channel, y, x]
        return total

    expected = layer.bias.detach()[:, None, None].expand(4, 5, 6).clone()
    for i in range(5):
        for j in range(6):
            for channel in range(4):
                for tap in range(9):
                    y, x = divmod(tap, 3)
                    number = channel // 2 * 9 + tap
                    step = flow.shift[0, :, i - y, j - x] if i >= y and j >= x else torch.zeros(2)
                    moved = [float(step[axis] + 10 * torch.tanh(learned[2 * number + axis, i, j])) for axis in (0, 1)]
                    share = torch.sigmoid(learned[36 + number, i, j] * flow.similarity[0, 0, i, j])
                    value = at(channel, i + y - 1 + moved[0], j + x - 1 + moved[1])
                    expected[:, i, j] += layer.weight.detach()[:, channel, y, x] * share * value
    torch.testing.assert_close(layer(ref, seen, flow, 1)[0].detach(), expected)


@pytest.mark.parametrize(("scale", "ref_side"), [(4, 32), (8, 25), (16, 40)])
def test_any_multiple_of_four_and_a_reference_of_any_size_are_restored_alike_alone_and_in_a_batch(scale: int, ref_side: int) -> None:
    method, both = built(scale=scale), batch(scale, 32, ref_side)
    assert method.pixel_multiple() * scale == 32
    image = method.restore(both, SamplerConfig(), noise())
    assert image.shape == (2, 3, 32, 32)
    alone = replace(both, metas=both.metas[1:], lr=both.need("lr")[1:], ref=both.need("ref")[1:], hr=None)
    assert torch.allclose(method.restore(alone, SamplerConfig(), noise())[0], image[1], atol=1e-5)
    with_other = replace(both, ref=both.need("ref").flip(0))
    assert not torch.equal(method.restore(with_other, SamplerConfig(), noise()), image), "the reference is not used"


def test_every_group_gets_the_gradient_of_the_whole_objective_for_its_own_weights() -> None:
    method, images = built().eval(), batch()
    made = method.losses(images, method.stages()[0], noise())
    assert tuple(made) == ("restorer", "offsets_medium", "offsets_small", "discriminator")
    assert set(made["restorer"].terms) == {"l1", "adversarial"}
    reached: set[int] = set()
    for name, parameters in method.groups().items():
        made[name].total.backward()
        now = {id(parameter) for parameter in method.parameters() if parameter.grad is not None} - reached
        assert now == {id(parameter) for parameter in parameters}, name
        reached |= now
    shared = [parameter.grad.clone() for parameter in method.network.parameters() if parameter.grad is not None]
    method.zero_grad()
    image = method.network(*method.found(images))
    (F.l1_loss(image, images.need("hr")) - SMALL.adversarial * method.discriminator(image).mean()).backward()
    for one, parameter in zip(shared, method.network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-9)
    frozen = {name.partition(".")[0] for name, parameter in method.named_parameters() if not parameter.requires_grad}
    assert frozen == {"matching_lr", "matching_ref", "extractor"}


def test_fresh_extractors_take_the_published_weights_when_training_begins(tmp_path: Path) -> None:
    config = replace(SMALL, extractors="published", weight_folders=extractor_files(tmp_path))
    method = built(config)
    method.prepare_training()
    first = method.get_parameter("matching_lr.conv1_1.weight")
    assert torch.equal(method.get_parameter("extractor.conv1_1.weight"), 3 * first)
    with pytest.raises(ValueError, match=MATCHING_FILE):
        built(replace(config, weight_folders=(str(tmp_path / "none"),))).prepare_training()


def test_what_cannot_work_is_refused() -> None:
    for problem, words in (
        (Problem(scale=3, bands=3, lr_bands=3), "enlarges by 4"),
        (Problem(scale=4, bands=3, lr_bands=1), "compares LR and reference"),
        (Problem(scale=4, bands=5, lr_bands=5), "model.extractors=random"),
    ):
        assert words in str(replace(SMALL, extractors="published").refuse(problem))
    assert SMALL.refuse(Problem(scale=4, bands=5, lr_bands=5)) is None
    with pytest.raises(ValueError, match="multiple of 32"):
        built().losses(batch(side=48), built().stages()[0], noise())
    with pytest.raises(ValueError, match="choose a divisor"):
        DATSRNetConfig(groups=7)
