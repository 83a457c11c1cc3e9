"""task=tables as a user types it: what is shipped can be planned, a killed table goes on where it stopped, and nothing is done twice."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hydra import compose

from rsdiff.app.command_line import CONFIG_NAME, check_run, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of
from rsdiff.app.options import TablesTask
from rsdiff.app.schemas import register_schemas
from rsdiff.app.table_options import TableConfig, filled
from rsdiff.app.table_plan import cells_of, data_settings
from rsdiff.app.tables import needless_for
from rsdiff.config import ConfigError
from tests.conftest import REPOSITORY
from tests.unit.test_refdiff_data import stand_in, write

CONF = REPOSITORY / "conf"
TABLES = options_of(REPOSITORY / "sweeps" / "tables")
TOY = """
# @package _global_
defaults:
  - override /task: tables
  - _self_
task:
  table:
    title: A toy table
    source: nowhere
    metrics: standard
    shown: [psnr, ssim]
    generated: [dataset=synthetic, dataset.second_date=false, dataset.size=64]
    quick_train: [degradation=aniso, scale=4]
    points:
      - {name: two, evaluate: [degradation=diffbsr_test, scale=4], cases: {iso_width0_noise0: none, aniso_1_4_0deg_noise0: strong},
         published_on: {split: some images, dataset: airs, scale: 4, images: 2, border: 4}}
    rows:
      - {name: Bicubic, model: bicubic, published: {two/iso_width0_noise0: {psnr: 30.0}}}
      - {name: SR3, model: sr3, train: [model=sr3]}
      - {name: To come, model: not_written_yet, train: [model=not_written_yet]}
      - {name: Released, model: rrdb, released: x4.pth, download: curl -o weights/x4.pth ADDRESS}
"""


@pytest.fixture(autouse=True)
def schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped repository with one more table."""
    root = tmp_path / "repository"
    for name in ("conf", "experiments", "sweeps"):
        shutil.copytree(REPOSITORY / name, root / name, symlinks=True)
    (root / "sweeps" / "tables" / "toy.yaml").write_text(TOY)
    shutil.copy(REPOSITORY / "run.py", root)
    return root


def shipped_table(name: str) -> TableConfig:
    task = group_config(compose(CONFIG_NAME, [f"sweeps=tables/{name}"]), "task")
    assert isinstance(task, TablesTask)
    assert task.table is not None
    return task.table


REFERENCED = ("ttsr", "masa_sr", "datsr", "refdiff")


def unevaluable_rows(shipped: TableConfig) -> set[str]:
    """Return the rows of which a point's published data lack the reference, and see that the paper budget does not train them."""
    needs = {row.model: group_config(compose(CONFIG_NAME, [f"model={row.model}"]), "model").requires for row in shipped.rows}
    data = [data_settings([filled(word, point.words) for word in point.evaluate]) for point in shipped.points]
    given = [group_config(compose(CONFIG_NAME, words), "dataset").gives for words in data]
    found = {row.name for row in shipped.rows if any("ref" in needs[row.model] - fields for fields in given)}
    for cell in cells_of(shipped, "paper", 1, list(needs), lambda model: (), lambda settings: None):
        assert (cell.job is None) == bool(cell.row.unevaluable) == (cell.row.name in found), f"{shipped.title}: {cell.row.name}"
    return found


@pytest.mark.slow
def test_the_paper_budget_trains_no_row_that_its_data_cannot_evaluate() -> None:
    """An evaluation would be refused when its training has ended. Rows of models without references are left out here."""
    with composing(CONF):
        found = {}
        for name in TABLES:
            if "model: ttsr" not in (REPOSITORY / "sweeps" / "tables" / f"{name}.yaml").read_text():
                continue  # to compose all of them takes ten seconds
            shipped = shipped_table(name)
            rows = tuple(row for row in shipped.rows if row.model in REFERENCED)
            found[name] = unevaluable_rows(replace(shipped, rows=rows))
    assert {name: rows for name, rows in found.items() if rows} == {"ttrd3": {"TTSR", "MASA"}}
    assert len(found) == 3


