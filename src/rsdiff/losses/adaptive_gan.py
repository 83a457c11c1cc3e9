"""The adversarial loss of VQGAN and latent diffusion: hinge, weighed against the reconstruction by gradients at the last layer."""

from __future__ import annotations

import torch
from torch import Tensor

from rsdiff.losses.adversarial import answer_loss

HIGHEST_WEIGHT = 1e4


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss (), 0.5 (mean relu(1 - D(real)) + mean relu(1 + D(fake))), from its answers of any shape."""
    return 0.5 * (answer_loss("hinge", real, True) + answer_loss("hinge", fake, False))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """Return |grad reconstruction| / (|grad adversarial| + 1e-4), at most 1e4, a scalar without gradient.

    Both losses are scalars; gradients are with respect to the weights of the generator's last `layer` and their graphs are kept.
    Source: Esser et al., 2021 (VQGAN), eq. 7; CompVis/latent-diffusion, LPIPSWithDiscriminator.
    """
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, HIGHEST_WEIGHT).detach()
