"""Our metrics as torchmetrics `Metric` classes, for training and evaluation loops other than ours.

    from rsdiff.metrics.torch import metric, metrics
    psnr = metric("psnr", "basicsr_y", scale=4)           # ImageMetric; fid, kid, niqe of a set: SetMetric
    psnr.update(restored, hr); psnr.compute()             # images (B, C, H, W) in [0, 1]; over all processes
    several = metrics("basicsr_y", scale=4)               # a MetricCollection of all metrics of the protocol
    fid = FrechetDistance(network); kid = KernelDistance(network)      # of features of a network of your own

States and their reduction over processes are torchmetrics'. A value is the mean over images of the protocol's formula, as in our tables,
not a formula of pooled sums, as most of torchmetrics' own classes.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric as TorchMetric
from torchmetrics import MetricCollection
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from rsdiff.config import UserError
from rsdiff.config.typed import nearest
from rsdiff.metrics.colour import quantise, rgb_planes
from rsdiff.metrics.metric import Context, Metric, View
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.presets import preset
from rsdiff.metrics.table import METRICS
from rsdiff.metrics.uncertainty import SAMPLES
from rsdiff.metrics.weight_files import find_weight_file, missing_sentence

Protocol = str | MetricsConfig
"""An option of the group `metrics` ('standard', 'basicsr_y', ...) or its settings."""


def metric(name: str, protocol: Protocol = "standard", scale: float = 4, **options: Any) -> TorchMetric:
    """Return a metric by its name in our tables; `options` are torchmetrics' own (sync_on_compute, dist_sync_fn, ...).

    scale  of the restoration: some protocols leave out as many border pixels
    Raises UserError for unknown metrics, those without their weight file, and those that need more than images of one restoration.
    """
    return (SetMetric if _known(name).of_set else ImageMetric)(name, protocol, scale, **options)


def metrics(protocol: Protocol = "standard", scale: float = 4, **options: Any) -> MetricCollection:
    """Return all metrics of a protocol that can be computed here, by name."""
    config = _config(protocol)
    possible = [name for name in config.metrics if _reason(METRICS[name], config) is None]
    return MetricCollection({name: metric(name, config, scale, **options) for name in possible})


class _Ours(TorchMetric):
    """What a metric of images and one of a set have in common: the formula under its protocol."""

    formula: Tensor
    """(8,), which formula the other states are of. A MetricCollection lets metrics share their states for good that are equal after the
    first batch, as those of all formulas are where nothing of it counts."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, name: str, protocol: Protocol = "standard", scale: float = 4, **options: Any) -> None:
        super().__init__(**options)
        self.metric, self.config, self.scale = _known(name), _config(protocol), float(scale)
        reason = _reason(self.metric, self.config)
        if reason is not None:
            raise UserError(f"{self.metric.title} is not computed: {reason}")
        digest = hashlib.sha256(repr((name, self.config, self.scale)).encode()).digest()
        self.add_state("formula", torch.tensor(list(digest[:8])), dist_reduce_fx="max")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle is made of: the formula by its name, and nothing that was built of it."""
        return {**super().__getstate__(), "metric": self.metric.name, "_built": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "metric": _known(state["metric"])})

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Which way is better, for torchmetrics; None for descriptive numbers."""
        return {"higher": True, "lower": False, "none": None}[self.metric.direction]

    def _context(self, device: torch.device) -> Context:
        path = find_weight_file(self.metric.files, self.config.weight_folders) if self.metric.files else None
        return Context(self.config, device, {} if path is None else {self.metric.name: path})

    def _views(self, restored: Tensor, target: Tensor | None, lr: Tensor | None, valid: Tensor | None) -> list[View]:
        if restored.ndim != 4 or (target is not None and target.shape != restored.shape):
            given = tuple(restored.shape) if target is None else f"{tuple(restored.shape)} and {tuple(target.shape)}"
            raise UserError(f"images of the shapes {given} were given; give (B, C, H, W) of equal sizes.")
        if "lr" in self.metric.needs and lr is None:
            raise UserError(f"{self.metric.title} needs the input images, too: update(restored, hr, lr=...).")
        restored = widened(restored)
        target, lr = (None if images is None else widened(images) for images in (target, lr))
        return [
            View(
                image=restored[index].detach(),
                hr=None if target is None else target[index].detach(),
                lr=None if lr is None else lr[index].detach(),
                valid=None if valid is None else (valid[index] > 0.5).all(0, keepdim=True),
                scale=self.scale,
                protocol=self.config.protocol,
                rgb_bands=self.config.rgb_bands,
            )
            for index in range(len(restored))
        ]


