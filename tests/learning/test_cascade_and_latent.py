"""SCDM's cascade and LDCSR's latents with perfect networks: what the tests of single diffusions do not reach."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from rsdiff.data.sample import Batch
from rsdiff.degradations.bands import BandsConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Problem
from rsdiff.methods.ldcsr import LatentDiffusion
from rsdiff.methods.scdm import SCDM
from rsdiff.networks.kl_autoencoder import DiagonalGaussian
from tests.learning.cases import DDPM_1000, all_terms, build, published_sampler
from tests.learning.exact import level_of_signal
from tests.learning.spreads import ancestral
from tests.learning.world import GaussianWorld

SIDE, BANDS, SEEN, STRIDE = 4, 8, (1, 5), 2
COUNT = 128


class ExactStage(nn.Module):
    """The noise in bands `made`, told the bands `given` in the networks' units and the index of 1000 levels."""

    def __init__(self, world: GaussianWorld, given: list[int], made: list[int]) -> None:
        super().__init__()
        pixels = world.side**2
        rows = [torch.arange(band * pixels, (band + 1) * pixels) for band in range(world.bands)]
        known, wanted = torch.cat([rows[band] for band in given]), torch.cat([rows[band] for band in made])
        covariance = 4 * world.covariance  # images are in [-1, 1] inside
        seen = covariance[known][:, known] + 1e-9 * torch.eye(len(known), dtype=torch.float64)
        self.gain = torch.linalg.solve(seen, covariance[known][:, wanted])
        left = covariance[wanted][:, wanted] - covariance[wanted][:, known] @ self.gain
        variances, self.axes = torch.linalg.eigh((left + left.T) / 2)
        self.variances = variances.clamp(min=1e-12)
        self.anchor = nn.Parameter(torch.zeros(()))
        self.levels: list[Tensor] = []

    def mean(self, condition: Tensor) -> Tensor:
        """Return the best estimate (B, n)."""
        return condition.double().flatten(1) @ self.gain

    def forward(self, x: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        signal = DDPM_1000[t].sqrt()
        sigma, mean = level_of_signal(signal)[:, None], self.mean(condition)
        self.levels.append(sigma[:, 0])
        y = x.double().flatten(1) / signal[:, None]
        kept = self.variances / (self.variances + sigma.square())
        clean = mean + (((y - mean) @ self.axes) * kept) @ self.axes.T
        return ((y - clean) / sigma).float().reshape(x.shape)


SIZES: dict[str, object] = {
    "strides": [STRIDE, 1],
    "centre": 0.5,
    "spread": 0.5,
    "width": 8,
    "norm_groups": 4,
    "multipliers": [1],
    "blocks": 1,
    "time_width": 8,
    "attention_levels": [],
}
"""Options of a small SCDM for eight bands."""


def spectral() -> tuple[GaussianWorld, SCDM, list[ExactStage]]:
    """Eight bands of which two are seen; SCDM makes every second one, then all, without guidance and clamping."""
    world = GaussianWorld(side=SIDE, scale=1, bands=BANDS, degradation=BandsConfig(bands=SEEN), noise=1e-4, correlation=0.8)
    sizes = {**SIZES, "guidance_weights": [0.0, 0.0], "clamp_shares": [1.0, 1.0], "empty_share": 0.0}
    method = build("scdm", sizes, Problem(1, BANDS, len(SEEN)))
    assert isinstance(method, SCDM)
    first, every = list(range(0, BANDS, STRIDE)), list(range(BANDS))
    stages = [ExactStage(world, [band - 1 for band in SEEN], first), ExactStage(world, first, every)]
    method.networks = nn.ModuleList(stages)
    return world, method.eval(), stages


def noise_of(count: int, step: int = 0) -> SeededNoise:
    return SeededNoise([(1, "learning", step, index) for index in range(count)], shared=(1, step))


def test_both_stages_of_scdm_draw_from_their_posteriors() -> None:
    world, method, stages = spectral()
    batch, sampler = world.batch(COUNT, seed=1), replace(published_sampler("scdm"), steps=250)
    chosen = DDPM_1000[[round(1000 - i * 4) - 1 for i in range(250)]].tolist()
    conditions = [batch.need("lr"), batch.need("hr")[:, ::STRIDE]]
    with torch.no_grad():
        for index, stage in enumerate(stages):
            made = method.sample_stage(index, method.normalise(conditions[index]), sampler, noise_of(COUNT))
            open_axes = stage.variances > 1e-4
            standard = ((made.double().flatten(1) - stage.mean(method.normalise(conditions[index]))) @ stage.axes) / stage.variances.sqrt()
            expected = ancestral(chosen, largest_variance=True)(stage.variances)
            found, wanted = standard[:, open_axes].square().mean().sqrt(), expected[open_axes].square().mean().sqrt()
            assert abs(found / wanted - 1) < 0.04, (index, float(found), float(wanted))


def test_scdm_hands_the_seen_bands_through_both_stages() -> None:
    world, method, _ = spectral()
    batch = world.batch(16, seed=2)
    with torch.no_grad():
        made = method.restore(replace(batch, hr=None), replace(published_sampler("scdm"), steps=100), noise_of(16))
    assert made.shape == (16, BANDS, SIDE, SIDE)
    seen = made[:, [band - 1 for band in SEEN]]
    assert float((seen - batch.need("lr")).square().mean().sqrt()) < 0.15 * float(batch.need("hr").std())


def test_guidance_of_scdm_goes_beyond_the_condition_by_its_weight() -> None:
    world, method, stages = spectral()
    weighted = build("scdm", {**SIZES, "guidance_weights": [2.5, 1.0]}, Problem(1, BANDS, len(SEEN)))
    assert isinstance(weighted, SCDM)
    weighted.networks = nn.ModuleList(stages)
    batch = world.batch(4, seed=3)
    condition = weighted.normalise(batch.need("lr"))
    y, sigma = torch.randn(4, BANDS // STRIDE, SIDE, SIDE, dtype=torch.float64), torch.tensor(float(level_of_signal(DDPM_1000[500].sqrt())))
    with torch.no_grad():
        found = weighted.denoiser(0, condition)(y, sigma.double())
        with_it, without = (method.denoiser(0, given)(y, sigma.double()) for given in (condition, torch.zeros_like(condition)))
    torch.testing.assert_close(found, 3.5 * with_it - 2.5 * without, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", [0, 1])
def test_loss_of_scdm_is_the_bayes_error_of_each_stage(stage: int) -> None:
    world, method, stages = spectral()
    losses: list[Tensor] = []
    with torch.no_grad():
        for step in range(24):
            batch = world.batch(32, seed=50 + step)
            found = method.losses(batch, method.stages()[-1], noise_of(32, step))
            losses.append(found[f"stage_{stage + 1}"].terms["noise"])
    network = stages[stage]
    sigma = torch.cat(network.levels)[:, None]
    left = network.variances / (1 + network.variances / sigma.square())
    expected = math.sqrt(2 / math.pi) * (left @ network.axes.square().T).sqrt().mean(1) / sigma[:, 0]
    assert abs(float(torch.stack(losses).mean() / expected.mean()) - 1) < 0.04


class LinearAutoencoder(nn.Module):
    """An autoencoder without loss whose latent holds cells of 2 x 2 pixels, three times as wide as the image."""

    cell = 2

    def encode(self, hr: Tensor, lr: Tensor) -> DiagonalGaussian:
        """Latent of a target in [-1, 1]."""
        mean = 3 * nn.functional.pixel_unshuffle(hr, 2)
        return DiagonalGaussian(mean, torch.full_like(mean, -30.0))

    def decode(self, latent: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """The inverse."""
        return nn.functional.pixel_shuffle(latent / 3, 2)


class Cells(nn.Module):
    """A condition: the enlarged LR in cells."""

    def forward(self, enlarged: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(enlarged, 2)


class Latents:
    """The quad levels of LDCSR in this world, whose latents are cells of images in [-1, 1], three times as wide, times the scale k."""

    def __init__(self, world: GaussianWorld, lr: Tensor, scale: Tensor) -> None:
        roots = torch.linspace(math.sqrt(0.1), math.sqrt(0.99), 4, dtype=torch.float64)
        self.bars = (1 - roots.square()).cumprod(0)
        self.world, self.posterior, self.scale = world, world.posterior(lr), scale

    @property
    def unit(self) -> Tensor:
        """What 1 of an image in [0, 1] is in scaled latents; the method measures the scale on its first batch."""
        return 6 * self.scale.double()

    def of(self, images: Tensor) -> Tensor:
        """Scaled latents of flattened images in [0, 1]."""
        return self.unit * nn.functional.pixel_unshuffle(self.world.shaped(images).double() - 0.5, 2)

    def images(self, latents: Tensor) -> Tensor:
        """The inverse."""
        return nn.functional.pixel_shuffle(latents.double() / self.unit, 2).flatten(1) + 0.5


class BestLatent(nn.Module):
    """The noise if the latent were its best estimate, which is what four steps trained end to end tend to."""

    def __init__(self, latents: Latents) -> None:
        super().__init__()
        self.latents = latents

    def clean(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.latents.of(self.latents.posterior.mean)

    def forward(self, known: Tensor, step: Tensor, scale: Tensor, height: Tensor) -> Tensor:
        bar = self.latents.bars[step].reshape(-1, 1, 1, 1)
        sigma = ((1 - bar) / bar).sqrt()
        y = known[:, : known.shape[1] // 2].double() / bar.sqrt()
        return ((y - self.clean(y, sigma)) / sigma).float()


class LikelyLatent(BestLatent):
    """The noise as it most likely is, which is what a training by levels tends to."""

    def clean(self, y: Tensor, sigma: Tensor) -> Tensor:
        latents = self.latents
        return latents.of(latents.posterior.denoise(latents.images(y), sigma.flatten() / latents.unit))


def latent_method(**options: object) -> LatentDiffusion:
    """LDCSR whose autoencoder loses nothing and whose condition is the enlarged LR; its network is to be replaced."""
    small = {"width": 32, "multipliers": [1, 1], "blocks": 1}
    decoder = {"width": 32, "multipliers": [1], "blocks": 1, "refinements": [1], "fuse_width": 32}
    unet = {"width": 32, "multipliers": [1], "attention_levels": []}
    method = build(
        "ldcsr", {"first_stage": {"encoder": small, "decoder": decoder}, "condition": small, "unet": unet, **options}, Problem(2, 1, 1)
    )
    assert isinstance(method, LatentDiffusion)
    parts: Any = method
    parts.first_stage, parts.condition = LinearAutoencoder(), Cells()
    return method


def trained_and_restored(method: LatentDiffusion, network: type[BestLatent], count: int) -> tuple[Latents, Batch, float, Tensor]:
    """Return the latents, a batch, the method's loss on it with a network that knows the world, and its restorations (B, n)."""
    world, parts = GaussianWorld(side=12), cast(Any, method)
    batch = world.batch(count, seed=1)
    method.start_stage(method.stages()[-1])
    latents = Latents(world, batch.need("lr"), method.latent_scale)
    parts.unet = network(latents)
    with torch.no_grad():
        terms = all_terms(method, batch, noise_of(count))
        made = method.restore(replace(batch, hr=None), published_sampler("ldcsr"), noise_of(count))
    return latents, batch, float(terms["diffusion"]), made.double().flatten(1)


def test_ldcsr_restores_the_best_estimate_and_its_loss_is_the_bayes_error() -> None:
    latents, batch, loss, made = trained_and_restored(latent_method(), BestLatent, 128)
    best = latents.posterior.mean
    assert float((made - best).abs().max()) < 1e-3, "restoration is not what the latent stands for"
    error = float((best - batch.need("hr").double().flatten(1)).square().mean())
    assert abs(loss / (float(latents.unit) ** 2 * error) - 1) < 0.01


def test_ldcsr_trained_by_levels_draws_from_the_posterior_and_its_loss_is_the_bayes_error() -> None:
    latents, _, loss, made = trained_and_restored(latent_method(trained_through="level"), LikelyLatent, 512)
    variances = latents.posterior.variances * latents.unit**2
    error = torch.stack([variances / (variances + (1 - bar) / bar) for bar in latents.bars]).mean()
    assert abs(loss / float(error) - 1) < 0.04
    is_open = variances > 1e-3
    standard = (((made - latents.posterior.mean) @ latents.posterior.axes) * latents.unit / variances.sqrt())[:, is_open]
    expected = ancestral(latents.bars.flip(0).tolist())(variances)[is_open]
    assert abs(float(standard.square().mean().sqrt() / expected.square().mean().sqrt()) - 1) < 0.04
