"""RelayDiffusion's blurring diffusion: x = B_sigma x0 + sigma n, where B damps the patch-wise cosine transform.

Every frequency has its own signal scale, so that the process has no scalar (y, sigma) form and brings its own sampler.
It starts from an enlarged first stage at moderate noise. Source: RelayDiffusion (Teng et al., 2023), sections 3.1 and 3.2.

No method uses it: Ref-Diff, whose code descends from RelayDiffusion's, does not blur. It stands with the cases that hold its numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import in_float32
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import SILENT, Denoiser, Observers, edm_levels, evaluate, walk

LARGEST_WEIGHT = 1e5  # cap on EDM's loss weight at the lowest levels


def dct_matrix(size: int, like: Tensor) -> Tensor:
    """Return the orthonormal DCT-II matrix (frequency, position) in the dtype and on the device of `like`."""
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * index[:, None] * (index + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


@in_float32
def patch_dct(images: Tensor, patch: int, inverse: bool = False) -> Tensor:
    """Return the orthonormal DCT-II (or its inverse) of every patch x patch block of images (B, C, H, W), in place of the block.

    Raises UserError when H or W is not a multiple of `patch`.
    """
    H, W = images.shape[-2:]
    if H % patch or W % patch:
        raise UserError(f"an image of {H} x {W} was given to a DCT of {patch} x {patch} patches; pad it to multiples of {patch}.")
    matrix = dct_matrix(patch, images)
    if inverse:
        matrix = matrix.T
    blocks = images.unflatten(-2, (H // patch, patch)).unflatten(-1, (W // patch, patch))
    return torch.einsum("bcypxq,fp,gq->bcyfxg", blocks, matrix, matrix).reshape(images.shape)


def blur_coefficients(deviation: Tensor, patch: int, floor: float = 0.001) -> Tensor:
    """Return the factors (N, patch, patch) float32 of a Gaussian blur of `deviation` (N,) pixels on DCT coefficients, at least `floor`.

    Float32, as published: the sampler's result depends on the seventh digit where its estimate is undecided.
    """
    frequency = math.pi * torch.arange(patch, dtype=torch.float32, device=deviation.device) / patch
    energy = frequency[:, None] ** 2 + frequency**2
    strength = (deviation**2 / 2).to(torch.float32)
    return (-energy * strength[:, None, None]).exp() * (1 - floor) + floor


def patch_blur(images: Tensor, deviation: Tensor, patch: int, floor: float = 0.001) -> Tensor:
    """Return images (B, C, H, W), each block blurred by its image's `deviation` (B,) pixels."""
    return _damp(images, blur_coefficients(deviation, patch, floor), patch)


