"""DASR's idea: a code of the degradation, learned by contrast, and networks whose convolutions carry kernels made from it.

Two crops of one image share a degradation, all others differ: momentum contrast (He et al., CVPR 2020) in DASR, BlindSRSNF and DiffBSR,
NT-Xent (Chen et al., ICML 2020) in DRSR. Then the U-Nets on SR3's skeleton told the code; DiffSR_UNet is DiffBSR's noise predictor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.precision import in_float32
from rsdiff.networks.diffusion_unet import DiffusionUNet, SkeletonConfig, UNetSizes
from rsdiff.networks.layers import ChannelGate, PixelGate, TimeEmbedding, Upsample, filter_each, orthogonal_


class MomentumContrast(nn.Module):
    """A query encoder, its slowly following copy, and a queue of earlier keys as negatives.

    encoder  maps an image batch to (code, projection), both (B, D), D being `options.code_channels`

    Queue, pointer and key encoder are part of the state dict, so that a resumed run continues with them. All micro-batches of an
    optimiser step, on all processes, meet the same queue and the same key encoder, which moves once per step; their keys enter the queue
    together when the step ends (`after_step`). The published code does not shuffle batch-norm statistics either.
    """

    couples_images: ClassVar[str] = (
        "its contrastive loss compares the images of a batch with those of earlier ones, by features normalised over the batch"
    )

    queue: Tensor
    queue_position: Tensor

    def __init__(self, options: ContrastConfig, encoder: nn.Module) -> None:
        super().__init__()
        self.momentum = options.momentum
        self.temperature = options.temperature
        self.query_encoder = encoder
        self.key_encoder = copy.deepcopy(encoder)
        for parameter in self.key_encoder.parameters():
            parameter.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(options.code_channels, options.queue_size), dim=0))
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
        self._keys.append(keys)
        return code, _logits(queries, keys, self.queue.clone()) / self.temperature

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


# Similarities are divided by 0.1 or less, and the errors of 16 bits with them.
@in_float32
def _logits(queries: Tensor, keys: Tensor, others: Tensor) -> Tensor:
    """Return cosine similarities (B, 1 + K) of unit vectors (B, D) with their own keys (B, D) and with others (D, K)."""
    return torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ others], dim=1)


@in_float32
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

    def __init__(self, in_channels: int, width: int) -> None:
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

    read_with: ClassVar[ReadWith] = dict.fromkeys(("queue_size", "momentum", "temperature"), ("weight", (ABOVE_0,)))

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
        if not 0 <= self.momentum <= 1 or self.temperature <= 0 or self.weight < 0:
            raise UserError(
                f"momentum={self.momentum}, temperature={self.temperature}, weight={self.weight}: choose 0 to 1, a positive temperature, "
                "and a weight of 0 or more."
            )

    @property
    def code_channels(self) -> int:
        """Length of the degradation code."""
        return 4 * self.width

    def build(self, lr_bands: int) -> MomentumContrast:
        """Return the encoder with its key copy and queue."""
        return MomentumContrast(self, DegradationEncoder(lr_bands, self.width))


SLOPE = 0.1
COMPRESSED = 64  # width of the code inside the blocks, as in DASR


class DegradationAwareConv(nn.Module):
    """A 3x3 convolution plus a depthwise one whose kernels are predicted for every image (DASR's, without its channel branch)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(COMPRESSED, COMPRESSED, bias=False),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(COMPRESSED, 9 * channels, bias=False),
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map x (B, C, H, W) to its shape; code is (B, 64)."""
        kernels = self.kernel(code).view(len(x), -1, 3, 3)
        return F.leaky_relu(filter_each(x, kernels), SLOPE) + self.conv(x)


class DegradationAwareBlock(nn.Module):
    """SR3's residual block with a degradation-aware second convolution.

    h = conv(swish(norm1(x))) + time(embedding);  h = aware(dropout(swish(norm2(h))), code);  returns attention(h + shortcut(x)).

    attention         what follows the block; nn.Identity() for none
    normalise_second  apply norm2, Swish and dropout (DiffBSR). BlindSRSNF's code computes them and throws the result away: its released
                      weights need False, and norm2 then exists only to carry them (no gradient, not applied)
    keep_unused       own the 1x1 convolution that DiffBSR's checkpoints list in every block but its code never applies
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        norm_groups: int,
        dropout: float,
        attention: nn.Module,
        normalise_second: bool,
        keep_unused: bool = False,
    ) -> None:
        super().__init__()
        self.normalise_second = normalise_second
        self.norm1 = nn.GroupNorm(norm_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(embedding_width, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels).requires_grad_(normalise_second)
        self.dropout = nn.Dropout(dropout)
        self.aware = DegradationAwareConv(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention = attention
        self.unused = nn.Conv2d(out_channels, out_channels, 1).requires_grad_(False) if keep_unused else None

    def forward(self, x: Tensor, embedding: Tensor, code: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, out, H, W); embedding is (B, embedding_width), code (B, 64)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(embedding)[:, :, None, None]
        if self.normalise_second:
            h = self.dropout(F.silu(self.norm2(h)))
        return self.attention(self.aware(h, code) + self.shortcut(x))


class CodeCompression(nn.Sequential):
    """Degradation code (B, code_channels) -> (B, 64), shared by all blocks of a network."""

    def __init__(self, code_channels: int) -> None:
        super().__init__(nn.Linear(code_channels, COMPRESSED, bias=False), nn.LeakyReLU(SLOPE, inplace=True))


class DegradationAwareUNet(DiffusionUNet):
    """SR3's skeleton with degradation-aware blocks, told the level sqrt(alpha_bar) and a degradation code.

    make_attention    makes what follows the block in the middle and the blocks of `attention_levels`, for so many channels
    code_channels     length of the degradation code
    normalise_second  see DegradationAwareBlock, as for `keep_unused`; other arguments as in DiffusionUNet
    Subclasses draw the initial weights when all their layers are there.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dropout: float,
        code_channels: int,
        make_attention: Callable[[int], nn.Module],
        normalise_second: bool,
        keep_unused: bool = False,
        attention_levels: Sequence[int] = (),
        make_upsample: Callable[[int], nn.Module] = Upsample,
        crop_to_skips: bool = False,
        **sizes: Unpack[UNetSizes],
    ) -> None:
        width = sizes["width"]

        def make_block(in_channels: int, out_channels: int, *, attention: bool) -> nn.Module:
            return DegradationAwareBlock(
                in_channels,
                out_channels,
                width,
                norm_groups=sizes["norm_groups"],
                dropout=dropout,
                attention=make_attention(out_channels) if attention else nn.Identity(),
                normalise_second=normalise_second,
                keep_unused=keep_unused,
            )

        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            attention_down=frozenset(attention_levels),
            attention_up=frozenset(attention_levels),
            make_block=make_block,
            make_upsample=make_upsample,
            crop_to_skips=crop_to_skips,
            **sizes,
        )
        self.level = TimeEmbedding(width)
        self.compress = CodeCompression(code_channels)

    def denoise(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W), level (B,) and code (B, code_channels)."""
        return self.run(x, self.level(level), self.compress(code))


class BicubicUpsample(nn.Module):
    """Bicubic enlargement by 2 (coefficient -0.75, half-pixel centres), then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False))


class DiffSRUNet(DegradationAwareUNet):
    """Predicts the noise in a noisy residual, told the level sqrt(alpha_bar) and the degradation code.

    forward(x (B, 2 bands, H, W), level (B,), code (B, code_channels)) -> (B, bands, H, W); x is concat(condition image, x_t).
    Instead of self-attention the middle has a channel and a pixel gate, without a residual connection; other levels have none.
    The deepest level needs at least 16 channels.
    Initialisation: orthogonal.
    """

    def __init__(self, options: DiffSRUNetConfig, bands: int, code_channels: int) -> None:
        super().__init__(
            in_channels=2 * bands,
            out_channels=bands,
            code_channels=code_channels,
            make_attention=lambda channels: nn.Sequential(ChannelGate(channels), PixelGate()),
            normalise_second=True,
            keep_unused=options.keep_unused,
            make_upsample=BicubicUpsample,
            dropout=options.dropout,
            **options.sizes(),
        )
        orthogonal_(self)

    def forward(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        return self.denoise(x, level, code)


@config
class DiffSRUNetConfig(SkeletonConfig):
    """DiffBSR's noise predictor; the UC Merced recipe has dropout 0.2."""

    keep_unused: bool = False
    """Keep the convolutions that published checkpoints contain but never apply, so that an exported file equals theirs."""

    def __post_init__(self) -> None:
        SkeletonConfig.__post_init__(self)
        if self.width * self.multipliers[-1] < 16:
            raise UserError(f"the deepest level has {self.width * self.multipliers[-1]} channels; its gates need 16: raise width.")

    def build(self, bands: int, code_channels: int) -> DiffSRUNet:
        """Return the network with fresh weights."""
        return DiffSRUNet(self, bands, code_channels)
