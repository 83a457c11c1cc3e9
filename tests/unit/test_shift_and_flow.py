"""ResShift and rectified flow: their processes and steps are the published ones, and what they learn they restore."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsdiff.data.enlarging import enlarge_signed
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.edm import EdmDenoiser
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.flow import FlowConfig, FlowLevels, FlowPreconditioning
from rsdiff.methods.resshift import ResShiftConfig, ShiftConfig, ShiftDenoiser
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from tests.method_losses import losses_of

CLEAN, IMAGE = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64) * 2 - 1
SMALL = DDPMUNetConfig(width=16, multipliers=(1, 2), blocks=1, norm_groups=8)
SHIFT = SamplerConfig(solver="native", steps=15, start="image_edm")
FLOW = SamplerConfig(solver="ddim", steps=10, start="edm")


EARLY = (0.02, 0.11716508, 0.17630456, 0.23362892, 0.29157413, 0.35100928, 0.41235614, 0.47585773)
LATE = (0.54167168, 0.60990993, 0.68065802, 0.75398526, 0.82995066, 0.90860639, 0.99)
FIFTEEN = (*EARLY, *LATE)
FOUR = (0.1, 0.52009637, 0.76138199, 0.99)
SHIFTS = [(ShiftConfig(), FIFTEEN), (ShiftConfig(steps=4, lowest_noise=0.2), FOUR)]
"""Published settings, and the square roots of eta that the authors' own get_named_eta_schedule (3ce1d81) returned for them."""


@pytest.mark.parametrize(("shift", "roots"), SHIFTS, ids=["15", "4"])
def test_the_shift_grows_as_the_published_code_makes_it_grow(shift: ShiftConfig, roots: tuple[float, ...]) -> None:
    assert shift.etas().sqrt().tolist() == pytest.approx(roots, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"steps": 1}, "steps is 1; it must be at least 2"),
        ({"end": 1.0}, "end is 1; it must be below 1"),
        ({"kappa": 0.0}, "kappa is 0; it must be above 0"),
        ({"lowest_noise": 2.5}, "choose a smaller lowest_noise"),
    ],
)
def test_numbers_that_make_no_shift_are_refused(options: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ShiftConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shift", "roots"), SHIFTS, ids=["15", "4"])
def test_an_image_is_drawn_as_by_the_published_sampler(shift: ShiftConfig, roots: tuple[float, ...]) -> None:
    def network(x: Tensor, time: Tensor) -> Tensor:
        return 1.4 * torch.sin(3 * x[:, :3] + x[:, 3:]) + 0.02 * time.reshape(-1, 1, 1, 1)  # any, which leaves [-1, 1]

    draws = list(torch.randn(shift.steps, *IMAGE.shape, dtype=torch.float64))
    x, clipped = IMAGE + shift.kappa * roots[-1] * draws[0], 0
    for step in reversed(range(shift.steps)):  # in x_t, as published: input, clipped estimate, posterior
        eta, before = roots[step] ** 2, roots[step - 1] ** 2 if step else 0.0
        shown = x / (3 * shift.kappa * roots[step] + 1)
        clean = network(torch.cat([shown, IMAGE], dim=1), torch.full((2,), step))
        clipped += int((clean.abs() > 1).sum())
        x = before / eta * x + (eta - before) / eta * clean.clamp(-1, 1)
        if step:
            x = x + shift.kappa * (before / eta * (eta - before)) ** 0.5 * draws[shift.steps - step]
    assert clipped > 0
    config = SamplerConfig(solver="native", steps=shift.steps, start="image_edm")
    made = sample(config, ShiftDenoiser(network, shift, IMAGE), tuple(IMAGE.shape), ReplayNoise(draws), device="cpu", image=IMAGE)
    torch.testing.assert_close(made, x, rtol=0, atol=1e-5)  # the roots have eight digits


def test_the_loss_of_a_shift_is_the_plain_error_of_the_clean_image() -> None:
    method = ResShiftConfig(network=SMALL).build(Problem(2, 3, 3))
    network, clean = Recorded(), torch.rand(2, 3, 8, 8)
    method.network = network
    batch = Batch([SampleMeta(str(i)) for i in range(2)], (8, 8), (4, 4), hr=clean, lr=torch.rand(2, 3, 4, 4))
    steps, drawn = torch.tensor([9, 2]), torch.randn(2, 3, 8, 8)
    loss = losses_of(method, batch, Given(steps, drawn)).total
    eta, root = (torch.tensor([FIFTEEN[9] ** k, FIFTEEN[2] ** k]).reshape(-1, 1, 1, 1) for k in (2, 1))
    image = enlarge_signed(batch.need("lr"), (8, 8))
    x = 2 * clean - 1 + eta * (image - (2 * clean - 1)) + 2 * root * drawn
    torch.testing.assert_close(network.shown, torch.cat([x / (6 * root + 1), image], dim=1), rtol=1e-4, atol=1e-5)
    assert network.time.tolist() == steps.tolist()
    torch.testing.assert_close(loss, (0.3 - (2 * clean - 1)).square().mean())


class Recorded(torch.nn.Module):
    """Answers 0.3 everywhere and keeps what it was shown."""

    shown: Tensor
    time: Tensor

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.shown, self.time = x, time
        return torch.full_like(x[:, :3], 0.3)


class Given(SeededNoise):
    """Gives these steps and this noise."""

    def __init__(self, steps: Tensor, drawn: Tensor) -> None:
        super().__init__([(0,), (1,)])
        self.steps, self.drawn = steps, drawn

    def integers(self, *arguments: object, **options: object) -> Tensor:
        return self.steps

    def normal(self, *arguments: object, **options: object) -> Tensor:
        return self.drawn


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
