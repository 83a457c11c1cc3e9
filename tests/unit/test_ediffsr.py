"""EDiffSR: the mean-reverting process as an ordinary diffusion of residuals, its published steps, and the method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.mean_reverting import EulerDenoiser, MeanRevertingConfig, ReverseMeans
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, make_levels, sample
from rsdiff.methods.base import Problem
from rsdiff.methods.ediffsr import EDiffSR, EDiffSRConfig
from rsdiff.weights.importer import export_weights, import_weights
from tests.method_losses import losses_of

TINY = EDiffSRConfig(width=16, encoders=(1, 1), decoders=(1, 1), schedule=MeanRevertingConfig(steps=10, remainder=0.2))


def tiny(bands: int = 3, options: EDiffSRConfig = TINY) -> EDiffSR:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return options.build(Problem(2, bands, bands)).eval()


def batch(count: int, h: int = 7, w: int = 5, bands: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    hr, lr = (torch.rand(count, bands, f * h, f * w, generator=generator) for f in (2, 1))
    return Batch([SampleMeta(str(i)) for i in range(count)], (2 * h, 2 * w), (h, w), hr=hr, lr=lr)


def noise(count: int, first: int = 0) -> SeededNoise:
    return SeededNoise([("test", first + i) for i in range(count)])


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_the_process_ends_with_the_remainder_of_the_image(shape: str) -> None:
    config = MeanRevertingConfig(shape=shape, steps=20, remainder=0.01)  # type: ignore[arg-type]
    schedule = config.build()
    assert float(schedule.alphas_bar[-1].sqrt()) == pytest.approx(0.01)
    assert schedule.indices.tolist() == list(range(1, 21))


def test_the_published_drift_is_exact_to_first_order_only() -> None:
    """With every step cut in n, Euler's factor (1 + tau / n)^n of the state approaches the true one, e^tau."""
    coarse = torch.tensor([2.0, 0.5], dtype=torch.float64)
    drift = ReverseMeans.between(coarse[0], coarse[1], "ode").drift
    errors = []
    for pieces in (1, 10, 100):
        logarithms = torch.linspace(float(coarse[0].square().log1p()), float(coarse[1].square().log1p()), pieces + 1, dtype=torch.float64)
        levels = torch.expm1(logarithms).sqrt()
        product = ReverseMeans.between(levels[:-1], levels[1:], "ode").euler_state.prod()
        errors.append(float((product - drift.exp()).abs()))
    assert errors[0] > 6 * errors[1] > 48 * errors[2]


def test_the_posterior_of_the_first_level_is_the_clean_image() -> None:
    means = ReverseMeans.between(torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), "sde")
    assert float(means.posterior_state) == 0
    assert float(means.posterior_clean) == pytest.approx(1)


