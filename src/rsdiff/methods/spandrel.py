"""Any network that the library spandrel knows (HAT, SwinIR, DAT, ...), with its released weights: a row of result tables, and for scenes.

`model=spandrel checkpoint=FILE`: the file tells architecture, sizes, bands and scale. It is not trained here. Images are limited to [0, 1],
as spandrel does. What no file contains, such as HAT's conv_scale, has its published value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.paths import typed_path
from rsdiff.data.sample import Batch
from rsdiff.foreign import read_checkpoint
from rsdiff.methods.base import Method, MethodConfig, Problem, require_scale
from rsdiff.methods.restoring import HaloTilesConfig

if TYPE_CHECKING:  # the library takes seconds to import
    from spandrel import ImageModelDescriptor, ModelDescriptor

    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class SpandrelConfig(MethodConfig):
    """A released network of another project, run as it is."""

    samples: ClassVar[bool] = False
    takes_checkpoint: ClassVar[bool] = True

    located: ClassVar[frozenset[str]] = frozenset({"weights"})

    weights: str = ""
    """The file of weights (.pth, .pt, .ckpt or .safetensors); checkpoint=FILE sets it."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """Whether an image is restored whole or in tiles."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"lr"})

    @property
    def is_ready(self) -> bool:
        return True

    @property
    def files(self) -> Sequence[Path]:
        return [typed_path(self.weights)] if self.weights else []

    def build(self, problem: Problem) -> Spandrel:
        """Raises UserError in one sentence for a file that cannot be read or belongs to another problem."""
        if not self.weights:
            raise UserError("model=spandrel needs a file of weights; add checkpoint=FILE.")
        return Spandrel(read_network(self.files[0]), self.tiles, problem)


def read_network(path: Path) -> ImageModelDescriptor[nn.Module]:
    """Return the network of a file of released weights, found by its keys and shapes; nothing of the file is executed.

    Raises UserError in one sentence for a file that is missing, no file of weights, or of a network that spandrel does not know.
    """
    from spandrel import ImageModelDescriptor

    if not path.is_file():
        raise UserError(f"checkpoint={path} is not a file; give the released weights of a network that spandrel knows.")
    found = known_network(read_checkpoint(path))
    if found is None:
        raise UserError(f"{path.name} holds no network that this version of spandrel knows; choose another file or update it.")
    if not isinstance(found, ImageModelDescriptor):
        raise UserError(f"{path.name} holds a network of spandrel that needs a mask beside the image; choose one that restores images.")
    return found


def known_network(content: Mapping[str, Any]) -> ModelDescriptor[Any] | None:
    """Return the network that spandrel recognises in a checkpoint's content, as `read_checkpoint` returns it, or None."""
    from spandrel import ModelLoader, UnsupportedModelError, canonicalize_state_dict

    weights = {key: value for key, value in content.items() if isinstance(value, Tensor | Mapping)}
    try:
        found: ModelDescriptor[Any] = ModelLoader().load_from_state_dict(canonicalize_state_dict(weights))
    except (UnsupportedModelError, RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError):
        # spandrel's guesses fail in many ways at a file that only looks like one of its networks.
        return None
    return found


class Spandrel(Method):
    """See the module."""

    def __init__(self, descriptor: ImageModelDescriptor[nn.Module], tiles: HaloTilesConfig, problem: Problem) -> None:
        super().__init__()
        name, bands = descriptor.architecture.name, (descriptor.input_channels, descriptor.output_channels)
        if descriptor.scale != problem.scale:
            raise UserError(
                f"this {name} enlarges by {descriptor.scale} and the scale is {problem.scale:g}; set scale={descriptor.scale} or choose "
                "another file."
            )
        if bands != (problem.lr_bands, problem.bands):
            raise UserError(
                f"this {name} maps {bands[0]} bands to {bands[1]} and the images have {problem.lr_bands} to {problem.bands}; choose "
                "another file, or images with as many bands."
            )
        self.scale, self.tiles = descriptor.scale, tiles
        self.network = descriptor.model
        self._descriptor = descriptor  # runs self.network, whose device and mode it shares
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        multiple = self.pixel_multiple()
        # One image at a time: spandrel promises no more.
        return torch.cat([self.tiles.run(self._descriptor, image, self.scale, multiple) for image in batch.need("lr").split(1)])

    @property
    def architecture(self) -> str:
        return str(self._descriptor.architecture.name)

    def pixel_multiple(self) -> int:
        return int(self._descriptor.size_requirements.multiple_of)