class ImageMetric(_Ours):
    """The mean over images of a metric of one image, as tables have it: infinite and missing values count apart, see `counts`."""

    total: Tensor
    counts: Tensor
    """(3,): images with a finite value, infinite ones, and those without a value."""

    def __init__(self, name: str, protocol: Protocol = "standard", scale: float = 4, **options: Any) -> None:
        super().__init__(name, protocol, scale, **options)
        if self.metric.of_set:
            raise UserError(f"{self.metric.title} is a value of a set of images; use SetMetric('{name}').")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self._built: Any = None

    def update(self, restored: Tensor, target: Tensor | None = None, lr: Tensor | None = None, valid: Tensor | None = None) -> None:
        """Add images (B, C, H, W) in [0, 1], their references, and what they were made of where the metric needs it.

        valid  (B, C or 1, H, W), 1 where pixels count
        """
        assert self.metric.build is not None
        self._built = self._built or self.metric.build(self._context(restored.device))
        for view in self._views(restored, target, lr, valid):
            value = self._built(view)
            self.total += value if math.isfinite(value) else 0.0
            self.counts[0 if math.isfinite(value) else 1 if math.isinf(value) else 2] += 1

    def compute(self) -> Tensor:
        """Return the mean over images with a finite value; NaN without any."""
        return self.total / self.counts[0] if self.counts[0] else torch.full_like(self.total, math.nan)


class SetMetric(_Ours):
    """A value of a whole set of images: FID, KID, the NIQE of a set, with the weight files of our tables."""

    made: list[Tensor]
    true: list[Tensor]

    def __init__(self, name: str, protocol: Protocol = "standard", scale: float = 4, **options: Any) -> None:
        super().__init__(name, protocol, scale, **options)
        if not self.metric.of_set:
            raise UserError(f"{self.metric.title} is a value of single images; use ImageMetric('{name}').")
        self.add_state("made", [], dist_reduce_fx="cat")
        self.add_state("true", [], dist_reduce_fx="cat")
        self._built: Any = None

    def update(self, restored: Tensor, target: Tensor | None = None, lr: Tensor | None = None, valid: Tensor | None = None) -> None:
        """Add images; see ImageMetric."""
        assert self.metric.build_set is not None
        self._built = self._built or self.metric.build_set(self._context(restored.device))
        for view in self._views(restored, target, lr, valid):
            self.made.append(self._built.features(view).to(restored.device))
        for view in [] if target is None else self._views(target, target, lr, valid):
            self.true.append(self._built.features(view).to(restored.device))

    def compute(self) -> Tensor:
        """Return the distance of the sets."""
        made, true = _stacked(self.made), _stacked(self.true)
        if made is None:
            raise UserError(f"{self.metric.title} was asked for before images were given; call update first.")
        assert self.metric.build_set is not None
        self._built = self._built or self.metric.build_set(self._context(made.device))
        return torch.tensor(self._built.distance(made, true), dtype=torch.float64)


class _OfPairs(TorchMetric):
    """Gives one of torchmetrics' distances of sets the images that we hold: restored ones with their references, in [0, 1]."""

    def __init__(self, network: nn.Module, rgb_bands: tuple[int, int, int] = (0, 1, 2), **options: Any) -> None:
        super().__init__(feature=network, **options)
        self.rgb_bands = rgb_bands

    def update(self, restored: Tensor, target: Tensor) -> None:
        """Add restored images and their references."""
        super().update(_as_bytes(target, self.rgb_bands), real=True)  # type: ignore[safe-super]
        super().update(_as_bytes(restored, self.rgb_bands), real=False)  # type: ignore[safe-super]


class FrechetDistance(_OfPairs, FrechetInceptionDistance):  # type: ignore[misc]
    """torchmetrics' FID of features of a network of your own; `update(restored, hr)` with images (B, C, H, W) in [0, 1].

    network    maps uint8 images (B, 3, H, W) to features (B, D)
    rgb_bands  shown to the network as red, green and blue
    """


class KernelDistance(_OfPairs, KernelInceptionDistance):  # type: ignore[misc]
    """torchmetrics' KID of features of a network of your own; see FrechetDistance. compute() returns mean and deviation over subsets."""


def _stacked(features: list[Tensor] | Tensor) -> Tensor | None:
    """Return the features of all images on the CPU: a list of this process's, or, after its reduction, one tensor of all processes."""
    if isinstance(features, list):
        return torch.cat(features).cpu() if features else None
    return features.cpu()


def widened(images: Tensor) -> Tensor:
    """Return images of half precision as float32, in which formulas are meant; others as they are."""
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images


def _as_bytes(images: Tensor, rgb_bands: tuple[int, int, int]) -> Tensor:
    """Return images (B, C, H, W) in [0, 1] as uint8 (B, 3, H, W), as the files they would be saved as."""
    planes = torch.stack([rgb_planes(quantise(image), rgb_bands) for image in widened(images)])
    return planes.expand(-1, 3, -1, -1).to(torch.uint8)


def _config(protocol: Protocol) -> MetricsConfig:
    return protocol if isinstance(protocol, MetricsConfig) else preset(protocol)


def _known(name: str) -> Metric:
    if name not in METRICS:
        raise UserError(f"'{name}' is not a metric{nearest(name, list(METRICS))}; the metrics are {', '.join(sorted(METRICS))}.")
    return METRICS[name]


def _reason(metric: Metric, config: MetricsConfig) -> str | None:
    """Return why a metric cannot be computed of images alone, or None."""
    if metric.needs & {"degradation", SAMPLES}:
        return "it needs the degradation or several restorations, which task=evaluate knows."
    if metric.files and find_weight_file(metric.files, config.weight_folders) is None:
        return missing_sentence(metric.files, config.weight_folders)
    return None
