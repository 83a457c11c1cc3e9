"""Which metrics a run computes, under which protocol, with which weight files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith, one_of
from rsdiff.config.typed import nearest
from rsdiff.metrics.baseline import BICUBIC, Baseline
from rsdiff.metrics.inception import Preset
from rsdiff.metrics.opensr import OpensrConfig
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.table import METRICS
from rsdiff.metrics.uncertainty import IMAGES, SAMPLES, UNCERTAINTY

if TYPE_CHECKING:
    from rsdiff.degradations.base import Degradation
    from rsdiff.metrics.calibration import Calibration
    from rsdiff.metrics.evaluator import Evaluator
    from rsdiff.metrics.metric import Metric


@config
class MetricsConfig:
    """The metrics of a run. `METRICS` in rsdiff.metrics lists the names; a table prints the protocol with every value."""

    located: ClassVar[frozenset[str]] = frozenset({"weight_folders"})
    read_with: ClassVar[ReadWith] = {
        "fid_preset": ("metrics", (one_of("fid", "fid_p256", "kid"),)),
        "niqe_min_blocks": ("metrics", (one_of(*(name for name in METRICS if name.startswith("niqe"))),)),
        "opensr": ("metrics", (one_of(*(name for name in METRICS if name.startswith("opensr_"))),)),
        "seam_interval": ("metrics", (one_of("seams"),)),
    }

    metrics: tuple[str, ...] = ("psnr", "ssim", "lr_psnr")
    """Names of metrics, in the order of the tables; one whose weight file is missing is reported as unavailable and the run goes on."""
    protocol: ProtocolConfig = ProtocolConfig()
    """How images are made comparable before they are scored."""
    rgb_bands: tuple[int, int, int] = (0, 1, 2)
    """Indices of the red, green and blue band of images with more than three: what luma and the perceptual networks see."""
    baseline: bool = True
    """Whether a baseline is scored beside the method: bicubic interpolation, or a linear regression per pixel where bands are added."""
    panels: int = 6
    """How many of the first test images are drawn as comparison panels in the report."""
    fid_preset: Preset = "pytorch_fid"
    """How images are prepared for FID and KID; four presets, four values: pytorch_fid is what the compared papers used."""
    niqe_min_blocks: int = 4
    """NIQE of an image with fewer blocks (96 px) is not reported: two are needed, and values of few blocks are noise."""
    opensr: OpensrConfig = OpensrConfig()
    """Options of the opensr_* metrics."""
    seam_interval: int = 64
    """Target pixels between the borders that the metric `seams` looks at: the side of the tiles, windows or patches a method works in."""
    weight_folders: tuple[str, ...] = ("weights",)
    """Folders searched for weight files of metrics, before the cache of torch.hub; nothing is downloaded."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UserError(f"at least one metric is needed; the metrics are {', '.join(sorted(METRICS))}.")
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(f"'{name}' is not a metric{nearest(name, list(METRICS))}; the metrics are {', '.join(sorted(METRICS))}.")
        if len(set(self.metrics)) != len(self.metrics):
            raise UserError(f"every metric may be named once and the list is {', '.join(self.metrics)}.")
        if self.niqe_min_blocks < 2:
            raise UserError(f"niqe_min_blocks must be 2 or more, the fewest that have a covariance, and is {self.niqe_min_blocks}.")
        if self.seam_interval < 2:
            raise UserError(f"seam_interval must be 2 pixels or more and is {self.seam_interval}.")
        if min(self.rgb_bands) < 0:
            raise UserError(f"rgb_bands are band indices from 0 and are {self.rgb_bands}.")

    def for_samples(self, are_quantiles: bool = False) -> MetricsConfig:
        """Return the metrics with those that judge several restorations of an image, or several quantiles of its pixels."""
        judging = [metric.name for metric in UNCERTAINTY if not (are_quantiles and IMAGES in metric.needs)]
        return replace(self, metrics=tuple(dict.fromkeys((*self.metrics, *judging))))

    def for_validation(self, best: str | None = None) -> MetricsConfig:
        """Return the metrics that are cheap enough for validation during training: those that need no weights, without the baseline.

        best  one that is computed besides, because it chooses the best checkpoint
        """
        wanted = dict.fromkeys((*self.metrics, best) if best in METRICS else self.metrics)
        cheap = tuple(name for name in wanted if name is not None and _is_cheap(METRICS[name]))
        return replace(self, metrics=cheap or ("psnr",), baseline=False)

    def build(
        self,
        bands: int,
        has_hr: bool = True,
        degradation: Degradation | None = None,
        device: torch.device | str = "cpu",
        baseline: Baseline = BICUBIC,
        samples: int = 1,
        calibration: Calibration | None = None,
        fitted_on: frozenset[str] = frozenset(),
        are_quantiles: bool = False,
    ) -> Evaluator:
        """Return the evaluator for images of `bands` bands; `degradation` is what made their LR, None where the data set brings it.

        The others are told at `Evaluator`.
        """
        from rsdiff.metrics.evaluator import Evaluator

        place = torch.device(device)
        return Evaluator(self, bands, has_hr, degradation, place, baseline, samples, calibration, fitted_on, are_quantiles)


def _is_cheap(metric: Metric) -> bool:
    return not metric.files and not metric.of_set and SAMPLES not in metric.needs
