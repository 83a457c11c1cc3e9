"""RRDBNet and the ESRGAN family: heads, tiles, the chain of two stages, importers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.losses.images import ImageLossConfig
from rsdiff.methods.adversaries import AdversarialLossConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.esrgan import ESRGAN, ESRGANConfig
from rsdiff.methods.perceptual import PerceptualLossConfig, VGG19Features
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.methods.restoring import HaloTilesConfig
from rsdiff.networks.discriminators import DiscriminatorConfig, PatchConfig, UNetConfig, VGGConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.training.starting import load_weights
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.discriminators import discriminator_name
from rsdiff.weights.keymaps.rrdb import rrdb_name
from tests.method_losses import losses_of
from tests.unit.test_adversarial import small_vgg19

GENERATOR = RRDBNetConfig(width=8, blocks=1, growth=4)
NO_PERCEPTUAL = PerceptualLossConfig(weight=0.0)
PLAIN = RRDBMethodConfig(network=GENERATOR)
GAN = ESRGANConfig(network=GENERATOR, perceptual=NO_PERCEPTUAL, discriminator=UNetConfig(width=4))
SAMPLER, NO_NOISE = SamplerConfig(), ReplayNoise([])


def problem(scale: int = 4, bands: int = 3) -> Problem:
    return Problem(scale=scale, bands=bands, lr_bands=bands)


def batch_of(scale: int = 4, lr_size: tuple[int, int] = (8, 8), bands: int = 3, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    h, w = lr_size
    hr = torch.rand(count, bands, h * scale, w * scale, generator=generator)
    lr = torch.rand(count, bands, h, w, generator=generator)
    metas = [SampleMeta(str(i), index=i) for i in range(count)]
    return Batch(metas=metas, size=(h * scale, w * scale), lr_size=lr_size, hr=hr, lr=lr)


def method_of(config: Any, scale: int = 4, bands: int = 3) -> Any:
    torch.manual_seed(0)
    return config.build(problem(scale, bands))


@pytest.mark.parametrize(("head", "scale"), [("always_x4", 1), ("always_x4", 2), ("stages", 2), ("stages", 3), ("stages", 8)])
def test_every_head_restores_any_number_of_bands(head: Any, scale: int) -> None:
    method = method_of(RRDBMethodConfig(network=replace(GENERATOR, head=head)), scale, bands=4)
    image = method.restore(batch_of(scale, (8, 12), bands=4), SAMPLER, NO_NOISE)
    assert image.shape == (2, 4, 8 * scale, 12 * scale)


def test_both_heads_are_the_same_network_at_x4() -> None:
    batch = batch_of()
    images = [
        method_of(RRDBMethodConfig(network=replace(GENERATOR, head=head))).restore(batch, SAMPLER, NO_NOISE)  # type: ignore[arg-type]
        for head in ("always_x4", "stages")
    ]
    assert torch.equal(*images)


@pytest.mark.parametrize(("head", "scale"), [("always_x4", 3), ("stages", 5), ("stages", 1), ("stages", 2.5)])
def test_a_scale_that_a_head_does_not_reach_is_one_sentence(head: Any, scale: float) -> None:
    config = RRDBMethodConfig(network=replace(GENERATOR, head=head))
    reason = config.refuse(Problem(scale=scale, bands=3, lr_bands=3))
    assert reason is not None
    assert "scale=" in reason


def test_orthogonal_weights_have_rows_of_length_one_fifth() -> None:
    method = method_of(replace(PLAIN, initial="orthogonal"))
    matrix = method.network.conv_hr.weight.flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, 0.04 * torch.eye(len(matrix)), rtol=1e-4, atol=1e-6)
    assert not bool(method.network.conv_hr.bias.any())


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_with_a_halo_as_wide_as_the_network_sees_change_nothing(scale: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3 * scale**2, 5, padding=2), torch.nn.PixelShuffle(scale))
    images = torch.rand(2, 3, 15, 22)
    whole = HaloTilesConfig().run(network, images, scale, 1)
    torch.testing.assert_close(HaloTilesConfig(tile=6, halo=2).run(network, images, scale, 1), whole)


def test_images_of_any_size_are_extended_to_what_the_network_needs_and_cropped() -> None:
    method = method_of(PLAIN, scale=2)
    assert method.restore(batch_of(2, (7, 9)), SAMPLER, NO_NOISE).shape == (2, 3, 14, 18)
    with pytest.raises(ValueError, match="too small to be extended"):
        HaloTilesConfig(margin=10).run(method.network, torch.rand(1, 3, 8, 8), 2, 2)
    with pytest.raises(ValueError, match="multiples of 2"):
        HaloTilesConfig(tile=5, halo=2).run(method.network, torch.rand(1, 3, 8, 8), 2, 2)


def test_the_gan_begins_from_the_generator_of_the_first_stage() -> None:
    first, second = method_of(PLAIN), method_of(GAN)
    with torch.no_grad():
        first.network.conv_last.bias.add_(0.5)
    second.begin_from(first.state_dict())
    batch = batch_of()
    assert torch.equal(first.restore(batch, SAMPLER, NO_NOISE), second.restore(batch, SAMPLER, NO_NOISE))
    assert GAN.predecessor.kind == "rrdb"
    assert GAN.predecessor.options == {"network": PLAIN.network, "base": PLAIN.base}


def test_each_group_gets_gradients_of_its_own_loss() -> None:
    method = method_of(GAN)
    groups = {name: list(parameters) for name, parameters in method.groups().items()}
    assert sum(len(parameters) for parameters in groups.values()) == len(list(method.parameters()))
    batch = batch_of()
    losses_of(method, batch, NO_NOISE).total.backward()
    assert all(parameter.grad is not None for parameter in groups["restorer"])
    for parameter in method.parameters():
        parameter.grad = None
    losses_of(method, batch, NO_NOISE, "discriminator").total.backward()
    assert all(parameter.grad is None for parameter in groups["restorer"])
    assert all(parameter.grad is not None for parameter in groups["discriminator"])


def test_one_forward_pass_of_the_generator_serves_every_group() -> None:
    method, batch, calls = method_of(GAN), batch_of(), []
    method.network.register_forward_hook(lambda *_: calls.append(1))
    losses = method.losses(batch, method.stages()[-1], NO_NOISE)
    assert set(losses) == set(method.groups())
    assert len(calls) == 1


def test_weights_of_the_terms_add_up_to_the_total() -> None:
    perceptual = PerceptualLossConfig(weight=0.7, layers=("conv2_2",), layer_weights=(1.0,))
    method = method_of(
        replace(
            GAN, loss=ImageLossConfig(l1=0.3), perceptual=perceptual, adversarial=AdversarialLossConfig(weight=0.2), sharpened_target=True
        )
    )
    method.objective.perceptual.use(VGG19Features(small_vgg19(), perceptual.layers))
    losses = losses_of(method, batch_of(lr_size=(16, 16)), NO_NOISE)
    terms = losses.terms
    torch.testing.assert_close(losses.total.detach(), 0.3 * terms["l1"] + 0.7 * terms["perceptual"] + 0.2 * terms["adversarial"])
    assert not any("perceptual" in key for key in method.state_dict())


def test_a_missing_vgg19_is_one_sentence_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    method = method_of(replace(GAN, perceptual=PerceptualLossConfig(weight_folders=(str(tmp_path),))))
    with pytest.raises(ValueError, match=r"needs vgg19-dcbb9e9d\.pth"):
        method.prepare_training()
    torch.save(small_vgg19(), tmp_path / "vgg19-dcbb9e9d.pth")
    method.prepare_training()
    assert "perceptual" in losses_of(method, batch_of(), NO_NOISE).terms


def test_other_bands_than_three_need_no_perceptual_loss() -> None:
    assert "model.perceptual.weight=0" in str(ESRGANConfig().refuse(problem(bands=4)))
    assert GAN.refuse(problem(bands=4)) is None
    losses_of(method_of(GAN, bands=4), batch_of(bands=4), NO_NOISE).total.backward()


def layouts(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Return a generator's weights in every published form."""
    inner = {key.removeprefix("network."): value for key, value in state.items()}

    def under(layout: Any) -> dict[str, Tensor]:
        name = rrdb_name(layout, blocks=1, stages=2)
        return {name(key): value for key, value in inner.items()}

    sequential = under("sequential")
    return {
        "basicsr": {"params": {key: value + 1 for key, value in under("basicsr").items()}, "params_ema": under("basicsr")},
        "esrgan": under("esrgan"),
        "parallel": {f"module.{key}": value for key, value in under("esrgan").items()},
        "kair_sequential": sequential,
        "esrgan_sequential": {key.replace(".conv5.", ".conv5.0."): value for key, value in sequential.items()},
    }


