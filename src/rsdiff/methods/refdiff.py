"""Ref-Diff: reference-based super-resolution at x8 and x16 with a change mask, in one network and one stage.

Inputs: the LR image, a co-registered HR image of another date (`ref`) and a mask of grey land-cover codes of what changed
(`change_mask`, code / 255). An EDM denoiser in pixel space whose decoder the three modulate.

Sources: Dong et al., CVPR 2024 (arXiv 2403.17460); dongrunmin/RefDiff, which is built on NVlabs/edm and THUDM/RelayDiffusion. Despite
that ancestry it has no blurring diffusion: loss and sampler are EDM's, the sampler from an unusual start (`conf/sampler/refdiff.yaml`).

Unlike the published code:
- HR, reference, mask and LR of a training crop show the same ground, and all four are flipped together. There the LR crop lies up to
  scale - 1 target pixels off (wherever the offset is no multiple of the scale), flips mirror HR only, and a cache fixes one crop per image.
- The loss of several micro-batches is averaged, not summed: with Adam only its eps and the limit on gradients notice.
- Any image size works: conditions are extended by reflection to a multiple of what the network halves; there only 256 x 256.
- A mask may be absent (`mask`), which the published code does not foresee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import BELOW_1, Either, ReadWith
from rsdiff.data.enlarging import Enlargement, enlarge_signed
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.diffusion.edm import EdmDenoiser, EdmLevels, EdmPreconditioning, denoising_error
from rsdiff.diffusion.noise import NoiseSource, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.losses.images import masked_mean
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_multiple
from rsdiff.networks.layers import reflect_to_multiple
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig


@config
class RefDiffConfig(MethodConfig):
    """Ref-Diff. The defaults are the published ones."""

    has_own_step: ClassVar[bool | None] = False
    read_with: ClassVar[ReadWith] = {
        "changed_code": ("mask", ("checked", "changed", "estimated")),
        "change_threshold": ("mask", ("checked", "estimated")),
        "mask_accuracy": ("mask", ("given", "checked")),
        "unchanged_code": Either(
            (("mask", ("checked", "unchanged", "estimated")), ("changed_reference", ("hidden",)), ("mask_accuracy", (BELOW_1,)))
        ),
    }

    network: RefDiffUNetConfig = RefDiffUNetConfig()
    """The U-Net."""
    levels: EdmLevels = EdmLevels()
    """Noise levels of training."""
    train_enlargement: Annotated[Enlargement, Ours("training")] = "bilinear"
    """How the LR is brought to target size in training."""
    train_eight_bit: Annotated[bool, Ours("training")] = True
    """Truncate the enlarged LR to 8 bits in training, as the published loader does."""
    enlargement: Annotated[Enlargement, Ours("sampling")] = "nearest"
    """How the LR is brought to target size in restoration; the published code differs from its training here."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """Subtracted from the target before it is diffused, and added back (ours): with the enlarged LR an untrained model gives that. Set
    levels.sigma_data to the deviation of the difference."""
    loss_divisor: Annotated[float | None, Ours("training")] = 256.0
    """The squared errors of a step's images are summed and divided by it (published: 256 whatever the batch); None takes their mean."""
    wrong_reference: Annotated[float, Ours("training")] = 0.0
    """Probability that a training image gets the reference of another image of its batch, which teaches the model to check the reference
    against the LR image (ours; published 0)."""
    mask: Annotated[Literal["given", "checked", "unchanged", "changed", "estimated"], Ours("sampling")] = "given"
    """The change mask: the data's; the data's, and changed too where LR and reference disagree (ours: against a wrong, cloudy or shifted
    reference); nothing changed (trust the reference everywhere); everything changed (trust it nowhere); or estimated from LR and reference.
    The last three do without the data's mask."""
    mask_accuracy: Annotated[float, Ours("sampling")] = 1.0
    """Share of pixels on which the data's mask stays right in restorations; the others, in patches that depend on the image's name alone,
    are called changed where they are not and the other way round. Change detection reaches 0.6 to 0.8 in practice (the paper)."""
    changed_reference: Annotated[Literal["shown", "hidden"], Ours("sampling")] = "shown"
    """What the network sees where the mask says changed: the reference, as published, or the enlarged LR in its place (ours: nothing then
    leaks from ground that is known to differ)."""
    mask_codes: Annotated[tuple[int, ...], Ours("weights")] = ()
    """Grey codes (0 to 255) of the classes: each becomes a mask channel of 0 and 1, without an order among classes. Empty is as published:
    one channel, code / 255."""
    unchanged_code: float = 0.0
    """Mask value of unchanged ground, where a mask is made or looked into; SECOND and CNAM-CD list it in CLASS_Table.txt (code / 255)."""
    changed_code: float = 1.0
    """Mask value of changed ground of unknown class, for masks that the data do not give."""
    change_threshold: float = 0.05
    """Difference of LR and reference, in units of [0, 1], beyond which mask=estimated and mask=checked call a pixel changed. On generated
    scenes at x8 the default finds 68 % of the changed pixels and 83 % of what it calls changed is."""

    def __post_init__(self) -> None:
        if self.loss_divisor is not None and self.loss_divisor <= 0:
            raise UserError(f"loss_divisor={self.loss_divisor} was given; choose a positive number, or null for the mean.")
        if not 0 <= self.wrong_reference <= 1:
            raise UserError(f"wrong_reference={self.wrong_reference} was given; a probability is 0 to 1.")
        if not 0 <= self.mask_accuracy <= 1:
            raise UserError(f"mask_accuracy={self.mask_accuracy} was given; a share of pixels is 0 to 1.")
        if len(set(self.mask_codes)) < len(self.mask_codes) or not all(0 <= code <= 255 for code in self.mask_codes):
            raise UserError(f"mask_codes={list(self.mask_codes)} was given; name each grey code from 0 to 255 once.")
        if self.change_threshold < 0:
            raise UserError(f"change_threshold={self.change_threshold} was given; choose 0 or more.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "ref"} | ({"change_mask"} if self.mask in ("given", "checked") else set()))

    @property
    def sampled_levels(self) -> int:
        return 0

    def refuse(self, problem: Problem) -> str | None:
        if problem.lr_bands != problem.bands:
            return (
                f"model refdiff starts from the enlarged LR image and needs equal bands, but the LR has {problem.lr_bands} and the target "
                f"{problem.bands}; choose data whose LR has all bands of the target."
            )
        return self.base.refuse_base("refdiff", problem)

    def build(self, problem: Problem) -> RefDiff:
        return RefDiff(self, problem)


class RefDiff(Method):
    """See the module and `RefDiffConfig`."""

    def __init__(self, options: RefDiffConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.couples_batch = options.wrong_reference > 0
        self.base = options.base.build_base(problem)
        self.network = options.network.build(problem.bands, problem.lr_bands, mask_channels=len(options.mask_codes) or 1)

    def denoiser(self, lr: Tensor, ref: Tensor, mask: Tensor) -> EdmDenoiser:
        """Return D of the target (or of what it adds to the LR) for enlarged LR and reference in [-1, 1] and mask (B,
        1, H, W) in [0, 1], all of target size."""
        lr, ref, mask = lr.float(), ref.float(), self.encoded(mask.float())

        def predict(x: Tensor, noise_level: Tensor) -> Tensor:
            return self.network(x, noise_level, lr, ref, mask)

        limit = 2.0 if self.base.adds else 1.0
        return EdmDenoiser(predict, EdmPreconditioning(self.options.levels.sigma_data), data_range=(-limit, limit))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        options = self.options
        require_multiple(batch, options.network.trunk.size_multiple)
        lr = enlarge_signed(batch.need("lr"), batch.size, options.train_enlargement, options.train_eight_bit)
        if options.wrong_reference > 0:
            ref = batch.need("ref")
            is_wrong = noise.uniform((len(batch), 1, 1, 1), ref.device) < options.wrong_reference
            batch = replace(batch, ref=torch.where(is_wrong, ref.roll(1, dims=0), ref))
        mask = self.change_mask(batch)
        denoiser = self.denoiser(lr, self.seen_reference(batch, lr, mask), mask)
        small, target = 2 * batch.need("lr") - 1, 2 * batch.need("hr") - 1
        if self.training and self.base.learns:
            self.base.observe(small, target, batch.whole_pixels)
        error = denoising_error(denoiser, options.levels, self.base.taken_off(target, small), noise).error
        mean = masked_mean(error, batch.valid)
        # The sum over the images of the optimiser step, however many micro-batches and processes share them.
        total = (
            mean if options.loss_divisor is None else mean * (error[0].numel() * (batch.step_images or len(batch)) / options.loss_divisor)
        )
        return {"restorer": Losses(total, {"weighted_error": mean.detach()})}

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    @property
    def coupling(self) -> str:
        return "it shows images the reference of another image of their batch (wrong_reference)" if self.couples_batch else ""

    def change_mask(self, batch: Batch) -> Tensor:
        """Return the mask (B, 1, H, W) in [0, 1] that the options ask for."""
        options = self.options
        if options.mask == "given":
            return batch.need("change_mask")
        ref = batch.need("ref")
        if options.mask in ("estimated", "checked"):
            differs = estimate_change(batch.need("lr"), ref, options.change_threshold) > 0
        else:
            differs = torch.full_like(ref[:, :1], float(options.mask == "changed")) > 0
        if options.mask == "checked":
            given = batch.need("change_mask")
            return torch.where(differs & self.is_unchanged(given), options.changed_code, given)
        return torch.where(differs, options.changed_code, options.unchanged_code)

    def is_unchanged(self, mask: Tensor) -> Tensor:
        """Return whether each pixel of a mask in [0, 1] has the code of unchanged ground."""
        return (mask - self.options.unchanged_code).abs() < 0.5 / 255

    def seen_reference(self, batch: Batch, lr: Tensor, mask: Tensor) -> Tensor:
        """Return the reference (B, C, H, W) in [-1, 1] as the network may see it; lr is the enlarged LR in [-1, 1]."""
        ref = 2 * batch.need("ref") - 1
        return ref if self.options.changed_reference == "shown" else torch.where(self.is_unchanged(mask), ref, lr.to(ref.dtype))

    def encoded(self, mask: Tensor) -> Tensor:
        """Return the mask (B, 1, H, W) in [0, 1] as the network takes it: itself, or one channel per code."""
        codes = self.options.mask_codes
        return torch.cat([((255 * mask).round() == code).to(mask) for code in codes], dim=1) if codes else mask

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        multiple = self.options.network.trunk.size_multiple
        lr, mask = enlarge_signed(batch.need("lr"), batch.size, self.options.enlargement), self.change_mask(batch)
        if self.options.mask_accuracy < 1:
            mask = with_errors(mask, self.is_unchanged(mask), self.options, [meta.name for meta in batch.metas])
        lr, ref, mask = (reflect_to_multiple(image, multiple) for image in (lr, self.seen_reference(batch, lr, mask), mask))
        denoiser = self.denoiser(lr, ref, mask)
        small = 2 * batch.need("lr") - 1
        start = reflect_to_multiple(self.base.taken_off(lr[..., : batch.size[0], : batch.size[1]], small), multiple)
        image = sample(sampler, denoiser, lr.shape, noise, device=lr.device, image=start)[..., : batch.size[0], : batch.size[1]]
        return (self.base.onto(image, small.to(image.dtype)).float() + 1) / 2


def with_errors(mask: Tensor, is_unchanged: Tensor, options: RefDiffConfig, names: Sequence[str]) -> Tensor:
    """Return a mask (B, 1, H, W) that is wrong on a share 1 - mask_accuracy of every image's pixels, in patches of about 16 pixels.

    Ground that did not change gets the code that most changed pixels of its image have (255 where none has), changed ground the code of
    unchanged. The patches depend on the image's name alone: every method, sampler and seed sees the same errors. Source: ours.
    """
    patch, pixels = 17, mask[0].numel()
    noise = SeededNoise([(name, "mask errors") for name in names]).normal(mask.shape, mask.device)
    smooth = F.avg_pool2d(F.pad(noise, (patch // 2,) * 4, mode="replicate"), patch, stride=1)
    order = smooth.flatten(1).argsort(dim=1, descending=True)
    wrong = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : round(pixels * (1 - options.mask_accuracy))], value=True)
    wrong = wrong.view(mask.shape)
    commonest = torch.ones(len(mask), 1, 1, 1, device=mask.device, dtype=mask.dtype)
    for index, (image, same) in enumerate(zip(mask, is_unchanged, strict=True)):
        if not bool(same.all()):
            commonest[index] = image[~same].mode().values
    mistaken = torch.where(is_unchanged, commonest, torch.full_like(mask, options.unchanged_code))
    return torch.where(wrong, mistaken, mask)


def estimate_change(lr: Tensor, ref: Tensor, threshold: float) -> Tensor:
    """Return (B, 1, H, W) of 0 (unchanged) and 1 (changed), constant within every LR pixel.

    lr         (B, C, h, w) in [0, 1]
    ref        (B, C, H, W) in [0, 1]
    threshold  difference beyond which a pixel counts as changed, in units of [0, 1]

    The reference is averaged over LR pixels and brought to the LR image's mean and deviation per band, because light and season differ
    between dates; the differences, averaged over bands and 3 x 3 LR pixels, are compared with the threshold. Source: ours.
    """
    small = F.interpolate(ref, size=lr.shape[-2:], mode="area")
    axes = (-2, -1)
    contrast = lr.std(axes, keepdim=True) / small.std(axes, keepdim=True).clamp(min=1e-4)
    matched = (small - small.mean(axes, keepdim=True)) * contrast + lr.mean(axes, keepdim=True)
    difference = (lr - matched).abs().mean(1, keepdim=True)
    smooth = F.avg_pool2d(F.pad(difference, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return F.interpolate((smooth > threshold).to(lr.dtype), size=ref.shape[-2:], mode="nearest")