@pytest.mark.parametrize("solver", ["native", "ddim", "ddpm", "heun"])
def test_every_sampler_finds_a_residual_that_the_network_knows(solver: str) -> None:
    schedule, residual = MeanRevertingConfig(steps=100).build(), torch.randn(1, 3, 6, 6, dtype=torch.float64)

    def knows(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        level = torch.lerp(table[time.floor().long()], table[time.ceil().long()], time.frac())[:, None, None, None]
        return (state * (1 + level.square()).sqrt() - residual) / level

    table = torch.cat([schedule.sigmas[:1], schedule.sigmas])
    denoiser = EulerDenoiser(knows, schedule, rule="ode", last_noise=True, dtype=torch.float64)
    found = sample(SamplerConfig(solver=solver, steps=100), denoiser, residual.shape, noise(1), device="cpu")  # type: ignore[arg-type]
    torch.testing.assert_close(found, residual, rtol=0, atol=0.2 if solver == "native" else 1e-6)


def test_only_the_sde_draws_noise_and_its_last_draw_can_be_left_out() -> None:
    method, given = tiny(), batch(1)
    shape = (1, 3, 14, 10)
    draws = [torch.zeros(shape)] * 11
    for changes, count in (({}, 11), ({"native_last_noise": False}, 10), ({"native_rule": "ode"}, 1)):
        method.options = replace(TINY, **changes)  # type: ignore[arg-type]
        source = ReplayNoise(draws[:count])
        method.restore(given, SamplerConfig(solver="native", steps=10), source)
        with pytest.raises(ValueError, match="ran out"):
            source.normal(shape)


@pytest.mark.parametrize("sampler", [SamplerConfig(solver="native", steps=10), SamplerConfig(steps=4, clip=True)])
def test_an_image_is_restored_alike_alone_and_in_a_batch(sampler: SamplerConfig) -> None:
    method, whole = tiny(), batch(2)
    together = method.restore(whole, sampler, noise(2))
    assert together.shape == (2, 3, 14, 10)
    one = Batch(whole.metas[1:], whole.size, whole.lr_size, lr=whole.need("lr")[1:])
    torch.testing.assert_close(method.restore(one, sampler, noise(1, 1))[0], together[1], rtol=1e-4, atol=1e-5)


def test_clipped_estimates_stay_in_the_range_of_images() -> None:
    method = tiny()
    lr = torch.rand(1, 3, 6, 6)
    given = Batch([SampleMeta("a")], (12, 12), (6, 6), lr=lr)
    clipped = method.restore(given, SamplerConfig(steps=3, clip=True), noise(1))
    assert float(clipped.min()) >= -1e-5
    assert float(clipped.max()) <= 1 + 1e-5
    free = method.restore(given, SamplerConfig(steps=3), noise(1))
    assert float(free.min()) < -0.01 or float(free.max()) > 1.01


def test_published_steps_are_the_levels_of_training() -> None:
    levels = make_levels(SamplerConfig(solver="native", steps=10), tiny().denoiser(torch.zeros(1, 3, 4, 4)))
    torch.testing.assert_close(levels[:-1].flip(0), TINY.schedule.build().sigmas)


def test_every_weight_learns() -> None:
    method = tiny().train()
    for parameter in method.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # the residual weights start at 0
    torch.nn.init.ones_(method.network.entrance.gate.squeeze.bias)  # its only channel may be dead
    losses_of(method, batch(2), noise(2)).total.backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in method.network.parameters())


def test_the_published_loss_asks_for_the_drawn_noise_up_to_a_small_bias() -> None:
    method, given = tiny(options=replace(TINY, schedule=MeanRevertingConfig())), batch(3)
    hr, t, drawn = given.need("hr"), torch.tensor([1, 50, 100]), torch.randn(3, 3, 14, 10)
    step = method.step(hr, method.mean(given), t, drawn)
    levels = torch.cat([torch.zeros(1, dtype=torch.float64), method.schedule.sigmas])
    means = ReverseMeans.between(levels[t], levels[t - 1], "sde")
    factor, weight = (value[:, None, None, None] for value in (means.euler_state, means.euler_noise))
    asked = (factor * step.state.double() - step.right.double()) / weight
    assert float((asked - drawn).abs().mean()) < 0.03
    assert float((asked - drawn)[0].abs().max()) < 1e-3


def test_weights_survive_export_and_import_and_tell_the_network() -> None:
    method = tiny()
    published = export_weights("ediffsr", TINY, method.state_dict())
    assert published["encoders.0.0.norm1.g"].shape == (1, 16, 1, 1)
    made, state = import_weights("ediffsr", {f"module.{key}": value for key, value in published.items()})
    assert replace(made, schedule=TINY.schedule) == TINY
    assert all(torch.equal(state[key], value) for key, value in method.state_dict().items())


def test_what_it_cannot_do_is_refused() -> None:
    assert TINY.refuse(Problem(4, 5, 5)) is None
    assert "keeps the bands" in str(TINY.refuse(Problem(1, 12, 3)))
    with pytest.raises(ValueError, match="as many levels up as down"):
        replace(TINY, decoders=(1,))
    with pytest.raises(ValueError, match="remainder"):
        MeanRevertingConfig(remainder=1.0)
