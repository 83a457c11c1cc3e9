"""What a run leaves for people: records, panels, tables, figures and a report that asks no other site for anything."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from rich.console import Console

from rsdiff.config import PlaceError
from rsdiff.metrics import METRICS, MetricSummary, Summary, Unavailable
from rsdiff.reporting import (
    CostPoint,
    Panel,
    RunFacts,
    SweptRun,
    console_table,
    loss_curve,
    markdown_table,
    metric_histograms,
    quality_against_cost,
    read_records,
    write_panel,
    write_records,
    write_report,
    write_sweep_page,
)
from rsdiff.reporting.display import busiest_window, display_of, enlarged
from rsdiff.reporting.panels import file_name
from rsdiff.reporting.spectra import SpectralImages, angles, chosen_pixels, write_spectra
from rsdiff.reporting.sweep_page import cost_figures

SUMMARY = Summary(
    protocol="litsr: rounded to 0..255",
    images=6,
    seconds_per_image=0.25,
    metrics=(
        MetricSummary(METRICS["psnr"], 27.5, 1.25, 6, infinite=1, baseline=26.0),
        MetricSummary(METRICS["ssim"], 0.81, 0.02, 6, baseline=0.83),
        MetricSummary(METRICS["ag"], 5.0, 0.5, 6, baseline=4.0, hr=6.0),
    ),
    unavailable=(Unavailable("fid", "FID", "needs weights that are not here."),),
    weight_hashes=(("alexnet.pth", "0123abcd"),),
)


def rows(count: int = 6) -> list[dict[str, float | int | str]]:
    generator = np.random.default_rng(0)
    return [
        {"name": f"scene{i}", "class": "<port>", "psnr": float(p), "bicubic_psnr": float(p) - 1, "ssim": 0.8, "ag": 5.0, "hr_ag": 6.0}
        for i, p in enumerate(27 + generator.standard_normal(count))
    ]


def facts(budget: str = "quick", title: str = "sr3 on <AIRS>") -> RunFacts:
    return RunFacts(
        title=title,
        budget=budget,  # type: ignore[arg-type]
        weights=None,
        facts=(("Seed", "0"),),
        versions=(("torch", "2.0"),),
        command="python run.py model=sr3",
        config="model:\n  kind: </script><b>",
        commit="0123abc",
        signature="feed",
    )


def panel(name: str = "class/scene 1.tif", bands: int = 3, hr: bool = True) -> Panel:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(bands, 12, 16, generator=generator)
    high = torch.rand(bands, 48, 64, generator=generator)
    return Panel(name, lr, high, "sr3", bicubic=high * 0.9, hr=high * 0.8 if hr else None, captions=(("sr", "PSNR 27 dB"),))


class Page(HTMLParser):
    """Collects addresses and text, and checks that elements close in order."""

    void = frozenset({"meta", "img", "input", "br", "link", "path", "use", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(path: Path) -> tuple[Page, str]:
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    return page, text


def test_records_come_back_as_they_were_sorted_and_without_duplicates(tmp_path: Path) -> None:
    made = rows()
    frame = write_records(tmp_path, [*reversed(made), made[2]])
    pandas.testing.assert_frame_equal(read_records(tmp_path), frame)
    assert frame["name"].tolist() == [row["name"] for row in made]
    assert pandas.read_csv(tmp_path / "records.csv")["psnr"].to_numpy() == pytest.approx(frame["psnr"].to_numpy(), rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.csv", "records.parquet"]


def test_missing_records_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="task=evaluate"):
        read_records(tmp_path)


def test_pictures_of_different_images_have_different_names() -> None:
    names = [
        "a/b_c",
        "a_b/c",
        "a_b_c",
        "a--b_c",
        "a b_c",
        "a.b_c",
        "a/b/c",
        "a",
        "a_",
        "_a",
        "a-/b",
        "a/-b",
        "/a",
        "a/b_c.lr",
        "é/b",
        "ä/b",
    ]
    files = {file_name(name) for name in names}
    assert len(files) == len(names)
    assert not [file for file in files if set(file) & set("/. ")]
    assert file_name("Port/port_1") == "Port--port_1"


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("hr", [True, False])
def test_a_panel_is_drawn_for_any_number_of_bands(tmp_path: Path, bands: int, hr: bool) -> None:
    path = write_panel(tmp_path, panel(bands=bands, hr=hr))
    assert path.name == f"{file_name('class/scene 1.tif')}.png"
    with Image.open(path) as picture:
        assert picture.width > 3 * 200
    single = sorted(p.name for p in tmp_path.iterdir() if p != path)
    assert single == [f"{path.stem}.{key}.png" for key in (["bicubic", "hr", "lr", "sr"] if hr else ["bicubic", "lr", "sr"])]
    for name in single:
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (64, 48)


def test_kernels_widen_a_panel_by_one_column(tmp_path: Path) -> None:
    kernels = (torch.rand(21, 21), torch.rand(11, 11))
    widths = []
    for shown in (None, kernels):
        with Image.open(write_panel(tmp_path, dataclasses.replace(panel(bands=3, hr=True), kernels=shown))) as picture:
            widths.append(picture.width)
    assert widths[1] > widths[0] + 200


def test_a_panel_without_bicubic_of_an_input_with_other_bands_is_drawn(tmp_path: Path) -> None:
    spectral = Panel("cube", torch.rand(3, 32, 32), torch.rand(31, 32, 32), "mst", hr=torch.rand(31, 32, 32))
    assert write_panel(tmp_path, spectral).is_file()


def test_nodata_is_shown_grey_and_does_not_spoil_the_stretch() -> None:
    image = torch.rand(8, 16, 16) * 0.1
    image[:, 0, 0] = math.nan
    picture = display_of(image, (3, 2, 1)).picture(image)
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert picture.max() == 255


def test_the_input_is_enlarged_by_repeating_pixels() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert enlarged(picture, (4, 4))[:2, :2].reshape(-1, 3).tolist() == [[0, 1, 2]] * 4


def test_the_detail_is_where_the_image_is_busiest() -> None:
    image = torch.zeros(3, 64, 64)
    image[:, 40:52, 8:20] = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    top, left, height, width = busiest_window(image)
    assert top <= 40
    assert left <= 8
    assert top + height >= 52
    assert left + width >= 20


def test_the_report_is_one_file_that_parses_and_names_no_other_site(tmp_path: Path) -> None:
    records = write_records(tmp_path, rows())
    history = [{"step": float(10 * i), "restorer/total": 1 / i, "lr/restorer": 1e-4} for i in range(1, 30)]
    history += [{"step": 100.0 * i, "validation/psnr": 25 + 0.1 * i} for i in range(1, 4)]
    panels = [write_panel(tmp_path / "panels", panel()), write_panel(tmp_path / "panels", panel("other", hr=False))]
    page, text = parsed(write_report(tmp_path, facts(), SUMMARY, records, panels, history))
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "", text))
    assert all(address.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert len(page.addresses) >= 2
    for words in (
        "27.50",
        "+1.50",
        "FID was not computed",
        "needs weights",
        "0123abcd",
        "Quick budget",
        "scene3",
        "<port>",
        "(+1 infinite)",
    ):
        assert words in page.text
    assert "</script><b>" in page.text


def test_a_report_of_the_published_budget_is_not_marked(tmp_path: Path) -> None:
    page, _ = parsed(write_report(tmp_path, facts("paper"), SUMMARY, write_records(tmp_path, rows()), [], []))
    assert "Quick budget" not in page.text


def test_tables_say_protocol_difference_weights_and_what_is_missing() -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(SUMMARY, "sr3"))
    for table in (console.export_text(), markdown_table(SUMMARY)):
        for words in ("PSNR (dB) ↑", "27.50", "+1.50", "-0.0200", "6 (+1 infinite)", "litsr", "needs weights"):
            assert words in table
    assert "alexnet.pth (0123abcd)" in markdown_table(SUMMARY)
    known = replace(SUMMARY, unavailable=[replace(SUMMARY.unavailable[0], lacks_weights=True)])
    console.print(console_table(known, "sr3"))  # the command has said where they are looked for
    assert "weights missing: FID" in (text := console.export_text())
    assert "not here" not in text


def test_figures_need_something_to_show() -> None:
    assert loss_curve([]) is None
    assert loss_curve([{"step": 1.0, "validation/psnr": 20.0}]) is None
    assert metric_histograms(pandas.DataFrame(rows(3)), SUMMARY) is not None
    assert metric_histograms(pandas.DataFrame([{"name": "a"}]), SUMMARY) is None
    assert quality_against_cost([], "s", "dB") is None


def test_loss_that_is_not_finite_is_drawn_around() -> None:
    history = [{"step": float(i), "restorer/total": math.nan if i == 3 else 1.0 / i} for i in range(1, 9)]
    assert loss_curve(history) is not None


def test_quality_against_cost_labels_every_point() -> None:
    figure = quality_against_cost([CostPoint("ddim 5", 0.1, 27.0, "ddim"), CostPoint("ddim 50", 1.0, 28.0, "ddim")], "seconds", "PSNR (dB)")
    assert figure is not None
    assert "ddim 5" in figure
    assert "PSNR (dB)" in figure


def swept(sampler: str, steps: int, psnr: float) -> SweptRun:
    return SweptRun(
        {"sampler": sampler, "sampler.steps": str(steps)}, {"psnr": psnr, "bicubic_psnr": 20.0, "seconds_per_image": steps / 10}
    )


def test_a_sweep_over_steps_is_drawn_against_steps_and_time_with_bicubic_beside_it() -> None:
    figures = cost_figures([swept("ddim", 5, 21.0), swept("ddim", 10, 21.5), swept("dpmpp_2m", 5, 21.2), swept("dpmpp_2m", 10, 21.4)])
    assert [figure.title for figure in figures] == ["PSNR against sampling steps", "PSNR against seconds per image"]
    for figure in figures:
        assert all(name in figure.svg for name in ("ddim", "dpmpp_2m", "bicubic", "PSNR (dB)"))


def test_a_sweep_without_a_cost_or_a_metric_has_no_figure() -> None:
    assert cost_figures([]) == []
    assert cost_figures([swept("ddim", 5, 21.0)]) == []
    assert cost_figures([SweptRun({"seed": str(seed)}, {"images": 3}) for seed in range(2)]) == []


def test_a_sweeps_page_shows_what_users_typed_as_text(tmp_path: Path) -> None:
    page = write_sweep_page(tmp_path / "page.html", "Sweep", "name=<b>", ["run"], [{"run": "<0>"}], [])
    assert "name=&lt;b&gt;" in page.read_text()
    assert "&lt;0&gt;" in page.read_text()


def spectral_images(bands: int = 12) -> SpectralImages:
    hr = torch.rand(bands, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    return SpectralImages("a/b c", "scdm", hr + 0.05, hr, ("linear", hr * 0.9), tuple(400.0 + 20 * band for band in range(bands)))


def test_spectra_are_drawn_with_and_without_wavelengths_and_baseline(tmp_path: Path) -> None:
    full = spectral_images()
    with Image.open(write_spectra(tmp_path, full)) as image:
        size = image.size
    for images in (replace(full, wavelengths=()), replace(full, baseline=None), replace(full, hr=torch.zeros_like(full.hr))):
        with Image.open(write_spectra(tmp_path, images)) as image:
            assert image.size == size


def test_the_pixels_drawn_reach_from_the_best_to_the_worst_spectrum() -> None:
    reference = np.stack([np.ones((3, 3)), np.zeros((3, 3))])
    restored = reference.copy()
    restored[1] = np.arange(9).reshape(3, 3) / 10
    restored[:, 0, 1] = np.nan
    at = chosen_pixels(reference, restored)
    assert (at[0], at[-1]) == ((0, 0), (2, 2))
    np.testing.assert_allclose(angles(restored, reference)[2, 2], np.degrees(np.arctan(0.8)))
    assert chosen_pixels(np.zeros((2, 3, 3)), restored) == []


def test_tables_name_the_baseline_that_was_used() -> None:
    linear = replace(SUMMARY, baseline="linear")
    assert " linear |" in markdown_table(linear)
    assert "bicubic" not in markdown_table(linear)
    assert linear.as_dict()["metrics"]["psnr"]["linear"] == 26.0
