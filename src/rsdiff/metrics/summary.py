"""Values over a set of images: means, spreads, counts, and the paired difference from a baseline, over the same images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsdiff.degradations.base import RecordValue
from rsdiff.metrics.metric import Metric
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.psnr import pooled_psnr
from rsdiff.metrics.statistics import PairedDifference, both_finite, paired_difference

LEFT_OUT = "_bands_left_out"
"""How the column of a row ends that counts the bands a metric could not use."""
VALID_SHARE = "valid_share"
"""Column with the share of an image's values that count, where some do not."""


@dataclass(frozen=True)
class Unavailable:
    """A metric that was asked for and could not be computed, with a sentence that says why and what to do.

    lacks_weights  whether a file of weights that it needs is nowhere
    """

    name: str
    title: str
    reason: str
    lacks_weights: bool = False


@dataclass(frozen=True)
class MetricSummary:
    """A metric over a set.

    mean      over the images where method and baseline are finite; NaN if there is none
    std       sample standard deviation over those images (not of the mean); NaN for fewer than two images and for values of a set
    count     those images; for a value of a set, its images
    infinite  images equal to their reference (PSNR), which the mean leaves out
    baseline  mean of the baseline over the same images, or None
    hr        mean of the reference itself, or None
    median    of the method over the same images
    missing   images without a value (too small for the metric, nothing valid)
    infinite_baseline  images on which the baseline equals the reference, which both means leave out
    paired    statistics of method minus baseline, image by image; None without a baseline and for values of a set
    left_out  bands, summed over the images, that the metric could not use
    """

    metric: Metric
    mean: float
    std: float
    count: int
    infinite: int = 0
    baseline: float | None = None
    hr: float | None = None
    median: float = math.nan
    missing: int = 0
    infinite_baseline: int = 0
    paired: PairedDifference | None = None
    left_out: int = 0

    @property
    def difference(self) -> float | None:
        """Method minus baseline, over the same images."""
        return None if self.baseline is None else self.mean - self.baseline

    @property
    def is_significant(self) -> bool | None:
        """Whether the difference is more than chance over images; None where there is no test."""
        return None if self.paired is None else self.paired.is_significant

    @property
    def is_better(self) -> bool | None:
        """Whether the method is better than the baseline; None where that cannot be said."""
        difference = self.difference
        if difference is None or math.isnan(difference) or difference == 0 or self.metric.direction == "none":
            return None
        return (difference > 0) == (self.metric.direction == "higher")


