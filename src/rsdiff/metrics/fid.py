"""Distances between two sets of features: Frechet (FID) and kernel (KID). Features (N, D), float64 inside.

FID is biased upward for N below some thousands: compare values of equal N and equal image sets only. KID is unbiased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsdiff.config import UserError


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)) with unbiased covariances of features (N1, D) and (N2, D).

    The trace of the root needs no covariance where there are few samples: it is the nuclear norm of (X1 - m1)(X2 - m2)^T over
    sqrt((N1 - 1)(N2 - 1)), exact for singular covariances too. Raises UserError for fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(f"FID needs two images or more in each set and was given {len(first)} and {len(second)}.")
    x, y = first.double(), second.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = (x - mean_x) / (len(x) - 1) ** 0.5, (y - mean_y) / (len(y) - 1) ** 0.5
    few = len(x) * len(y) <= x.shape[1] ** 2
    root = _root_trace_of_samples(x, y) if few else _root_trace_of_covariances(x.T @ x, y.T @ y)
    return float((mean_x - mean_y).square().sum() + x.square().sum() + y.square().sum() - 2 * root)


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Return the unbiased squared MMD of the first min(N1, N2) features of both, with the kernel (x.y / D + 1)^3.

    Deterministic: one subset of all samples, where libraries average random subsets.
    """
    count = min(len(first), len(second))
    if count < 2:
        raise UserError(f"KID needs two images or more in each set and was given {len(first)} and {len(second)}.")
    x, y = first[:count].double(), second[:count].double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = sum(
        (values.sum() - values.diagonal().sum() for values in (kernel(x, x), kernel(y, y))), start=torch.zeros((), dtype=torch.float64)
    )
    return float(within / (count * (count - 1)) - 2 * kernel(x, y).mean())


def _root_trace_of_samples(x: Tensor, y: Tensor) -> Tensor:
    root: Tensor = torch.linalg.svdvals(x @ y.T).sum()
    return root


def _root_trace_of_covariances(first: Tensor, second: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    trace: Tensor = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return trace
