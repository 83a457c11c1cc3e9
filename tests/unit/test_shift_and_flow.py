"""ResShift and rectified flow: their processes and steps are the published ones, and what they learn they restore."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsdiff.data.enlarging import enlarge_signed
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.denoisers import EdmDenoiser
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.flow import FlowConfig, FlowLevels, FlowPreconditioning
from rsdiff.methods.resshift import ResShiftConfig, ShiftConfig, ShiftDenoiser
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from tests.method_losses import losses_of

CLEAN, IMAGE = torch.rand(2, 3, 8, 8).double() * 2 - 1, torch.rand(2, 3, 8, 8).double() * 2 - 1
SMALL = DDPMUNetConfig(width=16, multipliers=(1, 2), blocks=1, norm_groups=8)
SHIFT = SamplerConfig(solver="native", steps=15, start="image_edm")
FLOW = SamplerConfig(solver="ddim", steps=10, start="edm")


def knows(x: Tensor, time: Tensor) -> Tensor:
    return CLEAN.to(x)


def test_the_shift_rises_from_the_lowest_noise_to_almost_the_whole_difference() -> None:
    etas = ShiftConfig().etas()
    assert len(etas) == 15
    assert float(etas[0].sqrt()) == pytest.approx(0.04 / 2)
    assert float(etas[-1].sqrt()) == pytest.approx(0.99)
    assert bool((etas.diff() > 0).all())
    middle = (0.02 ** (1 - 0.5**0.3)) * 0.99 ** (0.5**0.3)  # a third parameter, by the published formula
    assert float(etas[7].sqrt()) == pytest.approx(middle)


def test_a_step_of_the_shift_is_the_published_posterior() -> None:
    shift = ShiftConfig()
    denoiser, etas = ShiftDenoiser(knows, shift, IMAGE), shift.etas()
    eta, following, alpha = etas[9], etas[8], etas[9] - etas[8]
    x, drawn = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3, 8, 8).double()
    sigma, sigma_next = (float(shift.kappa * value.sqrt() / (1 - value)) for value in (eta, following))
    y, _ = denoiser.step((x - eta * IMAGE) / (1 - eta), sigma, sigma_next, ReplayNoise([drawn]))
    expected = following / eta * x + alpha / eta * CLEAN + shift.kappa * (following / eta * alpha).sqrt() * drawn
    torch.testing.assert_close((1 - following) * y + following * IMAGE, expected)


@pytest.mark.parametrize("steps", [15, 4])
def test_a_perfect_network_is_told_every_step_and_gives_the_image(steps: int) -> None:
    told = []

    def network(x: Tensor, time: Tensor) -> Tensor:
        told.append(int(time[0]))
        assert x.abs().max() < 3
        return CLEAN.to(x)

    denoiser = ShiftDenoiser(network, ShiftConfig(steps=steps), IMAGE.float())
    config = SamplerConfig(solver="native", steps=steps, start="image_edm")
    noise = SeededNoise([("a",), ("b",)])
    made = sample(config, denoiser, tuple(IMAGE.shape), noise, device="cpu", image=IMAGE.float())  # type: ignore[arg-type]
    torch.testing.assert_close(made, CLEAN, atol=1e-6, rtol=0)
    assert told == list(range(steps))[::-1]


def test_a_flow_is_walked_in_equal_steps_of_time_along_the_velocity() -> None:
    noise = torch.randn(2, 3, 8, 8).double()
    times = []

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        times.append(float(time[0]))
        return torch.sin(3 * x)  # any field

    denoiser = EdmDenoiser(velocity, FlowPreconditioning(), dtype=torch.float64)
    made = sample(FLOW, denoiser, tuple(CLEAN.shape), ReplayNoise([noise]), device="cpu")  # type: ignore[arg-type]
    assert times == pytest.approx([round(999 - 99.9 * k) for k in range(10)])
    first = times[0] / 1000
    x, at = first * noise, first
    for following in [time / 1000 for time in times[1:]] + [0.0]:
        x, at = x + (following - at) * torch.sin(3 * x), following
    torch.testing.assert_close(made, x)


@pytest.mark.parametrize("levels", [FlowLevels(), FlowLevels(times="logit_normal")])
def test_the_weighted_error_of_the_image_is_that_of_the_velocity(levels: FlowLevels) -> None:
    sigma = levels.draw(SeededNoise([("a",), ("b",)]), 2, "cpu").double().reshape(-1, 1, 1, 1)
    noise, said = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3, 8, 8).double()
    t = sigma / (1 + sigma)
    denoiser = EdmDenoiser(lambda x, time: said, FlowPreconditioning(), dtype=torch.float64)
    error = denoiser(CLEAN + sigma * noise, sigma.flatten()) - CLEAN
    weighted = levels.weight(sigma) * error.square()
    torch.testing.assert_close(weighted, (said - (noise - CLEAN)).square(), rtol=1e-6, atol=1e-9)
    assert bool((t > 0).all() and (t < 1).all())


@pytest.mark.parametrize(
    ("config", "sampler"), [(ResShiftConfig(network=SMALL), SHIFT), (FlowConfig(network=SMALL), FLOW)], ids=["resshift", "flow"]
)
def test_what_is_learned_is_restored_at_any_size(config: MethodConfig, sampler: SamplerConfig) -> None:
    torch.manual_seed(0)
    method = config.build(Problem(2, 3, 3)).train()
    lr = torch.rand(8, 3, 4, 4).round()  # of squares of two greys, whose target is the negative
    hr = 0.25 + 0.5 * (1 - lr).repeat_interleave(2, -1).repeat_interleave(2, -2)
    batch = Batch([SampleMeta(str(i)) for i in range(8)], (8, 8), (4, 4), hr=hr, lr=lr)
    optimiser = torch.optim.Adam(method.parameters(), lr=2e-3)
    for step in range(120):
        optimiser.zero_grad()
        losses_of(method, batch, SeededNoise([(step, i) for i in range(8)])).total.backward()
        optimiser.step()
    restored = method.eval().restore(batch, sampler, SeededNoise([("r", i) for i in range(8)]))
    enlarged = (enlarge_signed(lr, (8, 8)) + 1) / 2
    assert float((restored - hr).square().mean()) < 0.1 * float((enlarged - hr).square().mean())
    odd = Batch([SampleMeta("odd")], (10, 6), (5, 3), lr=torch.rand(1, 3, 5, 3))
    assert method.restore(odd, sampler, SeededNoise([("o",)])).shape == (1, 3, 10, 6)
