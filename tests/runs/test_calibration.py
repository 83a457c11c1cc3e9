"""task=calibrate, and what evaluations and restorations then say, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

import rsdiff
from rsdiff.config import UserError
from rsdiff.metrics.calibration import Calibration
from rsdiff.reporting.records import read_records
from tests.conftest import Command
from tests.scene_methods import landscape, write_raster

DATA = ("dataset=synthetic", "dataset.size=32", "dataset.train_images=8", "dataset.test_images=26", "scale=2")
SMALL = (
    *DATA,
    "trainer.steps=1",
    "trainer.batch=1",
    "trainer.patch=32",
    "metrics.metrics=[psnr]",
    "metrics.panels=0",
    "trainer.workers=0",
    "trainer.validation_images=1",
)


def the(pattern: str) -> Path:
    (found,) = Path("outputs").glob(pattern)
    return found


@pytest.mark.parametrize("model", ["rrdb_tiny", pytest.param("sr3_tiny", marks=pytest.mark.slow)])
def test_intervals_are_calibrated_stored_with_the_checkpoint_and_used(run_command: Command, tmp_path: Path, model: str) -> None:
    few = [] if model == "rrdb_tiny" else ["sampler.steps=2"]
    ended = run_command(f"model={model}", *SMALL, *few)
    assert ended.code == 0, ended.err
    run = the("train/*/*")
    words = [f"checkpoint={run}", "task.samples=3"]
    before = run_command("task=evaluate", *words)
    assert before.code == 0, before.err
    assert "not calibrated" in before.out
    first = the("evaluate/*/*")

    ended = run_command("task=calibrate", *words)
    assert ended.code == 0, ended.err
    assert "over 13 images that they were not fitted on" in ended.out
    assert "Intervals of 0.9 reach about as far as the largest error of 10 images" in ended.out
    kept = sorted(run.glob("checkpoints/*/calibration-*.json"))
    assert len(kept) == 1
    calibration = Calibration.from_json(json.loads(kept[0].read_text())["calibration"])
    assert (the("calibrate/*/*") / "reliability.svg").read_text().startswith("<svg")

    after = run_command("task=evaluate", *words)  # another result, so another run
    assert after.code == 0, after.err
    assert "calibrated on 13 images" in after.out
    (second,) = set(Path("outputs").glob("evaluate/*/*")) - {first}
    records = read_records(second / "evaluation")
    assert records["coverage"].notna().sum() == 13
    assert records["crps"].notna().sum() == 26
    assert 0.75 < records["coverage"].mean() <= 1
    np.testing.assert_array_equal(records["psnr"], read_records(first / "evaluation")["psnr"])  # the first sample is that without
    assert "| octave of frequency |" in (second / "results.md").read_text()
    assert "Reliability of the intervals" in (second / "report.html").read_text()

    scene = write_raster(tmp_path / "scene.tif", landscape(3, 24, 30))
    ended = run_command("task=restore", *words, f"input={scene}", "output=sr.tif", "task.preview=false")
    assert ended.code == 0, ended.err
    with rasterio.open("sr_spread.tif") as spread, rasterio.open("sr_interval.tif") as half:
        assert half.tags()["RSDIFF_LEVEL"] == "0.9"
        expected = calibration.reach(0.9) * calibration.deviation(spread.read().astype(np.float64), 255.0)
        np.testing.assert_allclose(half.read(), expected, rtol=1e-5)
        assert spread.read().max() > 0
    refused = run_command("task=restore", *words, f"input={scene}", "output=b.tif", "task.level=0.95")
    assert refused.code == 1
    assert "level=0.95 was not calibrated; choose among" in refused.err
    refused = run_command("task=restore", f"checkpoint={run}", "task.samples=4", f"input={scene}", "output=b.tif", "task.level=0.5")
    assert "there is no calibration of 4 samples" in refused.err
    trained = rsdiff.load(run)
    image = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    mean, spread, width = trained.restore(image, samples=3, level=0.9)
    assert mean.shape == (48, 60, 3)
    np.testing.assert_allclose(width, calibration.reach(0.9) * calibration.deviation(spread.astype(np.float64), 255.0), rtol=1e-5)
    for wrong in ({"level": 0.9}, {"samples": 3, "calibration": "none"}, {"samples": 4, "level": 0.9}):
        with pytest.raises(UserError, match=r"give level=0\.9 and samples=8|no calibration of 4 samples"):
            trained.restore(image, **wrong)
    if model == "rrdb_tiny":
        refused = run_command("task=evaluate", f"checkpoint={run}", "task.samples=9")
        assert refused.code == 1
        assert "choose task.samples=8 or fewer" in refused.err
        refused = run_command("task=calibrate", f"checkpoint={run}", "task.share=0.2")
        assert "5 of 26 images would be calibrated on and 12 are needed; raise task.share" in refused.err


def test_checkpoints_of_several_seeds_give_samples(run_command: Command, tmp_path: Path) -> None:
    runs: list[Path] = []
    for seed in range(2):
        ended = run_command("model=lte_tiny", *SMALL, "dataset.test_images=3", "metrics.baseline=false", f"seed={seed}")
        assert ended.code == 0, ended.err
        runs += set(Path("outputs").glob("train/*/*")) - set(runs)
    first, second = runs
    words = [f"checkpoint={first}", f"task.ensemble=[{second},{first}]"]  # that of the run itself does not count twice
    refused = run_command("task=evaluate", words[0], f"task.ensemble=[{second}]")
    assert "ensemble names 1 checkpoint and samples=1 was given; set task.samples=2" in refused.err

    ended = run_command("task=evaluate", *words, "task.samples=2", "metrics.metrics=[mse]")
    assert ended.code == 0, ended.err
    assert f"ensemble {second.name}/checkpoints" in ended.out
    assert (read_records(the("evaluate/*/*") / "evaluation")["spread"] > 0).all()
    again = run_command("task=evaluate", words[0], f"task.ensemble=[{second.resolve()}]", "task.samples=2", "metrics.metrics=[mse]")
    assert len(list(Path("outputs").glob("evaluate/*/*"))) == 1, again.out  # wherever the checkpoints lie, it is the same run

    scene = write_raster(tmp_path / "scene.tif", landscape(3, 24, 30))
    plain = ("task.dtype=float32", "task.preview=false", "task.tile=16", "task.overlap=4", f"input={scene}")
    for name, more in (("a", words[:1]), ("b", [f"checkpoint={second}"]), ("both", [*words, "task.samples=2"])):
        ended = run_command("task=restore", *more, *plain, f"output={name}.tif")
        assert ended.code == 0, ended.err
    images = {}
    for name in ("a", "b", "both", "both_spread"):
        with rasterio.open(f"{name}.tif") as file:
            images[name] = file.read().astype(np.float64)
    np.testing.assert_allclose(images["both"], (images["a"] + images["b"]) / 2, atol=1e-3)
    np.testing.assert_allclose(images["both_spread"], np.abs(images["a"] - images["b"]) / np.sqrt(2), atol=1e-3)
    assert images["both_spread"].max() > 0.01


def test_quantiles_of_a_trained_regression_give_samples_and_leave_its_image_as_it_is(run_command: Command, tmp_path: Path) -> None:
    ended = run_command("model=rrdb_quick", *SMALL, "metrics.baseline=false")
    assert ended.code == 0, ended.err
    first = the("train/*/*")
    ended = run_command("model=residual_quantiles_quick", *SMALL, "metrics.baseline=false")  # finds the regression by itself
    assert ended.code == 0, ended.err
    (second,) = set(Path("outputs").glob("train/*/*")) - {first}
    same = [read_records(run / "evaluation")["psnr"] for run in (first, second)]
    np.testing.assert_array_equal(*same)

    words = [f"checkpoint={second}", "task.samples=4"]
    ended = run_command("task=calibrate", *words)
    assert ended.code == 0, ended.err
    assert "over 13 images that they were not fitted on" in ended.out
    ended = run_command("task=evaluate", *words, "dataset.test_images=2", "metrics.metrics=[mse]")
    assert ended.code == 0, ended.err
    assert "octave" not in (the("evaluate/*/*") / "results.md").read_text()

    image = np.random.default_rng(0).integers(60, 190, (24, 30, 3), dtype=np.uint8)
    plain, trained = rsdiff.load(first).restore(image, dtype="float32"), rsdiff.load(second)
    np.testing.assert_array_equal(trained.restore(image, dtype="float32"), plain)
    _, spread, width = trained.restore(image, samples=4, level=0.9, tile=16, overlap=4)
    assert (spread > 0).all()
    assert (width > 0).all()
    refused = run_command("task=evaluate", f"checkpoint={second}", f"task.ensemble=[{first}]", "task.samples=2")
    assert "task.ensemble names models that predict quantiles and others that do not" in refused.err


def test_quantiles_of_a_regression_of_every_scale_are_calibrated_at_any(run_command: Command) -> None:
    words = ("model=residual_quantiles_tiny", "checkpoint=zoo:any_scale", *SMALL[:-1], "trainer.scale_range=[1.5,3]", "trainer.patch=30")
    ended = run_command(*words, "trainer.validation_images=0", "metrics.baseline=false")
    assert ended.code == 0, ended.err
    trained = the("train/*/*")
    ended = run_command("task=calibrate", f"checkpoint={trained}", "task.samples=2", "scale=2.5")
    assert ended.code == 0, ended.err
    assert "was trained at" not in ended.out
    ended = run_command(*words, "trainer.validation_images=0", "metrics.baseline=false", "model.network=hat")
    assert "model.network has no effect with model.regression=" in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ("task=restore", "task.level=0.5"),
        ("task=restore", "task.calibration=RUN"),
        ("task=evaluate", "task.calibration=RUN"),
        ("task=restore", "task.gain=0.5"),
        ("task=restore", "task.offset=0.5"),
        ("task=restore", "task.percentiles=[1,99]"),
    ],
    ids=" ".join,
)
def test_options_of_intervals_and_ranges_are_refused_where_they_have_no_effect(run_command: Command, words: tuple[str, str]) -> None:
    ended = run_command(*words, "model=bicubic", *(["input=a.tif", "output=b.tif"] if "restore" in words[0] else ["dataset=synthetic"]))
    assert ended.code != 0
    assert f"{words[1].partition('=')[0]} has no effect with task." in ended.err
