"""The evaluator: rows do not depend on the batch, missing things are said at the start, values of a set survive processes and kills."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.degradations import GaussianDegradationConfig, PairedConfig, degrade
from rsdiff.metrics import METRICS, MetricsConfig, ProtocolConfig
from rsdiff.metrics.baseline import Baseline
from rsdiff.metrics.features import FeatureStore
from rsdiff.metrics.metric import Metric, SetScore
from rsdiff.metrics.summary import Summary, summarise
from rsdiff.reporting.tables import markdown_table

PLAIN = ("psnr", "ssim", "mse", "cpsnr", "ergas", "ag", "entropy", "lr_psnr", "lr_l1")


def scenes(count: int, bands: int = 3, side: int = 48, mask: bool = False) -> list[Sample]:
    degradation = GaussianDegradationConfig(noise=5.0).build()
    samples = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        valid = None
        if mask:
            valid = torch.ones(1, side, side)
            valid[:, : 4 * index] = 0
        samples.append(
            Sample(
                meta=SampleMeta(f"scene{index}", index, labels=(("class", "port"),)),
                hr=torch.rand(bands, side, side, generator=generator),
                lr_size=(side // 4, side // 4),
                valid=valid,
                decisions=degradation.draw(generator, (bands, side, side), (side // 4, side // 4)),
            )
        )
    return samples


def degraded(samples: list[Sample]) -> Batch:
    return degrade(collate(samples), GaussianDegradationConfig(noise=5.0).build())


def restored(batch: Batch) -> torch.Tensor:
    return (batch.need("hr") * 0.9 + 0.03).clamp(0, 1)


@pytest.mark.parametrize("bands", [1, 3, 4, 12])
@pytest.mark.parametrize("mask", [False, True])
def test_rows_do_not_depend_on_the_batch_they_came_in(bands: int, mask: bool) -> None:
    samples = scenes(3, bands, mask=mask)
    evaluator = MetricsConfig(metrics=PLAIN).build(bands, True, GaussianDegradationConfig(noise=5.0).build())
    together = degraded(samples)
    rows = evaluator.rows(together, restored(together), 0.5)
    alone = [degraded([sample]) for sample in samples]
    single = [evaluator.rows(batch, restored(batch), [0.5])[0] for batch in alone]
    for first, second in zip(rows, single, strict=True):
        assert first.keys() == second.keys()
        numbers = {column: value for column, value in first.items() if not isinstance(value, str)}
        assert numbers == pytest.approx({column: second[column] for column in numbers}, rel=1e-5)


def test_a_row_holds_the_image_its_degradation_the_method_and_bicubic() -> None:
    evaluator = MetricsConfig(metrics=("psnr", "ag")).build(3, True, GaussianDegradationConfig(noise=5.0).build())
    batch = degraded(scenes(1))
    (row,) = evaluator.rows(batch, restored(batch), 0.25)
    assert row["name"] == "scene0"
    assert row["class"] == "port"
    assert row["noise"] == 5.0
    assert row["seconds"] == 0.25
    assert {"psnr", "bicubic_psnr", "ag", "bicubic_ag", "hr_ag"} <= row.keys()
    assert "hr_psnr" not in row


def test_another_baseline_takes_the_place_of_bicubic_in_rows_and_summary() -> None:
    thirds = Baseline("linear", lambda lr, size: lr.mean(0, keepdim=True).expand(5, *size), any_bands=True)
    evaluator = MetricsConfig(metrics=("psnr",)).build(5, baseline=thirds)
    hr, size = torch.rand(1, 5, 8, 8), (8, 8)
    batch = Batch(metas=[SampleMeta("scene")], size=size, lr_size=size, hr=hr, lr=hr[:, :2])
    rows = evaluator.rows(batch, hr * 0.9, 0)
    assert "bicubic_psnr" not in rows[0]
    summary = evaluator.summary(rows)
    assert summary.baseline == "linear"
    assert summary.metrics[0].baseline == rows[0]["linear_psnr"]
    assert "linear_psnr" not in replace(MetricsConfig(metrics=("psnr",)), baseline=False).build(5, baseline=thirds).rows(batch, hr, 0)[0]
    assert "bicubic_psnr" not in MetricsConfig(metrics=("psnr",)).build(5).rows(batch, hr, 0)[0]


def test_the_reference_itself_reaches_the_ceiling_of_its_noise_in_lr_psnr() -> None:
    evaluator = MetricsConfig(metrics=("lr_psnr",)).build(3, True, GaussianDegradationConfig(noise=5.0).build())
    batch = degraded(scenes(1, side=96))
    (row,) = evaluator.rows(batch, restored(batch), 0)
    assert float(row["hr_lr_psnr"]) == pytest.approx(20 * math.log10(255 / 5), abs=0.5)


def test_data_without_hr_lose_only_the_metrics_that_compare_with_it() -> None:
    evaluator = MetricsConfig(metrics=("psnr", "lr_psnr", "ag")).build(3, False, PairedConfig().build())
    assert [entry.name for entry in evaluator.unavailable] == ["psnr", "lr_psnr"]
    assert "HR" in evaluator.check()[0]
    lr = torch.rand(1, 3, 12, 12)
    batch = Batch(metas=[SampleMeta("scene")], size=(48, 48), lr_size=(12, 12), lr=lr)
    (row,) = evaluator.rows(batch, torch.rand(1, 3, 48, 48), 0)
    assert {"ag", "bicubic_ag"} <= row.keys()
    assert evaluator.summary([row]).images == 1


def test_missing_weights_are_named_with_the_places_searched_and_the_run_goes_on(tmp_path: Path) -> None:
    config = MetricsConfig(metrics=("psnr", "lpips_alex", "dists", "fid", "niqe"), weight_folders=(str(tmp_path),))
    evaluator = config.build(3)
    missing = {entry.name: entry.reason for entry in evaluator.unavailable}
    for name in missing:
        assert str(tmp_path) in missing[name]
        assert METRICS[name].files[0] in missing[name]
    batch = degraded(scenes(1))
    summary = evaluator.summary(evaluator.rows(batch, restored(batch), 0))
    assert "psnr" in {entry.metric.name for entry in summary.metrics}
    assert {entry.name for entry in summary.unavailable} >= missing.keys()


def test_a_metric_that_refuses_an_image_costs_no_other_and_is_explained() -> None:
    evaluator = MetricsConfig(metrics=("psnr", "ssim")).build(3)
    batch = degraded(scenes(1, side=16))
    (row,) = evaluator.rows(batch, restored(batch), 0)
    assert math.isnan(float(row["ssim"]))
    assert math.isfinite(float(row["psnr"]))
    (entry,) = evaluator.summary([row]).unavailable
    assert "11x11" in entry.reason


def test_metrics_of_a_set_are_the_same_in_memory_and_from_files_of_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean = Metric(
        "set_mean",
        "mean",
        "difference of the means",
        build_set=lambda context: SetScore(
            lambda view: view.image.mean((1, 2))[None], lambda x, y: float((x.mean() - y.mean()).abs()) if y is not None else 0
        ),
        on_hr=True,
    )
    monkeypatch.setitem(METRICS, "set_mean", mean)
    samples, config = scenes(5), MetricsConfig(metrics=("psnr", "set_mean"))
    alone = config.build(3)
    batches = [degraded([sample]) for sample in samples]
    rows = [row for batch in batches for row in alone.rows(batch, restored(batch), 0)]
    expected = alone.summary(rows)
    first, second = config.build(3), config.build(3)
    for evaluator in (first, second):
        evaluator.keep_features_in(tmp_path)
    for index, batch in enumerate(batches):
        (first, second)[index % 2].rows(batch, restored(batch), 0)
    shared = first.summary(rows)
    for ours, theirs in zip(shared.metrics, expected.metrics, strict=True):
        assert ours.mean == theirs.mean
        assert ours.baseline == theirs.baseline
        assert ours.hr == theirs.hr
    assert shared.metrics[1].hr is not None


def test_features_of_a_missing_image_give_no_value_of_the_set(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.add("folder/a", {"fid": torch.zeros(2, 4)})
    assert store.stacked("fid", ["folder/a", "folder/b"]) is None
    kept = store.stacked("fid", ["folder/a"])
    assert kept is not None
    assert kept.shape == (2, 4)


def test_padding_duplicates_count_once_and_infinite_values_are_reported_apart() -> None:
    rows = [{"name": "a", "psnr": 30.0}, {"name": "a", "psnr": 30.0}, {"name": "b", "psnr": 20.0}, {"name": "c", "psnr": math.inf}]
    (entry,) = summarise(rows, [METRICS["psnr"]], ProtocolConfig()).metrics
    assert (entry.mean, entry.count, entry.infinite) == (25.0, 2, 1)
    assert entry.std == pytest.approx(math.sqrt(50))


def test_the_average_follows_the_protocol() -> None:
    rows = [{"name": "a", "psnr": 40.0}, {"name": "b", "psnr": 20.0}]
    (entry,) = summarise(rows, [METRICS["psnr"]], ProtocolConfig(average="pooled_error")).metrics
    assert entry.mean == pytest.approx(-10 * math.log10((1e-4 + 1e-2) / 2))


@pytest.mark.parametrize(
    ("metric", "method", "bicubic", "is_better"), [("psnr", 30.0, 29.0, True), ("mse", 30.0, 29.0, False), ("ag", 3.0, 2.0, None)]
)
def test_better_depends_on_the_direction_of_the_metric(metric: str, method: float, bicubic: float, is_better: bool | None) -> None:
    rows = [{"name": "a", metric: method, f"bicubic_{metric}": bicubic}]
    (entry,) = summarise(rows, [METRICS[metric]], ProtocolConfig()).metrics
    assert entry.is_better is is_better


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean psnr"):
        config_from_mapping(MetricsConfig, {"metrics": ["pnsr"]}, "metrics")


def test_protocol_changes_the_value() -> None:
    batch = degraded(scenes(1))
    values = set()
    for protocol in (ProtocolConfig(), ProtocolConfig(space="y_studio"), ProtocolConfig(border="none"), ProtocolConfig(quantise="none")):
        (row,) = replace(MetricsConfig(metrics=("psnr",)), protocol=protocol).build(3).rows(batch, restored(batch), 0)
        values.add(row["psnr"])
    assert len(values) == 4


def test_a_distance_between_sets_of_few_images_carries_a_caution() -> None:
    def summary_of(images: int) -> Summary:
        rows = [{"name": str(index)} for index in range(images)]
        return summarise(rows, [METRICS["fid"], METRICS["kid"]], ProtocolConfig(), of_set={"fid": {"": 31.0}, "kid": {"": 0.1}})

    few = summary_of(12)
    assert few.cautions[0].startswith("FID of 12 images says little")
    assert len(few.cautions) == 2
    assert few.cautions[0] in markdown_table(few)
    assert not summary_of(2048).cautions


@pytest.mark.parametrize("name", ["missing values", "nothing"])
def test_what_stands_in_missing_values_changes_no_metric(name: str) -> None:
    """Every metric without a file, of an image with holes of their own in every band; a mask of ones changes none beyond rounding."""
    metrics = tuple(name for name, metric in METRICS.items() if not metric.files and not metric.of_set)
    evaluator = MetricsConfig(metrics=metrics).build(3, True, GaussianDegradationConfig(noise=5.0).build())
    found = []
    for rubbish in (math.nan, 30.0):
        (sample,) = scenes(1, 3, side=96)
        assert sample.hr is not None
        valid = torch.ones(3, 96, 96)
        if name == "missing values":
            for band in range(3):
                valid[band, 20 * band : 20 * band + 4, 5:12] = 0
        hr = torch.where(valid > 0, sample.hr, torch.tensor(rubbish))
        batch = degraded([replace(sample, hr=hr, valid=valid)])
        assert batch.valid is not None
        image = torch.where(batch.valid > 0, restored(batch), torch.tensor(rubbish))
        found.append(evaluator.rows(batch, image, 0.0)[0])
    assert found[0].keys() == found[1].keys()
    for column, value in found[0].items():
        assert value == found[1][column] or (math.isnan(float(value)) and math.isnan(float(found[1][column]))), column
    if name == "nothing":
        plain = evaluator.rows(degraded(scenes(1, 3, side=96)), restored(degraded(scenes(1, 3, side=96))), 0.0)[0]
        for column, value in plain.items():
            assert value == found[0][column] or float(found[0][column]) == pytest.approx(float(value), rel=1e-6, nan_ok=True), column
