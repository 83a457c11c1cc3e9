"""Published tables: what a table file may say, which runs it asks for, and what the pages show."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsdiff.app.table_options import PublishedOn, TableConfig, filled
from rsdiff.app.table_plan import QuickData, cells_of, merged
from rsdiff.app.table_protocol import QUICK, Measured, why_not_subtracted
from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.metrics import METRICS
from rsdiff.reporting.published import (
    CSV_COLUMNS,
    MACHINERY,
    CellResult,
    Pictures,
    Printed,
    RowResult,
    TableResult,
    Value,
    comma_separated,
    latex,
    markdown,
)
from rsdiff.reporting.published_page import write_index, write_table
from rsdiff.reporting.tables import number

TABLE = {
    "title": "A table",
    "source": "a paper",
    "metrics": "standard",
    "shown": ["psnr", "lpips_alex"],
    "points": [
        {"name": "blind", "words": {"family": "iso", "scale": "4"}, "evaluate": ["dataset=airs", "scale=4"], "cases": {"a": "", "b": "b"}},
        {
            "name": "x8",
            "words": {"family": "iso", "scale": "8"},
            "evaluate": ["dataset=airs", "scale=8"],
            "published_on": {"split": "ten images", "dataset": "airs", "scale": 8, "images": 10, "size": [256, 256], "border": 8},
        },
    ],
    "rows": [
        {"name": "Bicubic", "model": "bicubic"},
        {
            "name": "Ours",
            "model": "fixed",
            "train": ["experiments=first/{family}", "experiments=second scale={scale}"],
            "before": "fixed_tiny",
        },
        {"name": "Free", "model": "free", "train": ["experiments=free"]},
        {"name": "To come", "model": "unknown", "train": ["model=unknown"], "published": {"x8": {"psnr": 27.5}}},
    ],
}
MODELS = ["bicubic", "fixed", "fixed_tiny", "free"]


def table(**changes: object) -> TableConfig:
    return config_from_mapping(TableConfig, {**TABLE, **changes}, "task.table")


def cells(budget, seeds=1, found=None):
    return cells_of(table(), budget, seeds, MODELS, lambda model: ("scale=",) if model == "free" else (), lambda settings: found)


@pytest.fixture
def result(tmp_path: Path) -> TableResult:
    pictures = {}
    for index, name in enumerate(("lr", "sr", "hr")):
        pictures[name] = tmp_path / f"scene.{name}.png"
        Image.fromarray(np.full((8, 8, 3), 80 * index, dtype=np.uint8)).save(pictures[name])
    shown = Pictures("scene", pictures["lr"], pictures["sr"], pictures["hr"])

    def cell(psnr: float, lpips: float, published: dict[str, float], seconds: float, spread: float | None = None) -> CellResult:
        values = {"psnr": Value(psnr, spread, 1 if spread is None else 3), "lpips_alex": Value(lpips, None, 1)}
        return CellResult(values, published, "", (tmp_path / "run" / "report.html",), 4, seconds, shown)

    rows = (
        RowResult("Slow & good", "slow", "a note", {"x4": cell(28.5, 0.2, {"psnr": 28.0}, 2.0, 0.25)}),
        RowResult("Fast_bad", "fast", "", {"x4": cell(9.5, 0.6, {}, 0.01)}),
        RowResult("To come", "none", "", {"x4": CellResult({}, {"psnr": 27.5}, "model=none is not part of this version.")}),
    )
    return TableResult(
        name="toy",
        title="A toy table",
        source="a paper, 100% true",
        budget="quick",
        protocol="standard: 8-bit",
        metrics=(METRICS["psnr"], METRICS["lpips_alex"], METRICS["fid"]),
        settings={"x4": "x4"},
        rows=rows,
        unavailable={"fid": "its weights are missing."},
        seeds=3,
        command="python run.py sweeps=tables/toy",
        commit="abc",
        printed=(Printed("Single images", "figure 3", "RGB, no border.", ("Image", "PSNR"), (("one", "20.1"),)),),
    )


@pytest.mark.parametrize(
    ("value", "text"), [(2104.3, "2104"), (219.44, "219.4"), (2.0, "2.000"), (98765.4, "9.877e+04"), (123456.0, "1.235e+05")]
)
def test_a_value_has_four_digits_and_no_point_behind_the_last(value: float, text: str) -> None:
    assert number(METRICS["mse"], value) == text


def test_words_in_braces_are_the_points_and_interpolations_stay() -> None:
    assert filled("a={family} b=${scale} c={scale}", {"family": "iso", "scale": "4"}) == "a=iso b=${scale} c=4"
    with pytest.raises(ValueError, match=r"holds the word \{x\}, and the point has family"):
        filled("a={x}", {"family": "iso"})


def test_a_setting_stands_once_with_its_last_value() -> None:
    assert merged(("model=a", "scale=4"), ("+x=1", "model=b"), ("x=2",)) == ("model=b", "scale=4", "x=2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shown": ["psnrr"]}, "must name metrics"),
        ({"rows": [TABLE["rows"][0], TABLE["rows"][0]]}, "each with a name of its own"),
        ({"rows": [{"name": "a", "model": "b", "published": {"x9": {"psnr": 1.0}}}]}, "published values at \\['x9'\\]"),
        ({"rows": [{"name": "a", "model": "b", "published": {"x8": {"ssim": 1.0}}}]}, "which the table does not show"),
        ({"rows": [{"name": "a", "model": "b", "published": {"blind/a": {"psnr": 1.0}}}]}, "say in `published_on` of that point"),
        ({"rows": [{"name": "a", "model": "b", "released": "a.pth"}]}, "belong together"),
        ({"rows": [{"name": "a", "model": "b", "released": "a.pth", "download": "curl", "train": ["c"]}]}, "make two rows of it"),
        ({"rows": [{"name": "a", "model": "b", "points": ["x9"]}]}, "names the points \\['x9'\\]"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_in_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        table(**changes)


def test_every_case_of_a_point_is_a_setting_and_the_evaluation_makes_only_those() -> None:
    assert list(table().settings) == ["blind/a", "blind/b", "x8"]
    evaluations = [cell.job for cell in cells("paper") if cell.point.name == "blind" and cell.job is not None]
    assert all("degradation.only=[a,b]" in job.settings for job in evaluations)


def test_paper_cells_train_the_published_recipes_one_on_the_other() -> None:
    job = next(cell.job for cell in cells("paper") if cell.row.name == "Ours" and cell.point.name == "x8")
    first, second, evaluation = job.chain
    assert first.settings == ("experiments=first/iso", "seed=0")
    assert second.settings == ("experiments=second", "scale=8", "seed=0")
    assert evaluation.settings[:1] == ("task=evaluate",)
    assert "dataset=airs" in evaluation.settings


def test_quick_cells_stand_on_generated_data_and_tiny_models_alone() -> None:
    for cell in cells("quick"):
        for job in cell.job.chain if cell.job else []:
            assert "dataset=synthetic" in job.settings
            assert not any(setting.startswith("experiments=") for setting in job.settings)
            assert not {"model=fixed", "dataset=airs"} & set(job.settings)


def test_quick_cells_take_published_data_that_are_there() -> None:
    there = QuickData(("dataset=airs", "dataset.root=here"), trains=True, brings_lr=False)
    jobs = [job for cell in cells("quick", found=there) for job in (cell.job.chain if cell.job else [])]
    assert jobs
    assert all({"dataset=airs", "dataset.root=here"} <= set(job.settings) for job in jobs)
    trainings = [job for job in jobs if "task=evaluate" not in job.settings]
    assert any("degradation=bicubic" in job.settings for job in trainings)
    assert not any(setting.startswith("experiments=") for job in jobs for setting in job.settings)


def test_published_lr_images_train_in_place_of_a_degradation_and_images_without_targets_do_not_train() -> None:
    for found in (QuickData(("dataset=pairs",), trains=True, brings_lr=True), QuickData(("dataset=real",), trains=False, brings_lr=True)):
        for cell in cells("quick", found=found):
            *trainings, evaluation = cell.job.chain if cell.job else [None]
            assert evaluation is None or found.settings[0] in evaluation.settings
            for training in trainings:
                assert (found.settings[0] in training.settings) == found.trains
                assert ("degradation=bicubic" in training.settings) != found.trains


def test_a_method_for_every_scale_trains_once_and_another_once_per_scale() -> None:
    trained = {name: {cell.job.chain[-2] for cell in cells("quick") if cell.row.name == name} for name in ("Ours", "Free")}
    assert {name: len(jobs) for name, jobs in trained.items()} == {"Ours": 2, "Free": 1}


def test_seeds_are_trainings_of_their_own() -> None:
    jobs = {cell.job.chain[0] for cell in cells("paper", seeds=3) if cell.row.name == "Free"}
    assert {job.settings[-1] for job in jobs} == {"seed=0", "seed=1", "seed=2"}


def test_a_model_that_is_not_there_yet_is_a_row_that_says_so() -> None:
    (cell,) = [cell for cell in cells("quick") if cell.row.name == "To come" and cell.point.name == "x8"]
    assert cell.job is None
    assert "conf/model/unknown.yaml" in cell.reason


def test_released_weights_are_evaluated_in_any_budget_without_a_training() -> None:
    row = {"name": "Released", "model": "fixed", "released": "fixed.pth", "download": "curl"}
    with_weights = table(rows=[row])
    for budget in ("quick", "paper"):
        for cell in cells_of(with_weights, budget, 1, MODELS, lambda model: (), lambda settings: None):  # type: ignore[arg-type]
            assert cell.job is not None
            assert (cell.job.after, cell.job.released) == (None, "fixed.pth")
            assert "model=fixed" in cell.job.settings


OURS = Measured("aid", "bicubic_pillow", 4.0, 1000, ((600, 600),), "bands", 0)
PUBLISHED = PublishedOn(
    split="test images", dataset="aid", degradation="bicubic_pillow", scale=4, images=1000, size=(600, 600), channel="bands", border=0
)


@pytest.mark.parametrize(
    ("there", "here", "word"),
    [
        ({}, {}, ""),
        ({"dataset": "dota"}, {}, "data set"),
        ({"dataset": ""}, {}, "data set"),
        ({"degradation": ""}, {}, "degradation"),
        ({"scale": None}, {}, "scale"),
        ({}, {"scale": 8.0}, "scale"),
        ({}, {"images": 2}, "number of images"),
        ({}, {"sizes": ((256, 256),)}, "size"),
        ({"size": "several"}, {}, "size"),
        ({"size": "several"}, {"sizes": ((256, 256), (300, 300))}, ""),
        ({"channel": "unknown"}, {}, "channel"),
        ({}, {"channel": "y_studio"}, "channel"),
        ({"border": "unknown"}, {}, "border"),
        ({}, {"border": 4}, "border"),
    ],
)
def test_a_published_value_is_subtracted_only_where_everything_is_the_same(there: dict, here: dict, word: str) -> None:
    why = why_not_subtracted(replace(PUBLISHED, **there), replace(OURS, **here), "paper")
    assert (f"{word} (" in why) if word else (why == "")
    assert why_not_subtracted(replace(PUBLISHED, **there), replace(OURS, **here), "quick") == QUICK


def test_what_may_not_be_subtracted_is_shown_beside_it_in_every_form(result: TableResult, tmp_path: Path) -> None:
    slow, *others = result.rows
    apart = replace(slow, cells={"x4": replace(slow.cells["x4"], apart="of other images.")})
    told = replace(result, rows=(apart, *others), circumstances={"x4": ("Published: ten images.", "Ours: two images.")})
    page = write_table(tmp_path / "toy", told)
    for path in (page, page.with_name("table.md"), page.with_name("table.tex")):
        text = path.read_text()
        assert "28.50" in text
        assert "(28.00)" in text
        assert "+0.50" not in text
        assert "of other images." in text
        assert "Published: ten images." in text
        assert "Ours: two images." in text
    first = next(csv.DictReader(page.with_name("table.csv").open()))
    assert (first["published"], first["difference"]) == ("28.0", "")


def test_markdown_gives_ours_spread_published_difference_and_a_link(result: TableResult, tmp_path: Path) -> None:
    text = markdown(result, tmp_path / "tables" / "toy")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert ["Slow & good", "28.50 ± 0.25 (28.00, +0.50)", "0.2000", "-", "2", "[0](../../run/report.html)"] in rows
    assert ["To come", "- (27.50)"] in [row[:2] for row in rows]
    assert "Not run: To come: model=none is not part of this version." in text
    assert "FID was not computed: its weights are missing." in text


def test_every_form_says_what_the_quick_budget_is_worth(result: TableResult, tmp_path: Path) -> None:
    page = write_table(tmp_path / "toy", result)
    index = write_index(tmp_path / "index.html", [result], [page])
    for path in (page, page.with_name("table.md"), page.with_name("table.tex"), index):
        assert MACHINERY in path.read_text(), path
    assert {row["budget"] for row in csv.DictReader(page.with_name("table.csv").open())} == {"quick"}
    assert MACHINERY not in markdown(replace(result, budget="paper"), tmp_path)


def test_csv_holds_a_line_per_method_setting_and_metric(result: TableResult, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(result, tmp_path))))
    assert len(rows) == 3 * 3
    assert tuple(rows[0]) == CSV_COLUMNS
    first = rows[0]
    assert (float(first["ours"]), float(first["published"]), float(first["difference"]), float(first["spread"])) == (28.5, 28.0, 0.5, 0.25)
    assert rows[2]["missing"] == "its weights are missing."
    assert rows[-1]["missing"] == "model=none is not part of this version."


def test_latex_escapes_what_latex_reads(result: TableResult) -> None:
    text = latex(result)
    assert r"Slow \& good & 28.50 $\pm$ 0.25 (28.00, +0.50)" in text
    assert r"Fast\_bad" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"[↑↓±]", "\n".join(body))
    assert text.count(r"\begin{tabular}{lrrr}") == 1


def test_the_page_asks_no_other_site_for_anything(result: TableResult, tmp_path: Path) -> None:
    text = write_table(tmp_path / "toy", result).read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert text.count("<svg") == 2


SCRIPT = """
const out = [];
const names = () => [...document.querySelectorAll("table.sortable")[0].tBodies[0].rows].map((row) => row.cells[0].dataset.value).join(",");
const heading = document.querySelectorAll("table.sortable th")[1];
heading.click(); out.push("up:" + names()); heading.click(); out.push("down:" + names());
const right = document.getElementById("right");
out.push("pictures:" + [...right.options].map((option) => option.text).join(","));
right.value = "1"; right.dispatchEvent(new Event("change"));
out.push("right:" + document.getElementById("tag-right").textContent + ":" + document.getElementById("under").naturalWidth);
const range = document.getElementById("slide-at"); range.value = "25"; range.dispatchEvent(new Event("input"));
out.push("at:" + document.getElementById("compare").style.getPropertyValue("--at"));
document.body.dataset.seen = out.join(";");
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed, so the page's script cannot be run")
def test_tables_sort_and_pictures_are_exchanged_in_a_browser(result: TableResult, tmp_path: Path) -> None:
    page = write_table(tmp_path / "toy", result)
    page.write_text(page.read_text().replace("</body>", f"<script>addEventListener('load', () => {{{SCRIPT}}});</script></body>"))
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    ended = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r'data-seen="([^"]*)"', ended.stdout)
    assert seen is not None, ended.stderr[-500:]
    # A method without a value counts as the lowest; 9.5 comes before 28.5, which as words it would not.
    assert html.unescape(seen[1]).split(";") == [
        "up:To come,Fast_bad,Slow & good",
        "down:Slow & good,Fast_bad,To come",
        "pictures:LR,HR,Slow & good,Fast_bad",
        "right:HR:8",
        "at:25%",
    ]
