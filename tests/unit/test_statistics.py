"""Paired differences and their uncertainty, against SciPy and against what is known of the data."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rsdiff.downstream.tables import differences
from rsdiff.metrics import METRICS
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.statistics import bootstrap_interval, holm, paired_difference, rank_intervals, two_way_interval
from rsdiff.metrics.summary import Summary, summarise
from rsdiff.reporting.comparison import comparison
from rsdiff.reporting.tables import cells_of, markdown_table

DRAWN = np.random.default_rng(1)


def summary_of(own: list[float], compared: list[float], metric: str = "psnr") -> Summary:
    rows = [{"name": str(i), metric: a, f"bicubic_{metric}": b} for i, (a, b) in enumerate(zip(own, compared, strict=True))]
    return summarise(rows, [METRICS[metric]], ProtocolConfig())


def test_means_and_differences_are_over_the_images_where_both_are_finite() -> None:
    summary = summary_of([25.0, 58.0, math.nan], [24.9, math.inf, 20.0])
    (entry,) = summary.metrics
    assert (entry.mean, entry.baseline, entry.count) == (25.0, 24.9, 1)
    assert entry.difference == pytest.approx(0.1)
    assert (entry.infinite, entry.infinite_baseline, entry.missing) == (0, 1, 1)
    assert "0 images are infinite and 1 of bicubic, 1 have no value; the means are over the other 1 images" in markdown_table(summary)
    json.dumps(summary.as_dict(), allow_nan=False)
    alone = summarise([{"name": "a", "psnr": math.inf}, {"name": "b", "psnr": 30.0}], [METRICS["psnr"]], ProtocolConfig())
    assert "PSNR: 1 images are infinite; the means are over the other 1 images" in markdown_table(alone)


def test_paired_statistics_equal_scipys() -> None:
    first, second = DRAWN.normal(25, 2, 40), DRAWN.normal(24.5, 2, 40)
    found = paired_difference(first.tolist(), second.tolist())
    gaps = first - second
    assert found.count == 40
    assert found.mean == pytest.approx(gaps.mean())
    assert found.error == pytest.approx(stats.sem(gaps))
    assert found.median == pytest.approx(np.median(gaps))
    assert found.p == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert found.better == pytest.approx((gaps > 0).mean())
    assert paired_difference(first.tolist(), second.tolist(), False).better == pytest.approx((gaps < 0).mean())
    expected = stats.bootstrap((gaps,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(3)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.08)


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = sum(low <= 1 <= high for low, high in (bootstrap_interval(DRAWN.normal(1, 1, 50), resamples=400) for _ in range(400)))
    assert 0.90 < held / 400 < 0.98


def test_few_or_equal_images_have_no_test() -> None:
    assert math.isnan(paired_difference([1.0] * 5, [0.0] * 5).p)
    same = paired_difference([1.0] * 9, [1.0] * 9)
    assert math.isnan(same.p)
    assert same.better == 0.5
    assert same.is_significant is None
    assert paired_difference([math.inf], [1.0]).count == 0


def test_chance_is_marked_in_the_table_and_more_than_chance_is_not() -> None:
    noise = DRAWN.normal(0, 1, 30)
    doubtful, certain = (summary_of((25 + noise).tolist(), other.tolist()) for other in (25 + noise[::-1], 24 + noise))
    by_chance, clear = doubtful.metrics[0], certain.metrics[0]
    assert by_chance.is_significant is False
    assert cells_of(by_chance)[5].endswith("n.s.")
    assert cells_of(clear)[5] == "+1.00 ±0.00"
    assert cells_of(clear)[6] == "100%"
    compared = [{"name": str(i), "psnr": value, "bicubic_psnr": 24.0} for i, value in enumerate(25 + noise)]
    of_tools = [comparison([METRICS["psnr"]], {"a": compared, "b": other}, "tool") for other in (shuffled(compared), shifted(compared))]
    of_inputs = [
        "\n".join(differences([{"SR_iou": a, "bicubic_iou": b} for a, b in zip(noise, other, strict=True)], ("iou",)))
        for other in (noise[::-1], noise - 1)
    ]
    for with_mark, without in ((markdown_table(doubtful), markdown_table(certain)), of_tools, of_inputs):
        assert (with_mark.count("n.s."), with_mark.count("n.s.: a Wilcoxon test")) == (2, 1)  # in the table, and below it what that means
        assert "n.s." not in without


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "psnr": other["psnr"]} for row, other in zip(rows, reversed(rows), strict=True)]


def shifted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "psnr": row["psnr"] - 1} for row in rows]


def test_holm_corrects_for_the_number_of_comparisons() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert corrected["a"] == pytest.approx(0.03)
    assert corrected["c"] == pytest.approx(0.06)
    assert corrected["b"] == pytest.approx(0.06)  # never below a smaller one
    assert math.isnan(corrected["d"])


def test_seeds_widen_the_interval_of_a_mean() -> None:
    images = DRAWN.normal(25, 0.02, (1, 60))
    by_seed = images + DRAWN.normal(0, 0.5, (6, 1))
    low, high = two_way_interval(by_seed)
    narrow = bootstrap_interval(by_seed.mean(axis=0))
    assert high - low > 5 * (narrow[1] - narrow[0])
    assert math.isnan(two_way_interval(images)[0])


def test_ranks_are_as_stable_as_the_scores() -> None:
    base = DRAWN.normal(25, 1, 50)
    scores = {"good": base + 2, "tied": base + DRAWN.normal(0, 1, 50), "also": base + DRAWN.normal(0, 1, 50)}
    found = rank_intervals(scores)
    assert found["good"] == (1, 1)
    assert found["tied"] == found["also"] == (2, 3)
    assert rank_intervals(scores, higher_is_better=False)["good"] == (3, 3)