@pytest.mark.parametrize("budget", [pytest.param("quick", marks=pytest.mark.slow), "paper"])
def test_every_training_of_every_table_composes(budget: str) -> None:
    """A refusal may name a model or experiment that is not there yet, or a stage that was not trained yet; nothing else."""
    models, needless = options_of(CONF / "model"), cache(needless_for)
    with composing(CONF):
        first = {
            cell.job.chain[0].settings
            for name in TABLES
            for cell in cells_of(shipped_table(name), budget, 1, models, needless, lambda settings: None)  # type: ignore[arg-type]
            if cell.job is not None
        }
        if budget == "quick":  # what differs in the scale alone is composed alike
            first = set({tuple(s for s in settings if not s.startswith("scale=")): settings for settings in first}.values())
        for settings in sorted(first):
            try:
                check_run(settings)
            except ConfigError as refusal:
                assert "experiments=" in str(refusal) or "is required" in str(refusal), (settings, str(refusal))  # noqa: PT017


def type_tables(repository: Path, outputs: Path) -> list[str]:
    return [sys.executable, str(repository / "run.py"), "sweeps=tables/toy", f"outputs={outputs}"]


def figures(outputs: Path) -> dict[tuple[str, str, str], str]:
    rows = csv.DictReader((outputs / "tables" / "toy-quick" / "table.csv").open())
    return {(row["method"], row["setting"], row["metric"]): row["ours"] for row in rows}


