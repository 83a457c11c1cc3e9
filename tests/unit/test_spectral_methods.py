"""SCDM's cascade and import, the regression baselines, and laws of the spectral metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion import SamplerConfig, ScheduleConfig, SeededNoise
from rsdiff.diffusion.regression_base import RegressionConfig
from rsdiff.inference.images import restore
from rsdiff.methods.base import Method, Problem, Stage
from rsdiff.methods.regression import SpectralCNNConfig
from rsdiff.methods.scdm import SCDM, ProgressiveClamp, SCDMConfig
from rsdiff.methods.spectral_linear import SpectralLinear, SpectralLinearConfig
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.spectral import cc, mpsnr, mrae, sam, spectral_angles, uiqi
from rsdiff.networks.running_regression import RunningRegression
from rsdiff.weights.importer import export_weights, import_weights
from tests.method_losses import losses_of

TINY = SCDMConfig(
    width=8, multipliers=(1, 2), blocks=1, time_width=16, norm_groups=8, dropout=0.0, attention_levels=(1,), guidance_weights=(0.5, 0)
)

PROBLEM = Problem(scale=1, bands=12, lr_bands=3)
FEW = SamplerConfig(solver="ddpm", variance="beta", steps=4)


def cascade() -> SCDM:
    torch.manual_seed(0)
    return TINY.build(PROBLEM).eval()


def batch_of(hr: torch.Tensor, lr: torch.Tensor) -> Batch:
    size = (int(hr.shape[-2]), int(hr.shape[-1]))
    return Batch(metas=[SampleMeta(str(i)) for i in range(len(hr))], size=size, lr_size=size, hr=hr, lr=lr)


def noise_of(*names: str) -> SeededNoise:
    return SeededNoise([(0, name) for name in names])


def test_an_image_is_restored_alike_alone_and_in_a_batch_of_any_size_of_image() -> None:
    mild = ScheduleConfig(steps=10, start=1e-3, end=1e-2)  # weights that were not trained amplify rounding at high noise
    method, lr = replace(TINY, schedule=mild, rounded_levels=None).build(PROBLEM).eval(), torch.rand(2, 3, 9, 7)
    both = restore(method, batch_of(torch.rand(2, 12, 9, 7), lr), FEW, noise_of("a", "b"))
    alone = restore(method, batch_of(torch.rand(1, 12, 9, 7), lr[1:]), FEW, noise_of("b"))
    assert both.shape == (2, 12, 9, 7)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_every_stage_learns_from_its_own_group_only() -> None:
    method = cascade()
    hr = torch.rand(2, 12, 8, 8)
    batch = batch_of(hr, hr[:, :3])
    assert list(method.groups()) == ["stage_1", "stage_2"]
    losses_of(method, batch, noise_of("a", "b"), "stage_2").total.backward()
    assert all(parameter.grad is None for parameter in method.networks[0].parameters())
    assert all(parameter.grad is not None for parameter in method.networks[1].parameters())


def test_what_is_handed_on_is_rounded_as_a_file_would_be() -> None:
    method = TINY.build(PROBLEM)
    handed = method.handed_on(torch.tensor([-3.0, 0.3, 3.0])).double() * 65535
    np.testing.assert_allclose(handed, [0, np.floor((0.3 * 0.5 + 0.5) * 65535 + 0.5), 65535], atol=0.02)


def test_progressive_clamp_leaves_the_last_step_alone() -> None:
    schedule = TINY.schedule.build()
    clamp = ProgressiveClamp(schedule, 0.9, 1000)
    sigma = float(schedule.sigmas[0])
    y = 5 * torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(clamp(y, sigma), y)
    assert float(clamp(y * float(schedule.sigmas[-1]), float(schedule.sigmas[-1])).abs().max()) < float(
        (y * float(schedule.sigmas[-1])).abs().max()
    )


def test_a_cascade_survives_export_and_import_with_and_without_its_config() -> None:
    method = cascade()
    published = export_weights("scdm", TINY, method.state_dict())
    assert "stage_2.ema_model.out_rgb.weight" in published
    for config in (TINY, None):
        made, state = import_weights("scdm", published, config)
        assert replace(made, norm_groups=8, dropout=0.0, guidance_weights=(0.5, 0)) == TINY
        for key, value in method.state_dict().items():
            assert torch.equal(state[key], value)
    with pytest.raises(ValueError, match="1 of 2 stages"):
        import_weights("scdm", {k.removeprefix("stage_1."): v for k, v in published.items() if k.startswith("stage_1.")}, TINY)


def test_a_folder_with_a_file_per_stage_is_imported_as_a_cascade(tmp_path: Path) -> None:
    method = cascade()
    published = export_weights("scdm", TINY, method.state_dict())
    for stage in (1, 2):
        mine = {key.removeprefix(f"stage_{stage}."): value.clone() for key, value in published.items() if key.startswith(f"stage_{stage}.")}
        torch.save(mine, tmp_path / f"{stage}-model.pth")
    _, state = import_weights("scdm", tmp_path, TINY)
    assert all(torch.equal(state[key], value) for key, value in method.state_dict().items())


@pytest.mark.parametrize("config", [TINY, SpectralLinearConfig(), SpectralCNNConfig()])
def test_methods_that_add_bands_refuse_to_enlarge(config: SCDMConfig) -> None:
    assert config.usual_scale == 1
    assert "scale=1" in str(config.refuse(Problem(scale=4, bands=12, lr_bands=3)))
    assert config.refuse(PROBLEM) is None


def test_band_plans_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="no band plan"):
        replace(TINY, strides=(4, 2))
    with pytest.raises(ValueError, match="one value per stage"):
        replace(TINY, strides=(16, 4, 1))


def test_linear_regression_recovers_a_linear_world_from_one_step() -> None:
    generator = torch.Generator().manual_seed(0)
    lr, mixing = torch.rand(4, 3, 8, 8, generator=generator), torch.rand(3, 10, generator=generator)
    hr = torch.einsum("nchw,cm->nmhw", lr, mixing) + 0.1
    method: Method = SpectralLinearConfig().build(Problem(scale=1, bands=10, lr_bands=3))
    assert isinstance(method, SpectralLinear)
    losses_of(method.train(), batch_of(hr, lr), noise_of(*"abcd")).total.backward()
    method.after_step(Stage("train", ("restorer",)), 0)
    torch.testing.assert_close(method.restore(batch_of(hr, lr), FEW, noise_of(*"abcd")), hr, rtol=0, atol=1e-4)


def test_linear_regression_ignores_invalid_pixels_and_how_the_pixels_come() -> None:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(2, 3, 600, 4, generator=generator)
    hr = torch.stack([lr[:, 0] * lr[:, 1], lr.sum(1)], dim=1)
    valid = (torch.rand(2, 1, 600, 4, generator=generator) > 0.3).float()
    whole, parts = RunningRegression(3, 2, 1e-8), RunningRegression(3, 2, 1e-8)
    whole.accumulate(lr, torch.where(valid > 0, hr, 9.0), valid)
    for index in (1, 0):
        kept = valid[index, 0] > 0
        parts.accumulate(lr[index : index + 1, :, kept].unsqueeze(-2), hr[index : index + 1, :, kept].unsqueeze(-2))
    for regression in (whole, parts):
        regression.solve()
    torch.testing.assert_close(whole.solution, parts.solution)


@pytest.mark.parametrize("predicts", ["noise", "clean"])
def test_the_denoiser_of_a_stage_returns_the_estimate_that_its_objective_is_about(predicts: Literal["noise", "clean"]) -> None:
    torch.manual_seed(0)
    method = replace(TINY, prediction=predicts, guidance_weights=(0, 0)).build(PROBLEM).eval()
    target, condition, drawn = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    t = torch.tensor([3, 700])
    found = method.objective(0, target, condition, t, drawn)
    levels = method.schedule.sigmas[t]
    y = target.double() + levels.reshape(-1, 1, 1, 1) * drawn
    torch.testing.assert_close(method.denoiser(0, condition)(y, levels).float(), found.clean, rtol=1e-3, atol=1e-3)
    wanted = drawn if predicts == "noise" else target
    torch.testing.assert_close(method.networks[0](found.x, condition, t).sub(wanted).abs().mean(), found.error)


def test_a_cascade_of_residuals_starts_at_the_regression_of_its_stages() -> None:
    generator = torch.Generator().manual_seed(0)
    lr, mixing = torch.rand(4, 3, 8, 8, generator=generator), torch.rand(3, 12, generator=generator) / 3
    hr = torch.einsum("nchw,cm->nmhw", lr, mixing)
    torch.manual_seed(0)
    method = replace(TINY, base=RegressionConfig(ridge=1e-9), prediction="clean", guidance_weights=(0, 0), clamp_shares=(1, 1)).build(
        PROBLEM
    )
    for group in method.train().groups():
        losses_of(method, batch_of(hr, lr), noise_of(*"abcd"), group)
    method.after_step(method.stages()[-1], 0)
    with torch.no_grad():
        for network in method.networks:
            for parameter in network.parameters():
                parameter.zero_()
    found = method.eval().restore(batch_of(hr, lr), SamplerConfig(solver="ddim", steps=3), noise_of(*"abcd"))
    torch.testing.assert_close(found, hr, rtol=0, atol=1e-3)


def test_spectral_angles_ignore_brightness_and_the_order_of_bands() -> None:
    hr, sr = torch.rand(5, 9, 9), torch.rand(5, 9, 9)
    assert sam(1.7 * hr, hr) == pytest.approx(0, abs=1e-5)
    assert sam(0.5 * sr, hr) == pytest.approx(sam(sr, hr))
    assert sam(sr.flip(0), hr.flip(0)) == pytest.approx(sam(sr, hr))


def test_pixels_without_a_spectrum_are_left_out_or_count_as_a_right_angle() -> None:
    hr = torch.rand(4, 3, 3) + 0.1
    sr = hr.clone()
    sr[:, 0, 0] = 0
    assert bool(spectral_angles(sr, hr)[0, 0].isnan())
    assert sam(sr, hr) == pytest.approx(0, abs=1e-5)
    assert sam(sr, hr, zero="half_pi") == pytest.approx(10, abs=1e-5)


def test_invalid_pixels_never_count() -> None:
    hr, sr = torch.rand(4, 20, 20) + 0.1, torch.rand(4, 20, 20) + 0.1
    valid = torch.ones(1, 20, 20, dtype=torch.bool)
    valid[:, :, 12:] = False
    broken = sr.clone()
    broken[:, :, 12:] = float("nan")
    for score in (sam, mrae, cc):
        assert score(broken, hr, valid) == pytest.approx(score(sr[..., :12], hr[..., :12]))
    assert uiqi(broken, hr, valid=valid) == pytest.approx(uiqi(sr[..., :12], hr[..., :12]))


def test_the_mean_of_band_psnrs_is_at_least_the_pooled_psnr() -> None:
    hr = torch.rand(6, 16, 16)
    sr = hr + torch.linspace(0.01, 0.2, 6)[:, None, None] * torch.randn(6, 16, 16)
    assert mpsnr(sr, hr, 1.0) >= psnr(sr, hr, 1.0)


def test_quality_index_of_flat_blocks_is_that_of_their_brightness() -> None:
    flat = torch.full((1, 10, 10), 0.4)
    assert uiqi(flat, flat) == pytest.approx(1)
    assert uiqi(0 * flat, 0 * flat) == pytest.approx(1)
    assert uiqi(0.5 * flat, flat) == pytest.approx(0.8)
