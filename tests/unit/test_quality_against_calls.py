"""The page of quality against calls: which points it measures, and when it calls few calls as good as many."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from documentation.quality_against_calls import FEW_STEPS, SOLVERS, Point, measured, page_of, reached
from rsdiff.config import UserError
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.metrics import METRICS
from tests.conftest import REPOSITORY

JUDGED = [METRICS["psnr"], METRICS["energy_octave_1"]]


def point(curve: str, calls: int, psnr: float, energy: float) -> Point:
    return Point(curve, calls, {"psnr": psnr, "energy_octave_1": energy})


@pytest.mark.parametrize(
    ("few", "sentence"),
    [
        (point("unipc", 4, 21.0, 0.9), "unipc is as good or better in every column with 4, 0.4 of the calls."),
        (point("unipc", 4, 21.0, 0.1), "no other is as good in every column."),  # smooth
        (point("unipc", 2, 21.0, 0.1), "no other is as good in every column, and unipc is with 2, 0.2 of the calls, in 1 of 2."),
        (point("unipc", 4, 19.0, 1.0), "no other is as good in every column."),
    ],
)
def test_few_calls_are_as_good_only_where_every_column_is(few: Point, sentence: str) -> None:
    own = point("its own sampler", 10, 20.0, 1.25)
    assert reached([own, few], JUDGED) == f"Its own sampler calls the network 10 times; {sentence}"
    text, figures = page_of({"name": {"command": "python -m x", "points": [vars(own), vars(few)]}})
    assert sentence in text
    assert set(figures) == {"quality_name_psnr.svg", "quality_name_energy_octave_1.svg"}


def test_figures_are_files_of_their_own() -> None:
    """A browser shows an SVG file only if it names its namespace; one inside a page of HTML needs none."""
    pictures = sorted((REPOSITORY / "docs" / "images").rglob("*.svg"))
    assert len(pictures) > 30
    assert [path.name for path in pictures if 'xmlns="http://www.w3.org/2000/svg"' not in path.read_text(encoding="utf-8")] == []


def test_levels_are_tried_where_they_came_nearer_to_the_fine_solution(tmp_path: Path) -> None:
    def run(task: str, *words: str) -> Any:
        sampler = SamplerConfig(solver="heun", steps=9)
        if task != "task=fit-levels":
            return SimpleNamespace(summary={"psnr": 20.0, "seconds": 1.0}, settings=SimpleNamespace(sampler=sampler))
        if "sampler.solver=deis" in words:
            raise UserError("no.")
        file = tmp_path / "levels.yaml"
        file.write_text("sigmas: [3.0, 0.1]")
        nearer = "sampler.steps=3" in words
        return SimpleNamespace(summary={"error_before": 0.2, "error_after": 0.1 if nearer else 0.3}, files=[file])

    said: list[str] = []
    points = list(measured(["checkpoint=x"], run, said.append))
    curves = [point.curve for point in points]
    assert points[0] == Point("its own sampler", points[0].calls, {"psnr": 20.0})
    assert all(curves.count(solver) == len(FEW_STEPS) for solver in SOLVERS)
    assert curves.count("unipc, fitted levels") == 1
    assert "deis, fitted levels" not in curves
    assert len(said) == len(FEW_STEPS)