def _damp(images: Tensor, coefficients: Tensor, patch: int) -> Tensor:
    factors = coefficients.to(images).repeat(1, images.shape[-2] // patch, images.shape[-1] // patch)
    return patch_dct(patch_dct(images, patch) * factors[:, None], patch, inverse=True)


def block_noise(noise: Tensor, patch: int) -> Tensor:
    """Return noise (B, C, H, W) summed over its patch^2 cyclic shifts and divided by patch: smooth over blocks, unit variance."""
    for axis in (-2, -1):
        noise = torch.stack([noise.roll(shift, axis) for shift in range(patch)]).sum(0)
    return noise / patch


@dataclass(frozen=True)
class BlurLaw:
    """How much is blurred at which noise level.

    patch        side of the blocks, the enlargement of the first stage
    strongest    blur in pixels at tau = 1
    probability  share of EDM's log-normal levels that training covers; tau is the level's rank in that share
    floor        smallest factor of a frequency
    """

    patch: int
    strongest: float = 3.0
    probability: float = 0.93
    floor: float = 0.001

    def tau(self, sigma: Tensor) -> Tensor:
        """Return tau (N,) of the levels sigma (N,)."""
        return log_normal_share(sigma) / self.probability

    def coefficients(self, tau: Tensor) -> Tensor:
        """Return the factors (N, patch, patch) on the DCT of a block; the blur is strongest sin(pi tau / 2)^2 pixels."""
        return blur_coefficients(self.strongest * (math.pi / 2 * tau).sin() ** 2, self.patch, self.floor)

    def blur(self, images: Tensor, tau: Tensor) -> Tensor:
        """Return images blurred to the strength of tau (B,)."""
        return _damp(images, self.coefficients(tau), self.patch)

    def training_level(self, uniform: Tensor, lowest: float = 0.0075) -> tuple[Tensor, Tensor]:
        """Return (tau, sigma), each (B,), of uniform draws; sigma is at least about `lowest`."""
        least = float(log_normal_share(torch.tensor(lowest, dtype=torch.float64))) * self.probability
        tau = uniform.clamp(min=least)
        return tau, log_normal_level(self.probability * tau)


def relay_levels(steps: int, sigma_min: float = 0.008, sigma_max: float = 80.0, rho: float = 7.0, below: float = 0.9) -> Tensor:
    """Return those of `steps` EDM levels that lie below `below`, where the second stage takes over from the first."""
    grid = edm_levels(steps, sigma_min, sigma_max, rho)
    return grid[grid < below]


def relay_sampler(
    denoiser: Denoiser,
    levels: Tensor,
    image: Tensor,
    noise: NoiseSource,
    law: BlurLaw,
    *,
    noise_share: float = 0.2,
    block_share: float = 0.0,
    observers: Observers = SILENT,
) -> Tensor:
    """Second-stage stochastic Heun sampler of a blurring diffusion, from an enlarged image (B, C, H, W) to a sharp one.

    noise_share  share of a level's noise that is fresh after each step
    block_share  weight of block noise added to white noise; costs a second draw each time
    Draws: the start, then one per slope; the last step returns the clean estimate.
    """
    tau = law.tau(levels.clamp(min=1e-12)) * (levels > 0)
    factors = to_device(law.coefficients(tau), image.device).repeat(1, image.shape[-2] // law.patch, image.shape[-1] // law.patch)
    factor_of = dict(zip(levels.tolist(), factors[:, None, None], strict=True))
    kept = math.sqrt(1 - noise_share**2)

    def fresh() -> Tensor:
        white = noise.normal(image.shape, image.device, image.dtype)
        if block_share > 0:
            white = white + block_share * block_noise(noise.normal(image.shape, image.device), law.patch)
        return white

    def step(x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        clean = evaluate(denoiser, x, sigma)
        if sigma_next == 0:
            return clean, clean
        here, there, gamma = factor_of[sigma], factor_of[sigma_next], kept * sigma_next / sigma
        u = patch_dct(x, law.patch)
        slope = (u - patch_dct(clean, law.patch)) / sigma

        def move(slope: Tensor) -> Tensor:
            moved = (there + gamma - gamma * here) * u + sigma * (gamma * here - there) * slope
            return patch_dct(moved, law.patch, inverse=True) + noise_share * sigma_next * fresh()

        tried = move(slope)
        clean = evaluate(denoiser, tried, sigma_next)
        second = (patch_dct(tried, law.patch) - patch_dct(clean, law.patch)) / sigma_next
        return move((slope + second) / 2), clean

    start = image + float(levels[0]) * fresh()
    return walk(levels, start, step, observers)


def log_normal_share(sigma: Tensor, mean: float = -1.2, deviation: float = 1.2) -> Tensor:
    """Return the probability that EDM's log-normal level lies below sigma; `log_normal_level` is its inverse."""
    return torch.special.ndtr((sigma.log() - mean) / deviation)


def log_normal_level(share: Tensor, mean: float = -1.2, deviation: float = 1.2) -> Tensor:
    """Return the sigma below which EDM's log-normal level lies with probability `share`."""
    return (torch.special.ndtri(share) * deviation + mean).exp()
