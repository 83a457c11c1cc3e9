"""Kernel codes: a blur kernel as its coordinates in a basis of principal components (DAN, DCLS, BlindDiff).

A basis is (k * k, code length), rows in the row-major order of the kernel, columns orthonormal. The mean kernel is removed when a basis is
fitted but not when a kernel is encoded, and the signs of the columns are arbitrary: a checkpoint is only usable with the basis it was
trained with, so keep the basis with the checkpoint instead of fitting it again.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations.gaussian import GaussianDegradation, GaussianDegradationConfig, Setting


@config
class KernelBasisConfig:
    """The basis that turns blur kernels into codes: read from a file, or fitted to kernels drawn as in training."""

    located: ClassVar[frozenset[str]] = frozenset({"file"})

    file: str | None = None
    "published basis, a .pth file of one (k * k, code length) tensor; null fits one"
    kernel_size: int = 21
    "side of the kernels in pixels"
    code_length: int = 10
    "entries of a code"
    kernel: Literal["isotropic", "anisotropic"] = "isotropic"
    "kernels that a basis is fitted to; they should be those of the training degradation"
    width: Setting = (0.2, 4.0)
    "their standard deviation in HR pixels, along the first axis of anisotropic kernels"
    second_width: Setting = (0.2, 4.0)
    "anisotropic kernels: standard deviation in HR pixels along the second axis"
    angle: Setting = (-math.pi, math.pi)
    "anisotropic kernels: angle of the first axis in radians"
    disturbance: float = 0.0
    "kernel weights are multiplied by 1 + U(0, disturbance)"
    count: int = 30_000
    "kernels drawn"

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or not 1 <= self.code_length <= min(self.count, self.kernel_size**2):
            raise UserError(
                f"a code of {self.code_length} entries was asked of {self.count} kernels with {self.kernel_size**2} weights; "
                "give at most as many entries as kernels and as weights."
            )

    def build(self) -> Tensor:
        """Return the basis (k * k, code length), the same whenever it is fitted; raises UserError for a file of another size."""
        if self.file is not None:
            basis = read_basis(Path(self.file))
            if basis.shape != (self.kernel_size**2, self.code_length):
                raise UserError(
                    f"{self.file} is a basis of shape {tuple(basis.shape)} and the model needs {(self.kernel_size**2, self.code_length)}; "
                    "set kernel_size and code_length of the basis to the file's."
                )
            return basis
        options = {name: getattr(self, name) for name in ("kernel", "kernel_size", "width", "second_width", "angle", "disturbance")}
        degradation = GaussianDegradationConfig(**options).build()
        return random_kernel_basis(degradation, self.code_length, keyed_generator("kernel basis"), self.count)


def kernel_basis(kernels: Tensor, code_length: int) -> Tensor:
    """Return the `code_length` leading principal directions of kernels (N, k, k) as (k * k, code_length) float32.

    These are the left singular vectors of the centred, transposed kernel matrix; computed in float64 from its Gram matrix, which for the
    published 30,000 kernels of 21 x 21 is 68 times smaller than the matrix itself.
    """
    rows = kernels.flatten(1).to(torch.float64)
    if not 1 <= code_length <= min(rows.shape):
        raise UserError(
            f"a code of {code_length} entries was asked of {len(rows)} kernels with {rows.shape[1]} weights; choose 1 to {min(rows.shape)}."
        )
    centred = rows - rows.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    return directions.flip(1)[:, :code_length].to(torch.float32)


def random_kernel_basis(degradation: GaussianDegradation, code_length: int, generator: torch.Generator, count: int = 30_000) -> Tensor:
    """Return the basis of `count` kernels drawn as `degradation` draws them for training; (k * k, code_length) float32."""
    names = degradation.random_names()
    uniforms = torch.rand(count, len(names), generator=generator).tolist()
    parameters = [degradation.parameters(dict(zip(names, row, strict=True))) for row in uniforms]
    size = degradation.config.kernel_size
    fields = torch.rand(count, size, size, generator=generator) if degradation.config.disturbance > 0 else None
    kernels = degradation.kernels(parameters, fields)
    if kernels is None:
        raise UserError("a kernel basis needs blur kernels, and degradation.kernel=none has none; choose isotropic or anisotropic.")
    return kernel_basis(kernels, code_length)


def read_basis(path: Path) -> Tensor:
    """Read a published basis (`pca_matrix.pth` and its kin, a bare tensor) as (k * k, code length) float32; nothing in it is executed."""
    try:
        basis = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path.name} is no file of plain tensors, so it was not loaded; give a kernel basis such as pca_matrix.pth."
        ) from None
    if not isinstance(basis, Tensor) or basis.ndim != 2 or math.isqrt(len(basis)) ** 2 != len(basis):
        found = f"a tensor of shape {tuple(basis.shape)}" if isinstance(basis, Tensor) else f"a {type(basis).__name__}"
        raise UserError(
            f"{path.name} holds {found}; a kernel basis is a (k * k, code length) tensor such as (441, 10) for 21 x 21 kernels."
        )
    return basis.to(torch.float32)


def encode_kernels(kernels: Tensor, basis: Tensor, noise_level: Tensor | None = None) -> Tensor:
    """Return the codes (N, code length) of kernels (N, k, k): flattened row by row, times the basis, without removing the mean.

    noise_level  (N,), standard deviation of the LR noise in units of [0, 1]; if given, 10 * noise_level is appended to the code
    """
    if kernels.shape[-2] * kernels.shape[-1] != len(basis):
        side = math.isqrt(len(basis))
        raise UserError(
            f"the basis is for {side} x {side} kernels and the kernels are {tuple(kernels.shape[-2:])}; set kernel_size={side}."
        )
    codes = kernels.flatten(1) @ basis.to(kernels)
    if noise_level is None:
        return codes
    return torch.cat([codes, 10 * noise_level.to(codes)[:, None]], dim=1)
