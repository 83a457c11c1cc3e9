"""EDM for super-resolution without a reference: any of EDM's networks, conditioned on the enlarged LR image by concatenation.

Source of networks, preconditioning, loss, sampler and augmentation: Karras et al., arXiv 2206.00364 and NVlabs/edm. The conditioning is
ours (SR3's), since EDM itself is unconditional: the LR joins the noisy image unscaled, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import Ours, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.enlarging import Enlargement, enlarge_signed
from rsdiff.data.sample import Batch
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.augmentation import AugmentationConfig, draw_augmentation
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.diffusion.edm import EdmDenoiser, EdmLevels, EdmPreconditioning, Preconditioning, denoising_error
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.preconditioning import VeLevels, VePreconditioning, VpLevels, VpPreconditioning
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.losses.images import masked_mean
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_multiple
from rsdiff.networks.dhariwal_unet import DhariwalUNetConfig
from rsdiff.networks.layers import reflect_to_multiple
from rsdiff.networks.song_unet import SongUNetConfig


@config
class EdmSrConfig(MethodConfig):
    """EDM conditioned on the LR image. The defaults are DDPM++ as EDM trains it at 64 pixels, with dropout 0.05 and no augmentation."""

    has_own_step: ClassVar[bool | None] = False
    read_with: ClassVar[ReadWith] = {
        "song": ("architecture", ("song",)),
        "dhariwal": ("architecture", ("dhariwal",)),
        "levels": ("preconditioning", ("edm",)),
        **{f"{network}.{kind}_labels": ("architecture", ()) for network in ("song", "dhariwal") for kind in ("class", "augment")},
    }

    architecture: Literal["song", "dhariwal"] = "song"
    """song: DDPM++ or NCSN++, by the options of `song`; dhariwal: ADM."""
    song: SongUNetConfig = SongUNetConfig(dropout=0.05)
    """Options of the network when architecture=song; its label widths are set by `augmentation`."""
    dhariwal: DhariwalUNetConfig = DhariwalUNetConfig()
    """Options of the network when architecture=dhariwal; its label widths are set by `augmentation`."""
    preconditioning: Literal["edm", "vp", "ve"] = "edm"
    """Scalings around the network and noise levels of training: EDM's, or those of the VP or VE score SDE."""
    levels: EdmLevels = EdmLevels()
    """Noise levels of training with preconditioning=edm."""
    enlargement: Enlargement = "bicubic"
    """How the LR is brought to target size."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """Subtracted from the target before it is diffused, and added back (ours). Set levels.sigma_data to the deviation of the difference,
    and levels.mean and sampler.sigma_max by it."""
    augmentation: AugmentationConfig = AugmentationConfig(probability=0.0)
    """Transforms of training images, the same for target and LR; their parameters are an input of the network; probability 0 means none."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr"})

    @property
    def size_multiple(self) -> int:
        """The sides of an image must be multiples of this many pixels for the network; others are extended."""
        return self.song.size_multiple if self.architecture == "song" else self.dhariwal.size_multiple

    @property
    def augments(self) -> bool:
        """Whether training images are augmented, and the network has an input for what was done."""
        return self.augmentation.probability > 0

    @property
    def sampled_levels(self) -> int:
        return 0

    def starts_at_image(self, problem: Problem) -> bool:
        return problem.bands == problem.lr_bands

    def refuse(self, problem: Problem) -> str | None:
        options = self.augmentation
        colours = (options.brightness, options.contrast, options.luma_flip, options.hue, options.saturation)
        if self.augments and any(colours) and not {problem.bands, problem.lr_bands} <= {1, 3}:
            return (
                f"model.augmentation changes colours, which needs 1 or 3 bands, and the data have {problem.bands} and {problem.lr_bands}; "
                "set its brightness, contrast, luma_flip, hue and saturation to 0."
            )
        if self.augments and not isinstance(self.base, NoBaseConfig):
            return (
                "model.augmentation transforms whole images and model.base takes a part off them; set model.base=none or "
                "model.augmentation.probability=0."
            )
        return self.base.refuse_base("edm_sr", problem)

    def build(self, problem: Problem) -> EdmSr:
        return EdmSr(self, problem)

    def network_options(self) -> SongUNetConfig | DhariwalUNetConfig:
        """Return the chosen network's options with the label widths that the augmentation needs."""
        width = self.augmentation.label_width if self.augments else 0
        chosen = self.song if self.architecture == "song" else self.dhariwal
        return replace(chosen, class_labels=0, augment_labels=width)


class EdmSr(Method):
    """See the module and `EdmSrConfig`."""

    def __init__(self, options: EdmSrConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.bands = problem.bands
        self.base = options.base.build_base(problem)
        self.network = options.network_options().build(problem.bands + problem.lr_bands, problem.bands)
        self.levels: EdmLevels | VpLevels | VeLevels = options.levels
        self.preconditioning: Preconditioning = EdmPreconditioning(options.levels.sigma_data)
        if options.preconditioning == "vp":
            self.levels, self.preconditioning = VpLevels(), VpPreconditioning()
        elif options.preconditioning == "ve":
            self.levels, self.preconditioning = VeLevels(), VePreconditioning()

    def denoiser(self, lr: Tensor, augment_labels: Tensor | None = None) -> EdmDenoiser:
        """Return D for the enlarged LR (B, c, H, W) in [-1, 1]; labels tell the network how both were augmented."""
        lr = lr.float()

        def predict(x: Tensor, noise_level: Tensor) -> Tensor:
            return self.network(torch.cat([x, lr], dim=1), noise_level, augment_labels=augment_labels)

        limit = 2.0 if self.base.adds else 1.0
        return EdmDenoiser(predict, self.preconditioning, data_range=(-limit, limit))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        """EDM's loss: per image the sum of the weighted squared error, averaged over the batch. Draws: augmentation, level, noise."""
        require_multiple(batch, self.options.size_multiple)
        small, labels, valid = 2 * batch.need("lr") - 1, None, batch.valid
        target, lr = 2 * batch.need("hr") - 1, enlarge_signed(batch.need("lr"), batch.size, self.options.enlargement)
        if self.training and self.base.learns:
            self.base.observe(small, target, batch.whole_pixels)
        target = self.base.taken_off(target, small)
        if self.options.augments:
            drawn = draw_augmentation(self.options.augmentation, noise, len(batch), batch.size)
            target, lr, labels = drawn.apply(target), drawn.apply(lr), to_device(drawn.labels, lr.device)
            valid = None if valid is None else drawn.apply_validity(valid)
        error = denoising_error(self.denoiser(lr, labels), self.levels, target, noise).error
        mean = masked_mean(error, valid)
        # The sum over an image, as if its missing pixels had the error of the others.
        return {"restorer": Losses(mean * error[0].numel(), {"weighted_error": mean.detach()})}

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        multiple = self.options.size_multiple
        small = 2 * batch.need("lr") - 1
        enlarged = enlarge_signed(batch.need("lr"), batch.size, self.options.enlargement)
        lr = reflect_to_multiple(enlarged, multiple)
        start = reflect_to_multiple(self.base.taken_off(enlarged, small), multiple) if lr.shape[1] == self.bands else None
        shape = (len(batch), self.bands, *lr.shape[-2:])
        image = sample(sampler, self.denoiser(lr), shape, noise, device=lr.device, image=start)
        image = self.base.onto(image[..., : batch.size[0], : batch.size[1]], small.to(image.dtype))
        return (image.float() + 1) / 2
