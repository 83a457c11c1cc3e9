"""Regression: a network trained for pixels by a weighted sum of terms; `model.network=hat` takes any network.

The kinds hat, mstpp, mst_l, hscnn_plus, awan and spectral_cnn are this with one network, whose options are the model's own. Sources:
- rrdb: RRDB_PSNR of ESRGAN, BSRNet, Real-ESRNet (XPixelGroup/BasicSR, cszn/KAIR, xinntao/Real-ESRGAN; they differ in the head at other
  scales than 4, in the initial weights and in their training data), and the first stage of the GANs in rsdiff.methods.esrgan;
- hat: XPixelGroup/HAT, trained with the mean absolute error; `model=spandrel` runs a released file as it is and does not train it;
- mstpp, mst_l, hscnn_plus, awan: caiyuanhao1998/MST-plus-plus (NTIRE 2022 spectral recovery), whose recipe is in experiments/spectral,
  trained by the relative error. Any number of bands goes in and out; at 31 bands the networks are the published ones. The cost of MST++
  and MST-L as published, as wide as the cube has bands, grows with the square of their number: `width` makes them narrower;
- spectral_cnn: a plain CNN of ours.

Unlike the published code:
- MST-L's mask is that of every image by itself (`mask_of_first`), so that results do not depend on the batch; alike at batch size 1.
- AWAN is evaluated on the whole image; the published script feeds it a window and cuts 10 pixels off.
- Training of the spectral networks ends after the steps asked for; the published loop goes on to the end of a pass over its patches
  (395,576 of 300,000 steps), with the learning rate rising again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from rsdiff.config import Ours, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.images import ImageLossConfig
from rsdiff.methods.base import Losses, MethodConfig, Problem, Stage
from rsdiff.methods.restoring import HaloTilesConfig, ImageMethod, ImageNetwork, InitialWeights
from rsdiff.networks.awan import AWANNetConfig
from rsdiff.networks.hat import HATNetConfig
from rsdiff.networks.hscnn_plus import HSCNNPlusNetConfig
from rsdiff.networks.mst import MSTLNetConfig, MSTPlusPlusNetConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.networks.spectral_cnn import SpectralCNNNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource

RELATIVE = ImageLossConfig(l1=0.0, relative=1.0)


@config
class RegressionMethodConfig(MethodConfig):
    """What the kinds share: the objective, and how images are restored."""

    samples: ClassVar[bool] = False

    loss: ImageLossConfig = ImageLossConfig()
    """Weights of the objective's terms."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """What the network's answer, at first 0, is added to (ours, for short trainings); none as published."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """Whether an image is restored whole or in tiles."""

    @property
    def restorer(self) -> RestorerConfig:
        """The network."""
        assert isinstance(self, RestorerConfig)
        return self

    @property
    def initial_weights(self) -> InitialWeights:
        """See `initialise`."""
        return "kaiming"

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse_network(problem) or self.base.refuse_base(self.restorer.kind, problem)

    def build(self, problem: Problem) -> Regression:
        return Regression(self, problem)


@config
class RRDBMethodConfig(RegressionMethodConfig):
    """A network trained with the mean absolute error, or other terms. The defaults are those of ESRGAN's first stage."""

    network: RestorerConfig = RRDBNetConfig()
    """The network that restores."""
    initial: InitialWeights = "kaiming"
    """Initial weights: those of ESRGAN, or orthogonal ones of gain 0.2 in every convolution (KAIR)."""

    @property
    def restorer(self) -> RestorerConfig:
        return self.network

    @property
    def initial_weights(self) -> InitialWeights:
        return self.initial


@config
class RelativeRegressionConfig(RegressionMethodConfig):
    """What the kinds that add bands by the relative error share."""

    usual_scale: ClassVar[int] = 1

    loss: ImageLossConfig = RELATIVE
    """Weights of the objective's terms."""


@config
class HATConfig(HATNetConfig, RegressionMethodConfig):
    """HAT trained with the mean absolute error. The defaults are HAT-L's."""


@config
class SpectralCNNConfig(SpectralCNNNetConfig, RegressionMethodConfig):
    """The CNN, trained by the mean absolute error and the spectral angle."""

    usual_scale: ClassVar[int] = 1

    loss: ImageLossConfig = ImageLossConfig(sam=0.1)
    """Weights of the objective's terms."""


@config
class MSTPlusPlusConfig(MSTPlusPlusNetConfig, RelativeRegressionConfig):
    """MST++ trained by the relative error. The defaults are the published network."""


@config
class MSTLConfig(MSTLNetConfig, RelativeRegressionConfig):
    """MST-L trained by the relative error. The defaults are the published network."""


@config
class HSCNNPlusConfig(HSCNNPlusNetConfig, RelativeRegressionConfig):
    """HSCNN+ trained by the relative error. The defaults are the published network."""


@config
class AWANConfig(AWANNetConfig, RelativeRegressionConfig):
    """AWAN trained by the relative error. The defaults are the published network."""


class Regression(ImageMethod):
    """See the module."""

    def __init__(self, options: RegressionMethodConfig, problem: Problem) -> None:
        super().__init__()
        self.images = ImageNetwork(self, options.restorer, options.base, options.tiles, problem, options.initial_weights)
        self.loss = options.loss

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        estimate = self.images.estimate(self.images.training_input(batch))
        return {"restorer": Losses.weighted(self.loss.terms(estimate, batch.need("hr"), batch.valid, stage.step))}
