"""Scores restored images: one row of values per image and values of the whole set, for a method and a baseline beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.degradations.base import Degradation, RecordValue
from rsdiff.degradations.paired import Paired
from rsdiff.metrics import opensr
from rsdiff.metrics.baseline import BICUBIC, Baseline
from rsdiff.metrics.calibration import Calibration
from rsdiff.metrics.features import FeatureStore
from rsdiff.metrics.kernel import KERNEL_PSNR
from rsdiff.metrics.metric import Context, ImageScore, Metric, MetricOptions, SetScore, View
from rsdiff.metrics.summary import LEFT_OUT, VALID_SHARE, Summary, Unavailable, summarise
from rsdiff.metrics.table import METRICS
from rsdiff.metrics.uncertainty import IMAGES, INTERVALS, SAMPLES, reliability
from rsdiff.metrics.weight_files import file_hash, find_weight_file, missing_lines, missing_sentence

Row = dict[str, RecordValue]

METHOD, REFERENCE = "", "hr_"
"""Prefixes of a row's columns; those of the baseline begin with its name."""


class Evaluator:
    """Computes the metrics of `config` for images of `bands` bands.

    has_hr       whether the data set has references
    degradation  the operator that made the LR images, or None where the data set brings them
    baseline     what is scored beside the method
    samples      restorations of every image that `rows` will be given; with more than 1 their spread is judged, too
    calibration  of the intervals they give, or None; it is not tried on the images named in `fitted_on`
    are_quantiles  whether those restorations are quantiles of every pixel
    Metrics that cannot be computed are listed in `unavailable` from the start; everything else is ready when the constructor returns, so
    that a run fails, or warns, before it has trained. Values of an image do not depend on the batch it came in.
    """

    def __init__(
        self,
        config: MetricOptions,
        bands: int,
        has_hr: bool,
        degradation: Degradation | None,
        device: torch.device,
        baseline: Baseline = BICUBIC,
        samples: int = 1,
        calibration: Calibration | None = None,
        fitted_on: frozenset[str] = frozenset(),
        are_quantiles: bool = False,
    ) -> None:
        self.config, self.are_quantiles = config, are_quantiles
        self.calibration, self.fitted_on = calibration, fitted_on
        self.baseline = baseline
        self.device = device
        # Paired data bring their LR: the operator that made it is not known.
        self.degradation = None if isinstance(degradation, Paired) else degradation
        self.unavailable = unavailable(config, bands, has_hr, self.degradation, samples, are_quantiles)
        self.weight_hashes: dict[str, str] = {}
        self.metrics: list[Metric] = []
        files: dict[str, Path] = {}
        left_out = {entry.name for entry in self.unavailable}
        for metric in (METRICS[name] for name in config.metrics if name not in left_out):
            self.metrics.append(metric)
            if metric.files:
                path = find_weight_file(metric.files, config.weight_folders)
                assert path is not None
                files[metric.name] = path
                self.weight_hashes[path.name] = file_hash(path)
        context = Context(config, device, files)
        self._scores: dict[str, ImageScore] = {m.name: m.build(context) for m in self.metrics if m.build is not None}
        self._set_scores: dict[str, SetScore] = {m.name: m.build_set(context) for m in self.metrics if m.build_set is not None}
        self._features = FeatureStore()
        self._refused: dict[str, str] = {}

    def check(self) -> list[str]:
        """Return what to say of the metrics that will be missing from the results: their weights in one place, other reasons one by one."""
        lacking = [METRICS[entry.name] for entry in self.unavailable if entry.lacks_weights]
        titles, files = [metric.title for metric in lacking], [metric.files for metric in lacking]
        others = [f"{entry.title} is left out: {entry.reason}" for entry in self.unavailable if not entry.lacks_weights]
        return [*others, *missing_lines(titles, files, self.config.weight_folders)]

    def keep_features_in(self, folder: Path) -> None:
        """Keep what values of a set are made of in `folder`: processes of one run share them there, and a killed evaluation finds them.

        Without it they are kept in memory, which serves one process that scores every image.
        """
        self._features = FeatureStore(folder)

    @torch.no_grad()
    def rows(self, batch: Batch, restored: Tensor, seconds: float | Sequence[float], draws: Tensor | None = None) -> list[Row]:
        """Return one row per image of a degraded batch.

        restored  (B, C, H, W) in [0, 1], not rounded: what the method made of batch.lr
        draws     (N, B, C, H, W), several restorations, `restored` being the first, or quantiles; None where their spread is not judged
        seconds   restoration time per image, one value for all or one each
        A row holds name, labels, what the degradation drew, `seconds`, the metrics of the method, those of the baseline (bicubic_*,
        linear_*), and of the reference where a metric asks for it (hr_*). A metric that refuses an image (too small for it) is NaN
        there, and the summary says why.
        """
        per_image = [float(seconds)] * len(batch) if isinstance(seconds, int | float) else [float(value) for value in seconds]
        drawn = [None] * len(batch) if draws is None else list(draws.unbind(1))
        return [self._row(batch, index, restored[index], per_image[index], drawn[index]) for index in range(len(batch))]

    def summary(self, rows: Sequence[Row]) -> Summary:
        """Return means, spreads and counts over the gathered rows of all processes, one row per image name.

        Values of a set are NaN where features of an image are missing (see `keep_features_in`).
        """
        names = sorted({str(row["name"]) for row in rows})
        of_set = {metric.name: self._of_set(metric, names) for metric in self.metrics if metric.of_set}
        refused = [Unavailable(name, f"{METRICS[name].title} of some images", reason) for name, reason in self._refused.items()]
        estimated = [KERNEL_PSNR] if any(KERNEL_PSNR.name in row for row in rows) else []
        return summarise(
            rows,
            [*self.metrics, *estimated],
            self.config.protocol,
            [*self.unavailable, *refused],
            self.weight_hashes,
            of_set,
            self.baseline.name,
        )

    def _row(self, batch: Batch, index: int, restored: Tensor, seconds: float, draws: Tensor | None) -> Row:
        meta = batch.metas[index]
        row: Row = {"name": meta.name, **dict(meta.labels)}
        decisions = batch.decisions[index] if index < len(batch.decisions) else ()
        if self.degradation is not None and decisions and decisions[0] is not None:
            row.update(self.degradation.record(decisions[0]))
        row["image_height"], row["image_width"], row["seconds"] = batch.size[0], batch.size[1], seconds
        view = self._view(batch, index, restored, draws)
        views = {METHOD: view}
        if view.hr is not None:
            views[REFERENCE] = replace(view, image=view.hr, shared={})
        compared = self.compared_with(view.lr, view.image.shape[0], batch.size)
        if compared is not None:
            views[self._prefix] = replace(view, image=compared, shared={})
        for metric in self.metrics:
            for prefix, seen in views.items():
                if not metric.of_set and _is_of(metric, prefix):
                    row[prefix + metric.name] = self._value(metric, seen)
        if draws is not None and view.hr is not None:
            row |= reliability(view)
        if self.calibration is not None and meta.name in self.fitted_on:
            row = {name: value for name, value in row.items() if not name.startswith(INTERVALS)}
        if view.valid is not None:
            row[VALID_SHARE] = float(view.valid.float().mean())
        row |= {name + LEFT_OUT: count for name, count in view.shared.get("left out", {}).items() if count}
        if self._set_scores:
            features = {prefix + name: score.features(seen) for name, score in self._set_scores.items() for prefix, seen in views.items()}
            self._features.add(meta.name, features)
        return row

    def detail_maps(self, batch: Batch, index: int, restored: Tensor) -> Tensor | None:
        """Return opensr-test's maps (3, H, W) of improvement, omission and hallucination of an image; None where they cannot be made.

        They compare with HR and an LR of as many bands at a whole scale, and with all of it: an image with missing pixels has none.
        """
        view = self._view(batch, index, restored, None)
        if view.hr is None or view.lr is None or view.lr.shape[0] != view.hr.shape[0]:
            return None
        if view.valid is not None and not bool(view.valid.all()):
            return None
        try:
            return opensr.detail_maps(view.lr, view.image, view.hr, self.config.opensr)
        except UserError:
            return None

    @property
    def _prefix(self) -> str:
        return f"{self.baseline.name}_"

    def compared_with(self, lr: Tensor | None, bands: int, size: tuple[int, int]) -> Tensor | None:
        """Return what the baseline makes of an LR image (c, h, w), (bands, H, W), or None where there is none."""
        if not self.config.baseline or lr is None or (lr.shape[0] != bands and not self.baseline.any_bands):
            return None
        return self.baseline.restore(lr, size)

    def _value(self, metric: Metric, view: View) -> float:
        try:
            return self._scores[metric.name](view)
        except ValueError as refusal:
            # After hours of training an image too small for one metric must not cost the values of the others.
            self._refused.setdefault(metric.name, str(refusal))
            return math.nan

    def _of_set(self, metric: Metric, names: Sequence[str]) -> dict[str, float]:
        score = self._set_scores[metric.name]
        reference = self._features.stacked(REFERENCE + metric.name, names)
        values: dict[str, float] = {}
        for prefix in (METHOD, self._prefix):
            features = self._features.stacked(prefix + metric.name, names)
            if features is not None and len(features) > 1:
                values[prefix] = score.distance(features, reference)
        if metric.on_hr and len(names) > 3 and reference is not None:
            halves = [self._features.stacked(REFERENCE + metric.name, names[start::2]) for start in (0, 1)]
            if halves[0] is not None and halves[1] is not None and min(len(halves[0]), len(halves[1])) > 1:
                values[REFERENCE] = score.distance(halves[0], halves[1])
        return values

    def _view(self, batch: Batch, index: int, restored: Tensor, draws: Tensor | None) -> View:
        def one(images: Tensor | None) -> Tensor | None:
            return None if images is None else images[index].to(self.device)

        valid, lr_valid = one(batch.valid), one(batch.lr_valid)
        return View(
            image=restored.to(self.device),
            hr=None if batch.hr is None else one(batch.need("hr")),
            lr=None if batch.lr is None else one(batch.need("lr")),
            valid=None if valid is None else (valid > 0.5).all(0, keepdim=True),
            scale=batch.scale,
            protocol=self.config.protocol,
            rgb_bands=self.config.rgb_bands,
            degrade=self._operator(batch, index),
            lr_valid=None if lr_valid is None else lr_valid > 0.5,
            draws=None if draws is None else draws.to(self.device),
            are_quantiles=self.are_quantiles,
            calibration=self.calibration,
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


def _is_of(metric: Metric, prefix: str) -> bool:
    """Say whether a metric is computed of the method (''), the reference or the baseline: these two are one image each."""
    return prefix == METHOD or (SAMPLES not in metric.needs and (prefix != REFERENCE or metric.on_hr))


def unavailable(
    config: MetricOptions, bands: int, has_hr: bool, degradation: Degradation | None, samples: int = 1, are_quantiles: bool = False
) -> list[Unavailable]:
    """Return the metrics that cannot be computed, and why, before anything of them is read; see `Evaluator` for the arguments."""
    found = []
    for metric in (METRICS[name] for name in config.metrics):
        reason = _reason_unavailable(metric, config, bands, has_hr, degradation, samples, are_quantiles)
        lacks_weights = reason is None and bool(metric.files) and find_weight_file(metric.files, config.weight_folders) is None
        if lacks_weights:
            reason = missing_sentence(metric.files, config.weight_folders)
        if reason is not None:
            found.append(Unavailable(metric.name, metric.title, reason, lacks_weights))
    return found


def _reason_unavailable(
    metric: Metric, config: MetricOptions, bands: int, has_hr: bool, degradation: Degradation | None, samples: int, are_quantiles: bool
) -> str | None:
    if SAMPLES in metric.needs and samples < 2:
        return "it judges several restorations of an image; set task.samples=8 with task=evaluate."
    if IMAGES in metric.needs and are_quantiles:
        return "it judges frequencies, and quantiles of pixels do not say how neighbours go together."
    if "hr" in metric.needs and not has_hr:
        return "it compares with the HR image and this data set has none."
    if "degradation" in metric.needs and degradation is None:
        return "it needs the operator that made the LR images, and this data set has LR images of its own."
    if bands > 3 and max(config.rgb_bands) >= bands:
        return f"metrics.rgb_bands={list(config.rgb_bands)} but the images have {bands} bands; choose indices below {bands}."
    if "rgb" in metric.needs and bands == 2:
        return "it sees one band or three and the images have 2."
    return None