@pytest.mark.parametrize("form", ["basicsr", "esrgan", "parallel", "kair_sequential", "esrgan_sequential"])
@pytest.mark.parametrize("kind", ["rrdb", "esrgan"])
def test_generators_of_every_published_form_are_read(form: str, kind: str) -> None:
    state = method_of(PLAIN).state_dict()
    config, weights = import_weights(kind, layouts(state)[form])
    assert (config.network.width, config.network.blocks, config.network.growth) == (8, 1, 4)
    assert all(torch.equal(weights[key], value) for key, value in state.items())
    assert {name.partition(".")[0] for name in weights} == {"network"}
    load_weights(method_of(config), weights, Path(form))


@pytest.mark.parametrize("discriminator", [UNetConfig(width=4), VGGConfig(width=4, size=32), PatchConfig(width=4)], ids=lambda d: d.kind)
def test_a_folder_with_a_discriminator_is_read_whole(discriminator: DiscriminatorConfig) -> None:
    method: ESRGAN = method_of(replace(GAN, discriminator=discriminator))
    state = method.state_dict()
    generator = export_weights("esrgan", method.options, state)
    name = discriminator_name(method.discriminator)
    judge = {name(key): value for key, value in method.discriminator.state_dict().items()}
    config, weights = import_weights("esrgan", {"stage_1": {"params": judge}, "stage_2": {"params_ema": generator}})
    assert config.discriminator.build(3).state_dict().keys() == method.discriminator.state_dict().keys()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], value) for key, value in state.items())


@pytest.mark.parametrize(("head", "other"), [("stages", "always_x4"), ("always_x4", "stages")])
def test_an_x2_file_of_the_other_family_is_refused_by_its_name(head: Any, other: Any) -> None:
    config = RRDBMethodConfig(network=replace(GENERATOR, head=head))
    published = export_weights("rrdb", config, method_of(config, 2).state_dict())
    assert import_weights("rrdb", published, config)[0] == config
    with pytest.raises(ValueError, match=f"model.network.head={head}"):
        import_weights("rrdb", published, RRDBMethodConfig(network=replace(GENERATOR, head=other)))


def test_input_and_target_may_differ_in_bands() -> None:
    torch.manual_seed(0)
    state = PLAIN.build(Problem(scale=4, bands=3, lr_bands=6)).state_dict()
    _, weights = import_weights("rrdb", export_weights("rrdb", PLAIN, state), PLAIN)
    assert all(torch.equal(weights[key], value) for key, value in state.items())


def test_a_file_of_another_network_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="no RRDBNet"):
        import_weights("rrdb", {"conv.weight": torch.zeros(3)})