@pytest.mark.slow
def test_a_table_that_was_killed_goes_on_and_ends_like_one_that_was_not(repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(type_tables(repository, killed), env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(killed.glob("evaluate/bicubic-*/*/report.html")) and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for outputs in (killed, whole):
        subprocess.run(type_tables(repository, outputs), env=environment, check=True, stdout=subprocess.DEVNULL)
    assert figures(killed) == figures(whole)


def test_a_table_runs_once_and_tells_what_is_missing(repository: Path, run_command, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run_command("sweeps=tables/toy", repository=repository)
    assert ended.code == 0, ended.err
    assert "model=not_written_yet is not part of this version" in ended.out
    assert "4 of 8 cells of 1 table, budget quick" in ended.out
    assert "not run  weights/x4.pth is not there; get it so: curl -o weights/x4.pth ADDRESS" in ended.out
    page = (Path("outputs") / "tables" / "toy-quick" / "table.md").read_text()
    assert "Ours: 2 test images of synthetic, 64 x 64, x4, degradation diffbsr_test; all bands (RGB), border 4 px." in page
    assert "Published: some images" in page
    rows = csv.DictReader((Path("outputs") / "tables" / "toy-quick" / "table.csv").open())
    assert [(row["published"], row["difference"]) for row in rows if row["published"]] == [("30.0", "")], "a difference of a quick budget"
    first = figures(Path("outputs"))
    assert all(
        first[method, f"two/{case}", "psnr"] for method in ("Bicubic", "SR3") for case in ("iso_width0_noise0", "aniso_1_4_0deg_noise0")
    )
    assert first["To come", "two/iso_width0_noise0", "psnr"] == ""
    again = run_command("sweeps=tables/toy", repository=repository)
    assert again.code == 0, again.err
    assert "runs to do" not in again.out
    assert figures(Path("outputs")) == first
    sweeps = sorted(Path("outputs/sweeps").rglob("*.json"))
    shutil.rmtree(next(Path("outputs/evaluate").glob("bicubic-*")))
    with monkeypatch.context() as broken:
        broken.setattr("rsdiff.methods.bicubic.resize", lambda *arguments: 1 / 0)
        failed = run_command("sweeps=tables/toy", repository=repository)
    assert failed.code == 1, failed.out
    assert failed.err.splitlines()[-1] == "error: 1 runs failed, see 'not run' above; the same command tries them again."
    assert "2 of 8 cells" in failed.out
    mended = run_command("sweeps=tables/toy", repository=repository)
    assert "1 runs to do" in mended.out, (mended.out, mended.err)
    assert figures(Path("outputs")) == first
    assert sorted(Path("outputs/sweeps").rglob("*.json")) == sweeps, "repeating a table leaves a second sweep"


PLACES = """
# @package _global_
defaults:
  - override /task: tables
  - _self_
task:
  table:
    title: Data sets here and there
    source: nowhere
    metrics: standard
    shown: [psnr]
    generated: [dataset=synthetic, dataset.size=64]
    quick_train: [degradation=bicubic, scale=8]
    points:
      - {name: second, evaluate: [dataset=second, scale=8]}
      - {name: cnam_cd, evaluate: [dataset=cnam_cd, scale=8]}
      - {name: ucmerced, evaluate: [dataset=ucmerced, degradation=bicubic, scale=8]}
      - {name: whu, evaluate: [dataset=whu, degradation=bicubic, scale=8]}
    rows:
      - {name: Bicubic, model: bicubic}
      - {name: Ref-Diff, model: refdiff, train: [experiments=refdiff/second_x8], points: [second, cnam_cd]}
"""


@pytest.fixture
def places(repository: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The repository with a table over four data sets, and a folder that holds stand-ins for two of them: SECOND and UC Merced."""
    (repository / "sweeps" / "tables" / "places.yaml").write_text(PLACES)
    data = tmp_path / "sets"
    stand_in(data / "second")
    for number in (0, 20, 21):  # the first twenty of a class are its test images
        image = data / "ucmerced" / "UCMerced_LandUse" / "Images" / "beach" / f"beach{number:02d}.tif"
        write(image, np.random.default_rng(number).integers(0, 256, (64, 64, 3)))
    return repository, data


@pytest.mark.slow
def test_the_quick_budget_takes_data_sets_that_are_there_and_names_the_others(places: tuple[Path, Path], run_command) -> None:
    repository, data = places
    ended = run_command("sweeps=tables/places", f"task.data_root={data}", repository=repository)
    assert ended.code == 0, ended.err
    assert "6 of 6 cells" in ended.out
    assert "missing  dataset=whu" in ended.out
    assert "missing  dataset=cnam_cd" in ended.out
    assert f"{data}/cnam_cd" in ended.out
    page = (Path("outputs") / "tables" / "places-quick" / "table.md").read_text()
    assert "second: a few images of dataset=second" in page
    assert "whu: generated data stand for dataset=whu" in page
    names = {folder.parent.name for folder in Path("outputs").glob("evaluate/*/*")}
    assert names == {f"{model}-{data}" for model, data in (
        ("bicubic", "second"), ("bicubic", "ucmerced"), ("bicubic", "synthetic"),
        ("refdiff_quick", "second"), ("refdiff_quick", "synthetic"),
    )}  # fmt: skip


@pytest.mark.slow
def test_the_paper_budget_names_what_is_missing_under_the_given_folder(places: tuple[Path, Path], run_command) -> None:
    repository, data = places
    table = repository / "sweeps" / "tables" / "places.yaml"
    table.write_text(table.read_text().replace("experiments=refdiff/second_x8]", "experiments=refdiff/second_x8 dataset=cnam_cd]"))
    ended = run_command("sweeps=tables/places", "task.budget=paper", f"task.data_root={data}", repository=repository)
    assert ended.code == 0, ended.err
    assert "2 of 6 cells" in ended.out  # bicubic where the images are
    for name in ("whu", "cnam_cd"):
        assert f"not run  dataset.root={data}/{name}" in ended.out


def test_an_unknown_table_is_a_sentence(run_command) -> None:
    ended = run_command("task=tables", "task.tables=[nosuch]")
    assert ended.code == 2
    assert "task.tables=nosuch does not exist; the tables are " in ended.err


def test_a_niqe_model_of_ones_own_is_fitted_and_found(run_command) -> None:
    ended = run_command("task=fit-niqe", "dataset.train_images=12", "dataset.second_date=false")
    assert ended.code == 0, ended.err
    assert Path("weights/niqe_rs.npz").is_file()
    scored = run_command(
        "task=evaluate",
        "model=bicubic",
        "dataset.test_images=1",
        "dataset.second_date=false",
        "metrics.metrics=[niqe_rs]",
        "metrics.panels=0",
    )
    assert scored.code == 0, scored.err
    assert "NIQE (own model)" in scored.out
