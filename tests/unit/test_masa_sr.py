"""MASA-SR: released files by their names, the search against its definition, what training and other scales do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.masa_sr import MASASR, MASASRConfig
from rsdiff.methods.perceptual import PerceptualLossConfig
from rsdiff.networks import masa as networks
from rsdiff.networks.discriminators import VGGConfig
from rsdiff.networks.masa import BLOCK, MASANet, MASANetConfig, in_blocks, match, transferred
from rsdiff.weights.keymaps import KEY_MAPS
from tests.unit.referenced import batch, noise

WIDTH, ENCODER, DECODER = 4, (2, 1, 1), (1, 2, 1, 3, 2, 1)
SMALL = MASASRConfig(
    network=MASANetConfig(width=WIDTH, encoder_blocks=ENCODER, decoder_blocks=DECODER),
    perceptual=PerceptualLossConfig(weight=0.0),
    discriminator=VGGConfig(width=2, size=64),
)


def published() -> dict[str, Tensor]:
    """A file of the published code in small: every name of dvlab-research/MASA-SR, written out from its classes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inner: int = WIDTH, outer: int = WIDTH) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, 3, 3), (outer,)

    def blocks(name: str, count: int) -> None:
        for number in range(count):
            conv(f"{name}.{number}.conv1")
            conv(f"{name}.{number}.conv2")

    for level, count in enumerate(ENCODER, start=1):
        conv(f"enc.conv_L{level}", 3 if level == 1 else WIDTH)
        blocks(f"enc.blk_L{level}", count)
    for name, count in zip(("L3", "L2", "L1", "x1", "x2", "x4"), DECODER, strict=True):
        blocks(f"decoder.blk_{name}", count)
    for name, inner in (("conv_L3", WIDTH), ("conv_L2", 2 * WIDTH), ("conv_L1", 2 * WIDTH), ("merge_warp_x1", 2 * WIDTH)):
        conv(f"decoder.{name}", inner)
    for dram in ("dram_x2", "dram_x4"):
        for name in ("conv_down_a", "conv_up_a", "conv_down_b", "conv_up_b"):
            conv(f"decoder.{dram}.{name}")
        conv(f"decoder.{dram}.conv_cat", 2 * WIDTH)
    conv("decoder.pAda.conv_shared.0", 2 * WIDTH)
    conv("decoder.pAda.conv_gamma")
    conv("decoder.pAda.conv_beta")
    conv("decoder.conv_out", WIDTH, 3)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def built(config: MASASRConfig = SMALL, scale: int = 4) -> MASASR:
    torch.manual_seed(0)
    return config.build(Problem(scale=scale, bands=3, lr_bands=3)).eval()


def test_a_published_file_is_read_by_its_shapes_with_its_bands_turned_and_written_back_as_it_was() -> None:
    given = published()
    config, ours = KEY_MAPS["masa_sr"].to_ours({f"module.{key}": value for key, value in given.items()}, None)
    assert config.network == SMALL.network
    method = built(replace(SMALL, network=config.network))
    lacking = method.load_state_dict(ours, strict=False)
    assert not lacking.unexpected_keys
    assert {key.partition(".")[0] for key in lacking.missing_keys} == {"discriminator"}
    back = KEY_MAPS["masa_sr"].to_published(config, method.state_dict())
    assert back.keys() == given.keys()
    assert all(torch.equal(back[key], given[key]) for key in given)
    # The file's network sees and makes blue, green, red: as it stands it answers turned images as ours answers the images.
    unturned = MASANet(3, config.network).eval()
    names = {key.removeprefix("network."): key for key in ours}
    as_filed = {name: ours[key] for name, key in names.items()}
    for name, dims in (("encoder.convs.0.weight", 1), ("decoder.last.weight", 0), ("decoder.last.bias", 0)):
        as_filed[name] = as_filed[name].flip(dims)
    unturned.load_state_dict(as_filed)
    lr, ref, small = (torch.rand(1, 3, side, side, dtype=torch.float64) for side in (16, 64, 16))
    answers = unturned.double()(lr.flip(1), ref.flip(1), small.flip(1)).flip(1), method.network.double()(lr, ref, small)
    torch.testing.assert_close(*answers)


