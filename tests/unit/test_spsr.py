"""SPSR: laws of gradient maps and generator, the stages of its training, import, and what it starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore
from rsdiff.methods.adversaries import AdversarialLossConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.perceptual import PerceptualLossConfig
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.methods.spsr import SPSR, SPSRConfig
from rsdiff.networks.discriminators import UNetConfig, VGGConfig
from rsdiff.networks.spsr import SPSRNetConfig, gradient_map
from rsdiff.weights.importer import export_weights, import_weights
from rsdiff.weights.keymaps.discriminators import discriminator_name

TINY = SPSRConfig(
    network=SPSRNetConfig(width=4, blocks=3, growth=4, taps=(1, 3)),
    perceptual=PerceptualLossConfig(weight=0.0, layers=("conv5_4",), layer_weights=(1.0,)),
    discriminator=VGGConfig(biases=True, width=2, size=16),
    fusion_steps=2,
)

NO_NOISE = ReplayNoise([])


def tiny(options: SPSRConfig = TINY, scale: int = 4, bands: int = 3) -> SPSR:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = options.build(Problem(scale, bands, bands))
    assert isinstance(method, SPSR)
    return method


def batch(count: int = 2, side: int = 16, scale: int = 4, bands: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(count, bands, side, side, generator=generator)
    lr = torch.rand(count, bands, side // scale, side // scale, generator=generator)
    return Batch([SampleMeta(str(i)) for i in range(count)], (side, side), (side // scale,) * 2, hr=hr, lr=lr)


def test_a_gradient_map_ignores_brightness_inside_and_turns_with_the_image() -> None:
    image = torch.rand(1, 2, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(gradient_map(image + 3)[..., 1:-1, 1:-1], gradient_map(image)[..., 1:-1, 1:-1])
    torch.testing.assert_close(gradient_map(image.mT), gradient_map(image).mT)
    torch.testing.assert_close(gradient_map(image, 2)[..., 1:-1, 1:-1], gradient_map(image, 1))
    assert gradient_map(image, 2).shape == (1, 2, 11, 9)


def test_a_ramp_has_twice_its_slope_as_gradient() -> None:
    ramp = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
    torch.testing.assert_close(gradient_map(ramp)[..., 1:-1, 1:-1], torch.full((1, 1, 6, 6), 2.0, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("scale", "bands"), [(2, 4), (3, 1), (4, 3), (8, 3)])
def test_any_size_scale_and_number_of_bands_is_restored(scale: int, bands: int) -> None:
    method = tiny(replace(TINY, network=replace(TINY.network, head="stages")), scale, bands).eval()
    given = Batch([SampleMeta("a")], (5 * scale, 7 * scale), (5, 7), lr=torch.rand(1, bands, 5, 7))
    assert restore(method, given, SamplerConfig(), NO_NOISE).shape == (1, bands, 5 * scale, 7 * scale)


def test_the_first_stage_trains_the_fusion_and_both_discriminators_only() -> None:
    method, given = tiny(), batch()
    fusion, everything = method.stages()
    assert (fusion.steps, everything.steps) == (2, None)
    for stage, learns in ((fusion, False), (everything, True)):
        method.train().start_stage(stage)
        method.zero_grad(set_to_none=True)
        for losses in method.losses(given, stage, NO_NOISE).values():
            losses.total.backward()
        assert all((p.grad is not None) == (learns or name.startswith("fusion")) for name, p in method.network.named_parameters())
        judges = (*method.discriminator.parameters(), *method.gradient_discriminator.parameters())
        assert all(p.grad is not None for p in judges)


def test_discriminators_judge_what_the_generator_made_before_its_step() -> None:
    method, given = tiny().train(), batch()
    losses = method.losses(given, method.stages()[-1], NO_NOISE)
    losses["gradient_discriminator"].total.backward()
    expected = [parameter.grad.clone() for parameter in method.gradient_discriminator.parameters() if parameter.grad is not None]
    method.zero_grad()
    losses = method.losses(given, method.stages()[-1], NO_NOISE)
    losses["restorer"].total.backward()
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1)
    losses["gradient_discriminator"].total.backward()
    found = [parameter.grad for parameter in method.gradient_discriminator.parameters() if parameter.grad is not None]
    assert found
    torch.testing.assert_close(found, expected)


def test_it_starts_from_the_trunk_of_a_trained_rrdb() -> None:
    assert TINY.predecessor.kind == "rrdb"
    base = RRDBMethodConfig(network=TINY.network.trunk).build(Problem(4, 3, 3))
    method = tiny()
    last = method.network.conv_last.weight.clone()
    method.begin_from(base.state_dict())
    assert torch.equal(method.network.body[2].dense[0].convs[0].weight, base.network.body[2].dense[0].convs[0].weight)  # type: ignore[union-attr,index]
    assert torch.equal(method.network.conv_last.weight, last)


def test_joint_relative_losses_have_the_value_of_the_others_and_gradients_through_both_answers() -> None:
    real, fake = torch.randn(4, 1, requires_grad=True), torch.randn(4, 1)
    joint, apart = (AdversarialLossConfig(relative="to_mean", joint=both) for both in (True, False))
    scale = torch.ones((), requires_grad=True)
    losses = [game.discriminator_loss(lambda answers: scale * answers, fake, real).total for game in (joint, apart)]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, scale, retain_graph=True)[0] for loss in losses]
    assert not torch.allclose(*gradients)
    with pytest.raises(ValueError, match="joint has no effect"):
        AdversarialLossConfig(joint=True)


@pytest.mark.parametrize(("head", "scale"), [("always_x4", 4), ("stages", 2), ("stages", 8)])
def test_weights_survive_export_and_import_with_and_without_discriminators(head: str, scale: int) -> None:
    options = replace(TINY, network=replace(TINY.network, head=head))  # type: ignore[arg-type]
    method = tiny(options, scale)
    published = export_weights("spsr", options, method.state_dict())
    made, state = import_weights("spsr", published, options)
    assert made == options
    assert all(torch.equal(state[key], value) for key, value in method.state_dict().items() if key.startswith("network."))
    judges = {
        f"stage_{number}": {discriminator_name(judge)(key): value for key, value in judge.state_dict().items()}  # type: ignore[arg-type]
        for number, judge in enumerate((method.discriminator, method.gradient_discriminator), 2)
    }
    _, state = import_weights("spsr", {"stage_1": published, **judges}, options)
    assert state.keys() == method.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in method.state_dict().items())


def test_the_copy_that_is_read_last_wins_and_other_kernels_are_refused() -> None:
    published = export_weights("spsr", TINY, tiny().state_dict())
    assert torch.equal(published["HR_conv0_new.0.weight"], published["model.8.weight"])
    _, state = import_weights("spsr", {**published, "HR_conv0_new.0.weight": torch.zeros_like(published["model.8.weight"])}, TINY)
    assert torch.equal(state["network.conv_hr.weight"], published["model.8.weight"])
    with pytest.raises(ValueError, match="difference of two neighbours"):
        import_weights("spsr", {**published, "get_g_nopadding.weight_v": torch.zeros(1, 1, 3, 3)}, TINY)


def test_what_cannot_work_is_refused() -> None:
    assert TINY.refuse(Problem(4, 3, 3)) is None
    assert "head=stages" in str(TINY.refuse(Problem(2, 3, 3)))
    assert "3 bands" in str(SPSRConfig().refuse(Problem(4, 5, 5)))
    with pytest.raises(ValueError, match="taps"):
        SPSRNetConfig(blocks=19)
    with pytest.raises(ValueError, match="2 pixels larger"):
        replace(TINY, discriminator=UNetConfig())
