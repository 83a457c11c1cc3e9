"""DCLS: blind super-resolution by deconvolving features with an estimated kernel (Luo et al., CVPR 2022).

The estimated kernel is the blur as it acts on the LR grid, so its truth is not the degradation's kernel but `rsdiff.losses.kernel_target`.
Unlike the published code:
- the clamp inside the network, whose gradient is 0 beyond [0, 1], can be left out of training (`clamp=false`);
- a validation below 20 dB does not restore earlier weights, and one below 26 dB does not keep a checkpoint from being written: both limits
  depend on the data set, and the trainer keeps the best checkpoint anyway.
Restorer and estimator are one optimiser group: both rates are 4e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from rsdiff.config import Ours, config
from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import ResizeBackend, resize
from rsdiff.losses.images import masked_l1
from rsdiff.losses.kernel_target import lr_kernel
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.dcls import DCLS, DCLSNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class DCLSConfig(DCLSNetConfig, MethodConfig):
    """DCLS. The defaults are those of setting 1."""

    samples: ClassVar[bool] = False

    clamp: Annotated[bool, Ours("training")] = True
    """Limit the image to [0, 1] inside the network in training too, as published."""
    sharp_resize: ResizeBackend = "matlab"
    """Back-end that makes the sharp LR image of the kernel's truth; that of the degradation."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "lr_clean"})

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands:
            return (
                f"model dcls needs input and target of the same bands and they have {problem.lr_bands} and {problem.bands}; "
                "choose a degradation that keeps the bands."
            )
        return problem.refuse_fraction("dcls")

    def network(self, problem: Problem) -> DCLS:
        """Return the network with fresh weights."""
        return DCLS(self, problem)

    def build(self, problem: Problem) -> DCLSMethod:
        return DCLSMethod(self, problem)


class DCLSMethod(Method):
    """See the module and `DCLSConfig`."""

    def __init__(self, options: DCLSConfig, problem: Problem) -> None:
        super().__init__()
        self.scale = int(problem.scale)
        self.kernel_size = options.kernel_size
        self.clamp = options.clamp
        self.sharp_resize: ResizeBackend = options.sharp_resize
        self.network = options.network(problem)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        image, kernel = self.network(batch.need("lr"))
        if self.clamp:
            image = image.clamp(0, 1)
        # The truth of a kernel is found in whole images; one with missing pixels has none.
        has_truth = None if batch.valid is None else batch.valid.amin((-3, -2, -1))[:, None, None]
        terms = {
            "image": masked_l1(image, batch.need("hr"), batch.valid),
            "kernel": masked_l1(kernel, self.true_kernel(batch), has_truth),
        }
        return {"restorer": Losses.summed(terms)}

    def true_kernel(self, batch: Batch) -> Tensor:
        """Return the blur as it acts on the LR grid, (B, k, k), made from hr and lr_clean."""
        with torch.no_grad(), torch.autocast(batch.need("hr").device.type, enabled=False):
            sharp = resize(batch.need("hr").float(), batch.lr_size, self.sharp_resize)
            return lr_kernel(batch.need("lr_clean").float(), sharp, self.kernel_size)

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        lr = batch.need("lr")
        image: Tensor = self.network.restorer(lr, self.network.estimator(lr) if batch.code is None else batch.code)
        return image

    @torch.no_grad()
    def degradation_code(self, batch: Batch) -> Tensor | None:
        return self.network.estimator(batch.need("lr"))

    @torch.no_grad()
    def estimates(self, batch: Batch) -> Mapping[str, Tensor]:
        found = {"kernel": self.network.estimator(batch.need("lr"))}
        if batch.hr is not None and batch.lr_clean is not None and min(batch.lr_size) >= self.kernel_size:
            found["true_kernel"] = self.true_kernel(batch)
        return found
