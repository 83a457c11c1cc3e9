"""Writes what is known of learning: python -m tests.learning.report perfect|trained.

perfect  docs/learning.md: what each method is worth with a perfect network
trained  docs/trained.md: what fresh networks reach, from the records of `tests.learning.trainings`; the others are named as not run
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from tests.conftest import REPOSITORY
from tests.learning.cases import CASES, world
from tests.learning.checks import Loss, Samples, check_levels, check_loss, samples_of
from tests.learning.test_faults import FAULTS
from tests.learning.trainings import DRAWS, FOLDER, RECORDS, TRAININGS

HEAD = """# What each diffusion is worth with a perfect network

Made by `make learning-page`; `make test-learning` asserts every figure, and a part of it runs in CI.

The world is a Gaussian texture of a known spectrum, 12 x 12 pixels, blurred, halved and given noise by the repository's own degradation,
whose matrix is measured from unit images. The posterior of the target given its LR is then known exactly (mean, variance along every
principal axis, best error at every noise level), and so is what a perfect network would answer. Each method runs with such a network in
the place of its own, under its published objective and its published sampler.

- **Levels**: Kolmogorov-Smirnov statistic of the training levels under the published law (above 1.95 once in 1000).
- **Loss / Bayes**: the published training loss, relative to that of the Bayes error; 1 up to chance.
- **Least at**: the share of the perfect estimate of the noise at which the loss is least; 1 if target and weighting are right.
- **Spread**: deviation of samples along the principal axes of the posterior, in four bands from what the LR leaves open to what it shows,
  relative to the posterior's; in brackets what a recursion over the published steps predicts for a perfect network.
- **LR misfit**: distance of the degraded samples from the LR, relative to what those recursions predict.

A spread below 1 is a property of the published sampler, not of a training: few ancestral steps lose texture even with a perfect network.

| method | sampler | levels | loss / Bayes | least at | spread, open to shown | LR misfit |
|---|---|---|---|---|---|---|
"""


Row = tuple[Samples, Loss, float]


def measured() -> dict[str, Row]:
    """Return samples, loss and levels of every case."""
    return {name: (samples_of(case), check_loss(case), check_levels(case)) for name, case in CASES.items()}


def page(rows: Mapping[str, Row]) -> str:
    """Return the page."""
    lines = [HEAD]
    for name, case in CASES.items():
        found, loss, levels = rows[name]
        pairs = [f"{a:.2f} ({b:.2f})" for a, b in zip(found.spread, found.expected_spread, strict=True)]
        lines.append(
            f"| {name} | `{case.sampler}` | {levels:.2f} | {loss.mean / loss.expected:.3f} | {loss.best_share:.3f} | "
            f"{', '.join(pairs)} | {found.misfit / found.expected_misfit:.2f} |\n"
        )
    lines.append(
        f"\nMean squared error of the best estimate from the LR alone: {world().best_error():.5f}; "
        f"of the texture itself: {float(world().covariance.diagonal().mean()):.5f}.\n"
        "\n## Planted faults\n\nEach is put in by a test, and the checks named must fail.\n\n"
        "| fault | planted in | found by |\n|---|---|---|\n"
    )
    lines += [f"| {name} | {', '.join(fault.cases)} | {', '.join(fault.found_by)} |\n" for name, fault in FAULTS.items()]
    return "".join(lines)


TRAINED = """# Fresh networks against the best answer

`make learn` trains each `model=<name>_tiny`, with its published objective, by the real trainer on the textures of
[learning.md](learning.md), and restores 64 textures that it never saw with the published sampler. The best answer is computed for the same
textures; a difference from it comes from too short a training or from the sampler (see learning.md). `make trained-page` writes this.

- **Estimate**: root mean squared error of the restoration (of the mean of {draws} samples) relative to that of the best estimate; 1 is
  perfect for a regression, {mean:.2f} for the mean of {draws} perfect samples.
- **Sample**: that of one sample relative to a perfect sample's.
- **Loss**: the published loss relative to a perfect network's at the same levels and noise.
- **Spread**: deviation of samples about their mean along the axes of the posterior, relative to its own, from what the LR leaves open to
  what it shows. learning.md says what the sampler keeps of it when the network is perfect.
- **Kernel**: error of the estimated blur relative to that of the best estimate, where the blur is unknown.

| method | textures | parameters | steps of {batch} | CPU s | estimate | sample | loss | spread, open to shown | LR misfit | kernel |
|---|---|---|---|---|---|---|---|---|---|---|
"""
CURVES = Path("docs/images/trained.svg")


def records() -> dict[str, Any]:
    """Return what `tests.learning.trainings` has measured, by training, of those that are finished."""
    found = {}
    for name, training in TRAININGS.items():
        path = FOLDER / name / RECORDS
        if path.exists():
            record = json.loads(path.read_text())
            if str(training.steps) in record["curve"]:
                found[name] = record
    return found


def trained_rows(found: Mapping[str, Any]) -> list[str]:
    """Return the rows of the table of trainings, one for each kind of texture a method restores."""
    rows = []
    for name, record in found.items():
        training = TRAININGS[name]
        last = dict(record["curve"][str(training.steps)])
        loss = last.pop("loss", None)
        for place, values in last.items():
            spread = ", ".join(f"{value:.2f}" for value in values.get("spread", []))
            cells = [name, place or "-", f"{record['parameters']:,}", str(training.steps), f"{record['seconds']:.0f}"]
            cells += [_number(values.get("estimate")), _number(values.get("sample")), _number(loss), spread or "-"]
            rows.append(f"| {' | '.join([*cells, _number(values.get('misfit')), _number(values.get('kernel'))])} |\n")
    missing = [name for name in TRAININGS if name not in found]
    return [*rows, f"\nNot run: {', '.join(missing)}.\n"] if missing else rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def draw_curves(found: Mapping[str, Any], path: Path) -> None:
    """Draw how far each training is from the best answer, by step: regressions by their error, diffusions by their loss."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, record in found.items():
        steps = sorted(record["curve"], key=int)
        values = [record["curve"][step] for step in steps]
        if "loss" in values[0]:
            axes[1].plot([int(step) for step in steps], [value["loss"] for value in values], label=name)
        elif TRAININGS[name].sampler is None:
            first = next(iter(values[0]))
            axes[0].plot([int(step) for step in steps], [value[first]["estimate"] for value in values], label=name)
    for axis, title in zip(axes, ("regressions: error / best error", "diffusions: loss / loss of a perfect network"), strict=True):
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
        axis.set(xlabel="training step", title=title, yscale="log")
        axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def trained_page() -> str:
    """Return the page on trainings, and draw its figure."""
    found = records()
    head = TRAINED.format(draws=DRAWS, mean=(1 + 1 / DRAWS) ** 0.5, batch=32)
    if found:
        draw_curves(found, REPOSITORY / CURVES)
    picture = f"\n![Error and loss by training step]({CURVES.relative_to('docs')})\n" if found else ""
    return head + "".join(trained_rows(found)) + picture


if __name__ == "__main__":
    pages = {"perfect": ("learning.md", lambda: page(measured())), "trained": ("trained.md", trained_page)}
    name, made = pages[sys.argv[1]]
    target = REPOSITORY / "docs" / name
    target.write_text(made())
    print(f"Written: {target.relative_to(REPOSITORY)}")