@dataclass(frozen=True)
class Summary:
    """All metrics over a set, with what is needed to compare them with another table.

    baseline  name of what stands beside the method, as its columns begin
    """

    protocol: str
    images: int
    seconds_per_image: float
    metrics: tuple[MetricSummary, ...]
    unavailable: tuple[Unavailable, ...] = ()
    weight_hashes: tuple[tuple[str, str], ...] = ()
    baseline: str = "bicubic"

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on values that few images make, and on what means leave out."""
        few = tuple(
            f"{entry.metric.title} of {entry.count} images says little, it takes {entry.metric.enough}; compare it with values of the same "
            "images alone."
            for entry in self.metrics
            if entry.count < entry.metric.enough and not math.isnan(entry.mean)
        )
        return (*few, *(said for entry in self.metrics if (said := self._left_out(entry))))

    def _left_out(self, entry: MetricSummary) -> str:
        """Return a sentence on the images and bands that a metric's means do without, or ''."""
        title, parts = entry.metric.title, []
        if entry.infinite or entry.infinite_baseline:
            of_baseline = f" and {entry.infinite_baseline} of {self.baseline}" if entry.baseline is not None else ""
            parts.append(f"{entry.infinite} images are infinite{of_baseline}")
        if entry.missing:
            parts.append(f"{entry.missing} have no value")
        said = f"{title}: {', '.join(parts)}; the means are over the other {entry.count} images." if parts else ""
        if entry.left_out:
            said += f"{' ' if said else f'{title}: '}{entry.left_out} bands without any signal in the reference are left out."
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; NaN and infinity become None."""

        def plain(value: float | None) -> float | None:
            return None if value is None or not math.isfinite(value) else value

        return {
            "protocol": self.protocol,
            "images": self.images,
            "seconds_per_image": plain(self.seconds_per_image),
            "metrics": {
                entry.metric.name: {
                    "mean": plain(entry.mean),
                    "std": plain(entry.std),
                    "count": entry.count,
                    "infinite": entry.infinite,
                    self.baseline: plain(entry.baseline),
                    "difference": plain(entry.difference),
                    "hr": plain(entry.hr),
                    "median": plain(entry.median),
                    "missing": entry.missing,
                    "paired": None if entry.paired is None else entry.paired.as_dict(),
                    "unit": entry.metric.unit,
                    "direction": entry.metric.direction,
                }
                for entry in self.metrics
            },
            "cautions": list(self.cautions),
            "unavailable": {entry.name: entry.reason for entry in self.unavailable},
            "weight_hashes": dict(self.weight_hashes),
        }


def summarise(
    rows: Sequence[Mapping[str, RecordValue]],
    metrics: Sequence[Metric],
    protocol: ProtocolConfig,
    unavailable: Sequence[Unavailable] = (),
    weight_hashes: Mapping[str, str] | None = None,
    of_set: Mapping[str, Mapping[str, float]] | None = None,
    baseline: str = "bicubic",
) -> Summary:
    """Summarise rows that were gathered from all processes.

    of_set    values of set metrics by column prefix: {'fid': {'': 31.2, 'bicubic_': 80.3, 'hr_': 12.0}}
    baseline  with which the columns of the baseline begin
    Several rows of one name (the padding of a distributed loader's last batch) count once.
    """
    unique = {str(row["name"]): row for row in rows}
    kept = list(unique.values())
    seconds = [float(row["seconds"]) for row in kept if "seconds" in row]
    entries = [
        _of_set(metric, (of_set or {}).get(metric.name, {}), len(kept), baseline)
        if metric.of_set
        else _of_images(metric, kept, protocol, baseline)
        for metric in metrics
    ]
    return Summary(
        protocol=protocol.describe(),
        images=len(kept),
        seconds_per_image=sum(seconds) / len(seconds) if seconds else math.nan,
        metrics=tuple(entries),
        unavailable=tuple(unavailable),
        weight_hashes=tuple(sorted((weight_hashes or {}).items())),
        baseline=baseline,
    )


def _of_images(metric: Metric, rows: Sequence[Mapping[str, RecordValue]], protocol: ProtocolConfig, baseline: str) -> MetricSummary:
    def column(name: str) -> list[float]:
        return [float(row[name]) if name in row else math.nan for row in rows]

    def mean(values: Sequence[float]) -> float:
        if not len(values):
            return math.nan
        if metric.name == "psnr" and protocol.average == "pooled_error":
            return pooled_psnr(values)
        return math.fsum(values) / len(values)

    own, compared = column(metric.name), column(f"{baseline}_{metric.name}")
    hr = [value for value in column(f"hr_{metric.name}") if math.isfinite(value)]
    has_baseline = any(math.isfinite(value) or math.isinf(value) for value in compared)
    values, other = (found.tolist() for found in both_finite(own, compared if has_baseline else own))
    higher = None if metric.direction == "none" else metric.direction == "higher"
    return MetricSummary(
        metric=metric,
        mean=mean(values),
        std=statistics.stdev(values) if len(values) > 1 else math.nan,
        count=len(values),
        infinite=sum(map(math.isinf, own)),
        baseline=mean(other) if has_baseline else None,
        hr=mean(hr) if hr else None,
        median=statistics.median(values) if values else math.nan,
        missing=sum(map(math.isnan, own)),
        infinite_baseline=sum(map(math.isinf, compared)),
        paired=paired_difference(own, compared, higher) if has_baseline else None,
        left_out=sum(int(row.get(metric.name + LEFT_OUT, 0)) for row in rows),
    )


def _of_set(metric: Metric, values: Mapping[str, float], images: int, baseline: str) -> MetricSummary:
    return MetricSummary(
        metric=metric,
        mean=values.get("", math.nan),
        std=math.nan,
        count=images,
        baseline=values.get(f"{baseline}_"),
        hr=values.get("hr_"),
    )
