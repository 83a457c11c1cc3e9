"""Scores restored images: one row of values per image and values of the whole set, for a method and bicubic interpolation beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.degradations.base import Degradation, RecordValue
from rsdiff.degradations.paired import Paired
from rsdiff.metrics.baseline import bicubic
from rsdiff.metrics.metric import Context, ImageScore, Metric, View
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.summary import Summary, Unavailable, summarise
from rsdiff.metrics.table import METRICS
from rsdiff.metrics.weight_files import file_hash, find_weight_file, missing_sentence

Row = dict[str, RecordValue]

BASELINE_PREFIX = "bicubic_"
REFERENCE_PREFIX = "hr_"


class Evaluator:
    """Computes the metrics of `config` for images of `bands` bands.

    has_hr       whether the data set has references
    degradation  the operator that made the LR images, or None where the data set brings them
    Metrics that cannot be computed are listed in `unavailable` from the start; everything else is ready when the constructor returns, so
    that a run fails, or warns, before it has trained. Values of an image do not depend on the batch it came in.
    """

    def __init__(self, config: MetricsConfig, bands: int, has_hr: bool, degradation: Degradation | None, device: torch.device) -> None:
        self.config = config
        self.device = device
        # Paired data bring their LR: the operator that made it is not known.
        degradation = None if isinstance(degradation, Paired) else degradation
        self.degradation = degradation
        self.unavailable: list[Unavailable] = []
        self.weight_hashes: dict[str, str] = {}
        files: dict[str, Path] = {}
        self.metrics: list[Metric] = []
        for metric in (METRICS[name] for name in config.metrics):
            reason = _reason_unavailable(metric, config, bands, has_hr, degradation)
            if reason is not None:
                self.unavailable.append(Unavailable(metric.name, metric.title, reason))
                continue
            self.metrics.append(metric)
            if metric.files:
                path = find_weight_file(metric.files, config.weight_folders)
                assert path is not None
                files[metric.name] = path
                self.weight_hashes[path.name] = file_hash(path)
        context = Context(config, device, files)
        self._scores: dict[str, ImageScore] = {m.name: m.build(context) for m in self.metrics if m.build is not None}

    def check(self) -> list[str]:
        """Return a sentence for every metric that will be missing from the results."""
        return [f"{entry.title} is left out: {entry.reason}" for entry in self.unavailable]

    @torch.no_grad()
    def rows(self, batch: Batch, restored: Tensor, seconds: float | Sequence[float]) -> list[Row]:
        """Return one row per image of a degraded batch.

        restored  (B, C, H, W) in [0, 1], not rounded: what the method made of batch.lr
        seconds   restoration time per image, one value for all or one each
        A row holds name, labels, what the degradation drew, `seconds`, the metrics of the method, those of bicubic interpolation
        (bicubic_*), and of the reference where a metric asks for it (hr_*).
        """
        per_image = [float(seconds)] * len(batch) if isinstance(seconds, int | float) else [float(value) for value in seconds]
        return [self._row(batch, index, restored[index], per_image[index]) for index in range(len(batch))]

    def summary(self, rows: Sequence[Row]) -> Summary:
        """Return means, spreads and counts over the gathered rows of all processes, one row per image name."""
        return summarise(rows, self.metrics, self.config.protocol, self.unavailable, self.weight_hashes)

    def _row(self, batch: Batch, index: int, restored: Tensor, seconds: float) -> Row:
        meta = batch.metas[index]
        row: Row = {"name": meta.name, **dict(meta.labels)}
        decisions = batch.decisions[index] if index < len(batch.decisions) else ()
        if self.degradation is not None and decisions and decisions[0] is not None:
            row.update(self.degradation.record(decisions[0]))
        row["height"], row["width"], row["seconds"] = batch.size[0], batch.size[1], seconds
        view = self._view(batch, index, restored)
        row.update(self._values(view, "", self.metrics))
        if view.hr is not None:
            of_hr = replace(view, image=view.hr, shared={})
            row.update(self._values(of_hr, REFERENCE_PREFIX, [metric for metric in self.metrics if metric.on_hr]))
        if self.config.baseline and view.lr is not None and view.lr.shape[0] == view.image.shape[0]:
            of_bicubic = replace(view, image=bicubic(view.lr, batch.size), shared={})
            row.update(self._values(of_bicubic, BASELINE_PREFIX, self.metrics))
        return row

    def _values(self, view: View, prefix: str, metrics: Sequence[Metric]) -> Mapping[str, float]:
        return {prefix + metric.name: self._scores[metric.name](view) for metric in metrics if not metric.of_set}

    def _view(self, batch: Batch, index: int, restored: Tensor) -> View:
        def one(images: Tensor | None) -> Tensor | None:
            return None if images is None else images[index].to(self.device)

        valid = one(batch.valid)
        return View(
            image=restored.to(self.device),
            hr=one(batch.hr),
            lr=one(batch.lr),
            valid=None if valid is None else valid > 0.5,
            scale=batch.scale,
            protocol=self.config.protocol,
            rgb_bands=self.config.rgb_bands,
            degrade=self._operator(batch, index),
        )

    def _operator(self, batch: Batch, index: int) -> Callable[[Tensor], Tensor] | None:
        degradation = self.degradation
        if degradation is None or index >= len(batch.decisions) or not batch.decisions[index] or batch.decisions[index][0] is None:
            return None
        decisions: Any = batch.decisions[index][0]

        def degrade(image: Tensor) -> Tensor:
            made = degradation.apply(image[None], [decisions])
            # Without its noise where the degradation tells; otherwise the same noise is in both LR images and cancels.
            return (made.lr if made.lr_clean is None else made.lr_clean)[0]

        return degrade


def _reason_unavailable(metric: Metric, config: MetricsConfig, bands: int, has_hr: bool, degradation: Degradation | None) -> str | None:
    if "hr" in metric.needs and not has_hr:
        return "it compares with the HR image and this data set has none."
    if "degradation" in metric.needs and degradation is None:
        return "it needs the operator that made the LR images, and this data set brings its own LR."
    if bands > 3 and max(config.rgb_bands) >= bands:
        return f"metrics.rgb_bands={list(config.rgb_bands)} but the images have {bands} bands; choose indices below {bands}."
    if "rgb" in metric.needs and bands == 2:
        return "it sees one band or three and the images have 2."
    if metric.files and find_weight_file(metric.files, config.weight_folders) is None:
        return missing_sentence(metric.files, config.weight_folders)
    return None
