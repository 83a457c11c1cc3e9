"""DANv2: blind super-resolution by alternating restoration and kernel estimation (Luo et al., arXiv 2105.06878).

Only the last of the unrolled loops is trained, as published: the loss looks at its image and kernel, and both are detached on their way
from loop to loop. Unlike the published code:
- the other loops run without recording gradients, which changes nothing but memory;
- restorer and estimator are one optimiser group, because both rates are 4e-4 in every recipe that states them (DAN's own files leave the
  estimator's out, with which their training fails).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.degradations.pca import KernelBasisConfig
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.danv2 import DANv2, DANv2NetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class DANv2Config(DANv2NetConfig, MethodConfig):
    """DANv2. The defaults are those of setting 1."""

    samples: ClassVar[bool] = False

    basis: KernelBasisConfig = KernelBasisConfig()
    """Side and codes of the kernels. Checkpoints hold the basis, which is made when training begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimator_width < 2 or self.estimator_width % 2 or self.basis.kernel_size % 2 == 0:
            raise UserError(
                f"estimator_width={self.estimator_width} must be even and basis.kernel_size={self.basis.kernel_size} odd; change them."
            )

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "kernel"})

    @property
    def target_kernel_size(self) -> int:
        return self.basis.kernel_size

    def refuse(self, problem: Problem) -> str | None:
        return problem.refuse_fraction("danv2")

    def network(self, problem: Problem) -> DANv2:
        """Return the network with fresh weights and an empty basis."""
        return DANv2(self, problem, torch.zeros(self.basis.kernel_size**2, self.basis.code_length))

    def build(self, problem: Problem) -> DANv2Method:
        return DANv2Method(self, problem)


class DANv2Method(Method):
    """See the module and `DANv2Config`."""

    def __init__(self, options: DANv2Config, problem: Problem) -> None:
        super().__init__()
        self.scale = int(problem.scale)
        self.basis = options.basis
        self.network = options.network(problem)

    def prepare_training(self) -> None:
        """Make the kernel basis, unless a checkpoint brought one."""
        if not bool(self.network.basis.any()):
            self.network.basis.copy_(self.basis.build())

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        true = batch.need("kernel")
        size = self.network.kernel_size
        if true.shape[-1] != size:
            raise UserError(
                f"the degradation's kernels have {true.shape[-1]} x {true.shape[-1]} taps and the model estimates {size} x {size}; "
                f"set degradation.kernel_size={size} or model.basis.kernel_size={true.shape[-1]}."
            )
        image, kernel = self.network(batch.need("lr"))
        terms = {"image": masked_l1(image, batch.need("hr"), batch.valid), "kernel": F.l1_loss(kernel, true)}
        return {"restorer": Losses(terms["image"] + terms["kernel"], {name: value.detach() for name, value in terms.items()})}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        lr = batch.need("lr")
        image: Tensor = self.network(lr)[0] if batch.code is None else self.network.restorer(lr, batch.code)
        return image

    @torch.no_grad()
    def degradation_code(self, batch: Batch) -> Tensor | None:
        """Return the kernel codes that the last loop restores with; None where it knows the delta kernel only."""
        return None if self.network.loops == 1 else self.network.unroll(batch.need("lr")).codes[-2]

    @torch.no_grad()
    def estimates(self, batch: Batch) -> Mapping[str, Tensor]:
        found = {"kernel": self.network(batch.need("lr"))[1]}
        return found if batch.kernel is None else {**found, "true_kernel": batch.kernel}
