"""The degradation encoder of the blind methods and its contrasts: two crops of one image share a degradation, all others differ.

Momentum contrast (He et al., CVPR 2020) in DASR, BlindSRSNF and DiffBSR; NT-Xent (Chen et al., ICML 2020) in DRSR.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config


class MomentumContrast(nn.Module):
    """A query encoder, its slowly following copy, and a queue of earlier keys as negatives.

    encoder      maps an image batch to (code, projection), both (B, D)
    dimension    D of the projection
    queue_size   number of negatives K; a multiple of the batch size (8192 published)
    momentum     share of the old key encoder kept at each step (0.999 published)
    temperature  divisor of the logits (0.07 published)

    Queue, pointer and key encoder are part of the state dict, so that a resumed run continues with them. All micro-batches of an
    optimiser step, on all processes, meet the same queue and the same key encoder, which moves once per step; their keys enter the queue
    together when the step ends (`after_step`). The published code does not shuffle batch-norm statistics either.
    """

    couples_images: ClassVar[str] = (
        "its contrastive loss compares the images of a batch with those of earlier ones, by features normalised over the batch"
    )

    queue: Tensor
    queue_position: Tensor

    def __init__(
        self, encoder: nn.Module, dimension: int = 256, queue_size: int = 8192, momentum: float = 0.999, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.temperature = temperature
        self.query_encoder = encoder
        self.key_encoder = copy.deepcopy(encoder)
        for parameter in self.key_encoder.parameters():
            parameter.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dimension, queue_size), dim=0))
        self.register_buffer("queue_position", torch.zeros(1, dtype=torch.int64))
        self._keys: list[Tensor] = []

    def code(self, image: Tensor) -> Tensor:
        """Return the degradation code (B, D) of `image`: what restoration networks are conditioned on."""
        code: Tensor = self.query_encoder(image)[0]
        return code

    def contrast(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return (code of `query`, logits); the loss is `contrastive_loss(logits)`. The step's first call advances the key encoder.

        query, key  (B, c, h, w), two crops of the same images under the same degradations
        logits      (B, 1 + K), the positive first
        Raises UserError when the queue is not a multiple of the batch.
        """
        size, batch = self.queue.shape[1], len(query)
        if size % batch:
            raise UserError(f"a queue of {size} keys cannot be filled by batches of {batch}: choose a batch that divides the queue size.")
        code, projected = self.query_encoder(query)
        queries = F.normalize(projected, dim=1)
        with torch.no_grad():
            if not self._keys:
                self._follow()
            keys = F.normalize(self.key_encoder(key)[1], dim=1)
        positive = (queries * keys).sum(dim=1, keepdim=True)
        negative = queries @ self.queue.clone()
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        self._keys.append(keys)
        return code, logits

    def after_step(self) -> None:
        """Put the keys of the step's images, of all processes, into the queue."""
        keys = [part for micro in self._keys for part in gathered(micro)]
        self._keys = []
        if keys:
            self._enqueue(torch.cat(keys))

    def forget_step(self) -> None:
        """Leave the step unfinished, as if its losses had not been asked for."""
        self._keys = []

    def _follow(self) -> None:
        """Move the key encoder's parameters towards the query encoder's; batch-norm statistics are left to its own forward passes."""
        for slow, fast in zip(self.key_encoder.parameters(), self.query_encoder.parameters(), strict=True):
            slow.mul_(self.momentum).add_(fast.detach(), alpha=1 - self.momentum)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        size, batch = self.queue.shape[1], keys.shape[0]
        columns = (self.queue_position + torch.arange(batch, device=keys.device)) % size
        self.queue[:, columns] = keys.T.to(self.queue.dtype)
        self.queue_position.copy_((self.queue_position + batch) % size)


def gathered(values: Tensor) -> list[Tensor]:
    """Return the values of every process, which have one shape, in the order of the processes; without gradient."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [values]
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return parts


def contrastive_loss(logits: Tensor) -> Tensor:
    """Cross entropy of logits (B, 1 + K) whose first column is the positive pair, averaged over the batch."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent of projections (B, D) of two views: each of the 2 B vectors must pick its partner among all others.

    temperature  divisor of the cosine similarities (0.1 in DRSR)
    """
    count = len(first)
    vectors = F.normalize(torch.cat([first, second]), dim=1)
    itself = torch.eye(2 * count, dtype=torch.bool, device=vectors.device)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * count, device=vectors.device).roll(count)
    return F.cross_entropy(logits, partner)


class DegradationEncoder(nn.Module):
    """Six 3x3 convolutions with batch normalisation, pooled to a code; a two-layer projection of it serves the contrastive loss only.

    in_channels  bands of the LR image
    width        channels of the first two convolutions (64 published); the next pairs have 2 and 4 times as many, halving the image once
                 each, so that the code has 4 * width entries
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        plan = [(width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)]
        layers: list[nn.Module] = []
        for channels, stride in plan:
            layers += [nn.Conv2d(in_channels, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.LeakyReLU(0.1, inplace=True)]
            in_channels = channels
        self.code_channels = in_channels
        self.trunk = nn.Sequential(*layers)
        self.projection = nn.Sequential(
            nn.Linear(in_channels, in_channels), nn.LeakyReLU(0.1, inplace=True), nn.Linear(in_channels, in_channels)
        )

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return (code, projection), both (B, 4 * width), of lr (B, in_channels, h, w) in the range the method uses.

        Networks are conditioned on the code, never on the projection.
        """
        code = self.trunk(lr).mean(dim=(-2, -1))
        return code, self.projection(code)


@config
class ContrastConfig:
    """The degradation encoder and its momentum contrast."""

    width: int = 64
    """Channels of the encoder's first convolutions; the degradation code has four times as many."""
    queue_size: int = 8192
    """Earlier keys that serve as negatives; a multiple of the batch size."""
    momentum: float = 0.999
    """Share of the key encoder that each step keeps."""
    temperature: float = 0.07
    """Divisor of the logits."""
    weight: float = 0.05
    """Factor of the contrastive loss (published configurations without the key use 0.01)."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.queue_size < 1:
            raise UserError(f"width={self.width} and queue_size={self.queue_size} were given; both must be at least 1.")
        if not 0 <= self.momentum <= 1 or self.temperature <= 0:
            raise UserError(f"momentum={self.momentum}, temperature={self.temperature}: choose 0 to 1, and a positive temperature.")

    @property
    def code_channels(self) -> int:
        """Length of the degradation code."""
        return 4 * self.width

    def build(self, lr_bands: int) -> MomentumContrast:
        """Return the encoder with its key copy and queue."""
        encoder = DegradationEncoder(lr_bands, self.width)
        return MomentumContrast(encoder, self.code_channels, self.queue_size, self.momentum, self.temperature)
