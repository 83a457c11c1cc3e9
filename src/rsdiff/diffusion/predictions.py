"""What a network of a diffusion predicts, and what that says of the clean image: the one place that knows, for every method.

A variance-preserving state is x = a x0 + b n with a^2 + b^2 = 1; solvers see y = x / a and sigma = b / a. EDM's F, the fourth, is that of
its preconditioning (rsdiff.diffusion.preconditioning), because its coefficients depend on the data.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["noise", "clean", "velocity"]
"""The noise n (DDPM), the clean image x0, or the velocity a n - b x0 (Salimans and Ho, 2022)."""


def clean_of(prediction: Prediction, y: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """Return x0 (B, C, H, W) from a network's output; y is the state at sigma (B, 1, 1, 1)."""
    match prediction:
        case "noise":
            return y - sigma * output
        case "clean":
            return output
        case "velocity":
            total = 1 + sigma.square()
            return y / total - output * sigma / total.sqrt()


def right_output(prediction: Prediction, clean: Tensor, noise: Tensor, signal: Tensor, deviation: Tensor) -> Tensor:
    """Return what a network should have said of x = signal clean + deviation noise; signal and deviation are (B, 1, 1, 1)."""
    match prediction:
        case "noise":
            return noise
        case "clean":
            return clean
        case "velocity":
            return signal * noise - deviation * clean