def test_the_search_keeps_to_its_definition_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of 3 x 3 patches: of a block's centre at three distances with the whole reference, then of its pixels nearby."""
    torch.manual_seed(0)
    lr, ref = torch.randn(1, 2, 8, 16), torch.randn(1, 2, 12, 14)
    padded = F.pad(lr, (1, 1, 1, 1), mode="replicate")[0]

    def patch(image: Tensor, row: int, column: int, step: int = 1) -> Tensor:
        """Of `image`, with zeros around it; normalised."""
        around = F.pad(image, (4, 4, 4, 4))
        rows, columns = ([4 + place + step * offset for offset in (-1, 0, 1)] for place in (row, column))
        return F.normalize(around[:, rows][:, :, columns].flatten(), dim=0)

    expected = torch.empty(2, BLOCK, BLOCK, dtype=torch.int64)
    reach = int(14 // (2 * 2) * 1.5)  # of columns; the window of one block of rows is the whole reference but its border
    patches = {d: torch.stack([patch(ref[0], y, x, d) for y in range(12) for x in range(14)]) for d in (1, 2, 3)}
    for block in range(2):
        row, column = 1 + BLOCK // 2, 1 + block * BLOCK + BLOCK // 2
        sums = torch.stack([patches[d] @ patch(padded, row, column, d) for d in (1, 2, 3)]).sum(0)
        best = divmod(int(sums.argmax()), 14)
        left = min(max(best[1] - reach, 1), 14 - 2 - 2 * reach)
        near = torch.tensor([y * 14 + x for y in range(1, 11) for x in range(left, left + 2 * reach + 1)])
        for i in range(BLOCK):
            for j in range(BLOCK):
                query = patch(padded, 1 + i, 1 + block * BLOCK + j)
                expected[block, i, j] = near[(patches[1][near] @ query).argmax()]
    for most in (2**24, 1):
        monkeypatch.setattr(networks, "LARGEST_PART", most)
        assert torch.equal(match(lr, ref).position, expected.flatten(1)[None])


def test_an_image_that_is_its_own_reference_gets_its_own_textures_back() -> None:
    features = torch.rand(1, 3, 16, 24)
    matches = match(features, features)
    own = in_blocks(torch.arange(16 * 24).view(1, 1, 16, 24))[:, 0]
    rows, columns = own // 24, own % 24
    inner = (
        (rows > 0) & (rows < 15) & (columns > 0) & (columns < 23)
    )  # patches of the reference that reach over its border are not searched
    assert torch.equal(matches.position[inner], own[inner])
    assert torch.allclose(matches.similarity[inner], torch.ones(()), atol=1e-5)
    for factor in (1, 2, 4):
        of_ref = torch.rand(1, 2, 16 * factor, 24 * factor)
        texture = transferred(of_ref, matches, factor, (16, 24))
        off = 2 * factor
        assert torch.allclose(texture[..., off:-off, off:-off], of_ref[..., off:-off, off:-off], atol=1e-4)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_any_multiple_of_four_and_a_reference_of_any_size_are_restored_alike_alone_and_in_a_batch(scale: int) -> None:
    method, both = built(scale=scale), batch(scale, 64, 46)
    assert method.pixel_multiple() * scale == 32
    image = method.restore(both, SamplerConfig(), noise())
    assert image.shape == (2, 3, 64, 64)
    alone = replace(both, metas=both.metas[1:], lr=both.need("lr")[1:], ref=both.need("ref")[1:], hr=None)
    assert torch.allclose(method.restore(alone, SamplerConfig(), noise())[0], image[1], atol=1e-5)
    with_other = replace(both, ref=both.need("ref").flip(0))
    assert not torch.allclose(method.restore(with_other, SamplerConfig(), noise()), image, atol=1e-3), "the reference is not used"


def test_a_target_of_one_block_and_a_small_reference_are_restored() -> None:
    method = built()
    image = method.restore(batch(4, 32, 16), SamplerConfig(), noise())
    assert image.shape == (2, 3, 32, 32)
    assert bool(image.isfinite().all())


def test_stages_losses_and_what_each_trains() -> None:
    method = built().train()
    first, whole = method.stages()
    assert (first.groups, whole.groups) == (("restorer",), ("restorer", "discriminator"))
    assert "relativistic" in method.coupling
    for stage in (first, whole):
        method.zero_grad()
        made = method.losses(batch(side=64), stage, noise())
        assert tuple(made) == stage.groups
        assert set(made["restorer"].terms) == ({"l1"} if stage is first else {"l1", "adversarial"})
        made["restorer"].total.backward()
        assert all(parameter.grad is None for parameter in method.discriminator.parameters())
        # All but what begins behind weights of 0, which the first step moves.
        idle = {name for name, parameter in method.network.named_parameters() if parameter.grad is None}
        assert not idle
    plain = built(replace(SMALL, adversarial=replace(SMALL.adversarial, weight=0.0)))
    assert [stage.groups for stage in plain.stages()] == [("restorer",)]
    assert not plain.coupling


def test_what_cannot_work_is_refused() -> None:
    for problem, words in (
        (Problem(scale=3, bands=3, lr_bands=3), "enlarges by 4"),
        (Problem(scale=4, bands=3, lr_bands=1), "compares LR and reference"),
        (Problem(scale=4, bands=5, lr_bands=5), "model.perceptual.weight=0"),
    ):
        assert words in str(replace(SMALL, perceptual=PerceptualLossConfig()).refuse(problem))
    assert SMALL.refuse(Problem(scale=4, bands=5, lr_bands=5)) is None
    with pytest.raises(ValueError, match="multiple of 32"):
        built().losses(batch(side=48), built().stages()[0], noise())
