"""Both stages of LDCSR and its consistency variant."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.consistency import boundary_weights
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem, Stage
from rsdiff.methods.ldcsr import LCMSRConfig, LDCSRConfig
from rsdiff.methods.ldcsr_vae import DiscriminatorConfig, LDCSRVaeConfig
from rsdiff.networks.kl_autoencoder import AutoencoderConfig, DiagonalGaussian, GAPDecoderConfig, GAPEncoderConfig
from rsdiff.networks.latent_unet import LatentUNetConfig
from rsdiff.weights import export_weights, import_weights
from tests.method_losses import losses_of

PROBLEM = Problem(scale=4, bands=3, lr_bands=3)
ENCODER = GAPEncoderConfig(width=32, multipliers=(1, 1), blocks=1)
DECODER = GAPDecoderConfig(width=32, multipliers=(1, 1), blocks=1, refinements=(1, 1))
AUTOENCODER = AutoencoderConfig(encoder=ENCODER, decoder=DECODER)
UNET = LatentUNetConfig(width=32, multipliers=(1, 1), blocks=1, attention_levels=(1,), head_channels=16)
FIRST = LDCSRVaeConfig(autoencoder=AUTOENCODER, perceptual_weight=0.0, discriminator=DiscriminatorConfig(start_step=3, width=8, layers=2))
SECOND = LDCSRConfig(first_stage=AUTOENCODER, condition=ENCODER, unet=UNET)
CONSISTENT = LCMSRConfig(first_stage=AUTOENCODER, condition=ENCODER, unet=UNET)
ABLATIONS: dict[str, dict[str, Any]] = {
    "sr_only": {"decoder": replace(DECODER, branches="image")},
    "no_image_branch": {"encoder_sees": "target", "decoder": replace(DECODER, branches="latent", refinements=())},
    "no_scale": {"decoder": replace(DECODER, modulation="sum")},
    "wo_csum": {"decoder": replace(DECODER, upsampler="nearest_mlp")},
    "wo_fru": {"decoder": replace(DECODER, refinements=())},
    "fixed_x4": {"decoder": replace(DECODER, upsampler="fixed_x4", modulation="sum")},
}


def batch_of(size: tuple[int, int], lr_size: tuple[int, int], count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    hr, lr = torch.rand(count, 3, *size, generator=generator), torch.rand(count, 3, *lr_size, generator=generator)
    return Batch(metas=[SampleMeta(str(i), index=i) for i in range(count)], size=size, lr_size=lr_size, hr=hr, lr=lr)


def noise(count: int = 2) -> SeededNoise:
    return SeededNoise([(0, i) for i in range(count)])


def second_stage(config: LDCSRConfig | LCMSRConfig = SECOND) -> Any:
    torch.manual_seed(0)
    method = config.build(PROBLEM)
    method.begin_from(FIRST.build(PROBLEM).state_dict())
    method.prepare_training()
    method.train()
    return method


@pytest.mark.parametrize("ablation", [{}, *ABLATIONS.values()], ids=["published", *ABLATIONS])
def test_a_decoder_may_start_from_the_enlarged_input(ablation: dict[str, Any]) -> None:
    options = replace(AUTOENCODER, **ablation)
    fresh = replace(options, decoder=replace(options.decoder, initial="enlarged")).build(3, 3)
    batch = batch_of((48, 40), (12, 10))
    enlarged_input = torch.nn.functional.interpolate(batch.need("lr"), size=(48, 40), mode="bicubic", align_corners=False)
    latent = (
        batch.need("lr") if options.decoder.branches == "image" else torch.randn(2, 4, 24, 20, generator=torch.Generator().manual_seed(0))
    )
    torch.testing.assert_close(fresh.decode(latent, batch.need("lr"), (48, 40)), enlarged_input)
    assert not torch.allclose(options.build(3, 3).decode(latent, batch.need("lr"), (48, 40)), enlarged_input, atol=1e-3)


@pytest.mark.parametrize(("scale", "size"), [(1.7, (20, 17)), (2.6, (31, 26)), (4.0, (48, 40)), (7.3, (87, 73))])
@pytest.mark.parametrize("config", [SECOND, CONSISTENT], ids=["ldcsr", "lcmsr"])
def test_one_set_of_weights_restores_at_any_scale(config: Any, scale: float, size: tuple[int, int]) -> None:
    method = second_stage(config).eval()
    method.latent_scale.fill_(1.0)
    batch = replace(batch_of(size, (12, 10)), hr=None)
    solver = "ddpm" if config is SECOND else "native"
    image = method.restore(batch, SamplerConfig(solver=solver, steps=2), noise())
    assert image.shape == (2, 3, *size)
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1


def test_an_image_is_restored_alike_alone_and_in_a_batch() -> None:
    method = second_stage().eval()
    method.latent_scale.fill_(1.0)
    batch, sampler = batch_of((24, 24), (9, 9)), SamplerConfig(solver="ddpm", steps=4)
    alone = replace(batch, metas=batch.metas[:1], hr=None, lr=batch.need("lr")[:1])
    both = method.restore(batch, sampler, noise())
    torch.testing.assert_close(method.restore(alone, sampler, noise(1)), both[:1], rtol=1e-4, atol=1e-5)


def test_the_second_stage_trains_neither_the_first_nor_anything_before_its_latents_are_measured() -> None:
    method = second_stage()
    before = copy.deepcopy(method.first_stage.state_dict())
    losses = losses_of(method, batch_of((16, 16), (8, 8)), noise())
    losses.total.backward()
    assert float(method.latent_scale) > 0
    assert all(parameter.grad is None for parameter in method.first_stage.parameters())
    assert not method.first_stage.training
    assert all(torch.equal(value, method.first_stage.state_dict()[key]) for key, value in before.items())
    trained = [parameter for group in method.groups().values() for parameter in group]
    assert all(parameter.grad is not None for parameter in trained)


def test_the_latent_scale_is_measured_once_and_survives_a_resume() -> None:
    method = second_stage()
    losses_of(method, batch_of((16, 16), (8, 8)), noise())
    kept = method.latent_scale.clone()
    resumed = second_stage()
    resumed.load_state_dict(method.state_dict())
    resumed.prepare_training()
    losses_of(resumed, batch_of((24, 24), (8, 8)), noise())
    assert torch.equal(resumed.latent_scale, kept)


def test_the_discriminator_joins_after_its_start_step() -> None:
    method = FIRST.build(PROBLEM)
    alone, adversarial = method.stages()
    assert (alone.groups, alone.steps) == (("restorer",), 3)
    assert adversarial.groups == ("restorer", "discriminator")
    batch = batch_of((24, 24), (8, 8))
    assert "adversarial" not in losses_of(method, batch, noise(), stage=alone).terms
    assert "adversarial" in losses_of(method, batch, noise()).terms
    loss = losses_of(method, batch, noise(), "discriminator")
    loss.total.backward()
    assert all(parameter.grad is None for parameter in method.autoencoder.parameters())


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains_and_is_imported_from_its_keys_alone(name: str) -> None:
    torch.manual_seed(0)
    config = replace(FIRST, autoencoder=replace(AUTOENCODER, **ABLATIONS[name]))
    method = config.build(PROBLEM)
    losses_of(method, batch_of((32, 32), (8, 8)), noise()).total.backward()
    published = export_weights("ldcsr_vae", config, method.state_dict())
    _, imported = import_weights("ldcsr_vae", published, config)
    assert all(torch.equal(imported[key], value) for key, value in method.state_dict().items())
    if "fuse" in " ".join(published):
        found, _ = import_weights("ldcsr_vae", published)
        assert found.autoencoder.decoder.branches == config.autoencoder.decoder.branches
        assert (
            found.autoencoder.decoder.modulation == config.autoencoder.decoder.modulation or config.autoencoder.decoder.branches != "both"
        )


def test_a_released_second_stage_is_imported_with_its_averages_and_schedule() -> None:
    method = second_stage()
    method.latent_scale.fill_(0.7)
    config = replace(SECOND, unet=replace(UNET, head_channels=32))
    published = export_weights("ldcsr", config, method.state_dict())
    published["model_ema.diffusion_modelout2bias"] = torch.full((4,), 3.0)
    found, imported = import_weights("ldcsr", published)
    assert found == config
    assert torch.equal(imported["unet.conv_out.bias"], torch.full((4,), 3.0))
    with pytest.raises(ValueError, match=r"correct model\.schedule"):
        import_weights("ldcsr", published, replace(config, schedule=replace(config.schedule, end=0.5)))


def test_the_older_second_stage_is_exported_under_its_published_names_and_comes_back() -> None:
    config = replace(SECOND, architecture="unet_atom", unet=replace(UNET, head_channels=32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = config.build(PROBLEM).state_dict()
    published = export_weights("ldcsr", config, state)
    assert "model.diffusion_model.first_conv_x.weight" in published
    found, again = import_weights("ldcsr", published, config)
    assert found == config
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_a_missing_perceptual_network_is_said_before_the_first_step(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    method = replace(FIRST, perceptual_weight=1.0, weight_folders=(str(tmp_path),)).build(PROBLEM)
    with pytest.raises(ValueError, match="vgg16"):
        method.prepare_training()


def test_the_first_stage_alone_cannot_restore_what_has_no_target() -> None:
    method = FIRST.build(PROBLEM).eval()
    batch = batch_of((24, 24), (8, 8))
    assert method.restore(batch, SamplerConfig(), noise()).shape == (2, 3, 24, 24)
    with pytest.raises(ValueError, match="train model=ldcsr"):
        method.restore(replace(batch, hr=None), SamplerConfig(), noise())


def test_the_consistency_function_is_the_identity_at_time_zero() -> None:
    skip, out = boundary_weights(torch.tensor([0.0, 0.5]))
    assert (float(skip[0]), float(out[0])) == (1.0, 0.0)
    assert 0 < float(skip[1]) < 1


def test_the_averaged_network_follows_the_trained_one() -> None:
    method = second_stage(CONSISTENT)
    with torch.no_grad():
        for parameter in method.unet.parameters():
            parameter += 1
    gap = [(a - b).abs().max().item() for a, b in zip(method.target.parameters(), method.unet.parameters(), strict=True)]
    method.after_step(Stage("train", ("restorer",)), 0)
    closer = [(a - b).abs().max().item() for a, b in zip(method.target.parameters(), method.unet.parameters(), strict=True)]
    assert max(gap) == pytest.approx(1.0)
    assert max(closer) == pytest.approx(2 / 11, abs=1e-5)
    losses_of(method, batch_of((16, 16), (8, 8)), noise()).total.backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())


def test_divergence_is_zero_of_the_standard_normal_and_positive_of_others() -> None:
    assert DiagonalGaussian.of_moments(torch.zeros(2, 8, 3, 3)).divergence().tolist() == [0, 0]
    assert bool((DiagonalGaussian.of_moments(torch.randn(2, 8, 3, 3)).divergence() > 0).all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition": replace(ENCODER, multipliers=(1,))}, "one size"),
        ({"first_stage": replace(AUTOENCODER, decoder=replace(DECODER, branches="image"))}, "no latent"),
        ({"distillation_weight": -1.0}, "0 or more"),
    ],
)
def test_options_that_fit_no_network_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SECOND, **changes)


def test_a_file_of_lcmsr_is_restored_by_its_average_and_says_what_it_predicts() -> None:
    method = second_stage(CONSISTENT)
    method.latent_scale.fill_(2.0)
    method.updates.fill_(7)
    published = export_weights("lcmsr", CONSISTENT, method.state_dict())
    trained = {key: value + 1 if key.startswith("model.diffusion_model.") else value for key, value in published.items()}
    _, imported = import_weights("lcmsr", {"state_dict": trained}, CONSISTENT)
    for name, value in method.unet.state_dict().items():
        assert torch.equal(imported[f"unet.{name}"], value), name
        assert torch.equal(imported[f"target.{name}"], value), name
    assert int(imported["updates"]) == 7
    clean = {"state_dict": trained, "hyper_parameters": {"parameterization": "x0"}}
    assert import_weights("lcmsr", clean)[0].prediction == "clean"
    with pytest.raises(ValueError, match=r"the config says noise; for this file add model\.prediction=clean"):
        import_weights("lcmsr", clean, CONSISTENT)
    assert method.parameter_count() == sum(
        value.numel() for name, value in method.named_parameters() if name.startswith(("unet.", "condition.", "first_stage."))
    )
