"""Values over a set of images: means, spreads, counts, and the difference from a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsdiff.degradations.base import RecordValue
from rsdiff.metrics.metric import Metric
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.psnr import pooled_psnr


@dataclass(frozen=True)
class Unavailable:
    """A metric that was asked for and could not be computed, with a sentence that says why and what to do."""

    name: str
    title: str
    reason: str


@dataclass(frozen=True)
class MetricSummary:
    """A metric over a set.

    mean      over the finite values; NaN if there is none
    std       sample standard deviation over the images (not of the mean); NaN for fewer than two images and for values of a set
    count     finite values in the mean; for a value of a set, its images
    infinite  images equal to their reference (PSNR), which the mean leaves out
    baseline  mean of the baseline over the same images, or None
    hr        mean of the reference itself, or None
    """

    metric: Metric
    mean: float
    std: float
    count: int
    infinite: int = 0
    baseline: float | None = None
    hr: float | None = None

    @property
    def difference(self) -> float | None:
        """Method minus baseline."""
        return None if self.baseline is None else self.mean - self.baseline

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
        """Sentences on values that few images make."""
        return tuple(
            f"{entry.metric.title} of {entry.count} images says little, it takes {entry.metric.enough}; compare it with values of the same "
            "images alone."
            for entry in self.metrics
            if entry.count < entry.metric.enough and not math.isnan(entry.mean)
        )

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
    def finite(column: str) -> list[float]:
        return [value for row in rows if column in row and math.isfinite(value := float(row[column]))]

    def mean(values: Sequence[float]) -> float:
        if not values:
            return math.nan
        if metric.name == "psnr" and protocol.average == "pooled_error":
            return pooled_psnr(values)
        return math.fsum(values) / len(values)

    values = finite(metric.name)
    compared, hr = finite(f"{baseline}_{metric.name}"), finite(f"hr_{metric.name}")
    return MetricSummary(
        metric=metric,
        mean=mean(values),
        std=math.sqrt(math.fsum((v - math.fsum(values) / len(values)) ** 2 for v in values) / (len(values) - 1))
        if len(values) > 1
        else math.nan,
        count=len(values),
        infinite=sum(math.isinf(float(row[metric.name])) for row in rows if metric.name in row),
        baseline=mean(compared) if compared else None,
        hr=mean(hr) if hr else None,
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
