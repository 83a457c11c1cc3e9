"""Writes what is known of learning: python -m tests.learning.report perfect|trained [RECORDS].

perfect  docs/learning.md: what each method is worth with a perfect network
trained  docs/trained.md: what fresh networks reach, from the records of `tests.learning.trainings` in the folder RECORDS; the others are
         named as not run. Beside it docs/trained.json and a picture per training, which the site puts on the page of each method.
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

from rsdiff.data.frames import markdown_of
from tests.conftest import REPOSITORY
from tests.learning.cases import CASES, world
from tests.learning.checks import Loss, Samples, check_levels, check_loss, samples_of
from tests.learning.test_faults import FAULTS
from tests.learning.trainings import DRAWS, FOLDER, OCTAVES, RECORDS, TRAININGS

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

`make learn` trains each `model=<name>_tiny`, with its published objective (`blindsrsnf_quick`: with ours), by the real trainer on the
textures of [learning.md](learning.md), and restores 64 textures that it never saw with the published sampler. The best answer is computed
for the same textures; a difference from it comes from too short a training or from the sampler (see learning.md). `make trained-page`
writes this.

- **Estimate**: root mean squared error of the restoration (of the mean of {draws} samples) relative to that of the best estimate; 1 is
  perfect for a regression, {mean:.2f} for the mean of {draws} perfect samples. An autoencoder (ldcsr_vae) is shown the target: no
  restoration from its latents can be better.
- **Sample**: that of one sample relative to a perfect sample's.
- **Loss**: the published loss relative to a perfect network's at the same levels and noise.
- **Spread**: deviation of samples about their mean along the axes of the posterior, relative to its own, from what the LR leaves open to
  what it shows. learning.md says what the sampler keeps of it when the network is perfect.
- **Kernel**: error of the estimated blur relative to that of the best estimate, where the blur is unknown.

"""
BY_NOISE = """
## Loss by noise level

The loss relative to a perfect network's by the deviation of the noise, in units of the image in [0, 1]; - where the published law draws too
few levels to tell. The textures' posterior has deviations of 1/150 to 1/30: noise of about that size decides what a sample shows that the
LR does not, and noise far above it decides the mean. Nearly all of a clean image's unweighted error (blindsrsnf) is made at high noise, so
that a network can have a total loss of 1.05 and know little of the levels that decide texture: its samples are smooth. In
`blindsrsnf_quick` these levels count, by `model.snr_limit=100` (ours). With 1000 its samples had a spread of 0.87, 1.02, 1.00 and 0.94
after the same steps and their mean an error of 1.28: too much weight on texture. Above 1 a perfect network knows nearly all of the noise,
so that 1.9 times its error of the noise is little.

LDCSR's samples hardly differ from each other, and should not: the published objective draws the end of the complete reverse chain to the
latent by its squared error, and the network for which that is least ends every chain at the mean of all latents that fit the LR
(`tests/learning/test_cascade_and_latent.py`). In `ldcsr_levels` each step trains one random level, by `model.trained_through=level` (ours):
what the LR leaves open has 0.74 of its deviation in place of 0.07. How much of the rest the latent can hold, 36 values for 144 pixels, was
not measured.

BlindDiff's kernels are no better than their mean, and its restorations the farthest from the best estimate, by two published choices.
Images are in [0, 1], so that what tells of the blur is lost beside their mean in the head that averages features over the image: alone,
shown clean targets, it learns nothing in 2,500 steps, and what there is to learn in 400 where the same images are in [-1, 1]
(`tests/learning/test_trainings.py`). A thousandfold weight of its loss changes nothing (2.03). And each step of sampling ends with a step
of fixed length along the gradient of a norm of the whole image, which these images of 144 values feel 37 times as much per value as one of
256 x 256 in colour: the same network without guidance has 1.28 in place of 1.47 (means of two samples of 32 textures; two perfect ones
have 1.22). In
`blinddiff_signed` the range is [-1, 1], the kernel's error is summed over its taps, and there is no guidance (all three ours):
`model.data_range=signed model.kernel_weight=49 model.guidance.weight=0`. It is all but perfect.

"""
HEADS = (
    "method",
    "textures",
    "parameters",
    "steps of 32",
    "CPU s",
    "estimate",
    "sample",
    "loss",
    "spread, open to shown",
    "LR misfit",
    "kernel",
)
NOISE_HEADS = ("method", f"below 1/{1 / OCTAVES[0]:.0f}", *(f"from 1/{1 / bound:.0f}" for bound in OCTAVES[:-1]), "from 1")
CURVES = Path("docs/images/trained.svg")
"""All trainings; a picture of each lies in the folder of the same name."""
FIGURES = Path("docs/trained.json")


def records(folder: Path) -> dict[str, Any]:
    """Return what `tests.learning.trainings` has measured, by training, of those that are finished."""
    found = {}
    for name, training in TRAININGS.items():
        path = folder / name / RECORDS
        if path.exists():
            record = json.loads(path.read_text())
            if str(training.steps) in record["curve"]:
                found[name] = record
    return found


def trained_rows(name: str, record: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a training, one for each kind of texture that the method restores; the cells stand under HEADS."""
    rows = []
    last = dict(record["curve"][str(TRAININGS[name].steps)])
    loss = last.pop("loss", None)
    for place, values in last.items():
        spread = ", ".join(f"{value:.2f}" for value in values.get("spread", []))
        cells = [name, place or "-", f"{record['parameters']:,}", str(TRAININGS[name].steps), f"{record['seconds']:.0f}"]
        cells += [_number(values.get("estimate")), _number(values.get("sample")), _number(loss), spread or "-"]
        rows.append([*cells, _number(values.get("misfit")), _number(values.get("kernel"))])
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def draw_curves(found: Mapping[str, Any], path: Path) -> None:
    """Draw how far each training is from the best answer, by step: regressions by their error, diffusions by their loss."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, record in found.items():
        steps, values, is_loss = curve_of(name, record)
        if values and not TRAININGS[name].encodes:  # which is shown the target
            axes[int(is_loss)].plot(steps, values, label=name)
    for axis, title in zip(axes, TITLES, strict=True):
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
        axis.set(xlabel="training step", title=title, yscale="log")
        axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


TITLES = ("regressions: error / best error", "diffusions: loss / loss of a perfect network")


def curve_of(name: str, record: Mapping[str, Any]) -> tuple[list[int], list[float], bool]:
    """Return (steps, values, whether they are losses) of a training; no values where only its end was judged."""
    steps = sorted(record["curve"], key=int)
    points = [record["curve"][step] for step in steps]
    if "loss" in points[0]:
        return [int(step) for step in steps], [point["loss"] for point in points], True
    if TRAININGS[name].sampler is None:
        first = next(iter(points[0]))
        return [int(step) for step in steps], [point[first]["estimate"] for point in points], False
    return [], [], False


def draw_curve(name: str, record: Mapping[str, Any], path: Path) -> bool:
    """Draw one training by itself; return whether there was anything to draw."""
    steps, values, is_loss = curve_of(name, record)
    if not values:
        return False
    figure, axes = pyplot.subplots(figsize=(5.5, 3), layout="constrained")
    axes.plot(steps, values, marker="o", markersize=4)
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel="training step", title=TITLES[int(is_loss)].split(": ")[1], xlim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def figures_of_methods(found: Mapping[str, Any]) -> dict[str, Any]:
    """Draw each training and return what the pages of methods show of them: rows, and the picture's place under docs/."""
    models = {}
    for name, record in found.items():
        picture = CURVES.with_suffix("") / f"{name}.svg"
        drawn = draw_curve(name, record, REPOSITORY / picture)
        rows = [[TRAININGS[name].model, *row[1:]] for row in trained_rows(name, record)]
        models[TRAININGS[name].model] = {"rows": rows, "picture": str(picture.relative_to("docs")) if drawn else None}
    return {"heads": HEADS, "models": models}


def trained_page(folder: Path) -> str:
    """Return the page on trainings, and write what stands beside it."""
    found = records(folder)
    if not found:
        sys.exit(f"{folder} holds no records of trainings; `make learn` writes them.")
    head = TRAINED.format(draws=DRAWS, mean=(1 + 1 / DRAWS) ** 0.5)
    rows = [row for name, record in found.items() for row in trained_rows(name, record)]
    missing = [name for name in TRAININGS if name not in found]
    told = f"\nNot run: {', '.join(missing)}.\n" if missing else ""
    draw_curves(found, REPOSITORY / CURVES)
    (REPOSITORY / FIGURES).write_text(json.dumps(figures_of_methods(found), indent=1) + "\n")
    octaves = [[name, *map(_number, record["octaves"])] for name, record in found.items() if "octaves" in record]
    by_noise = f"{BY_NOISE}{markdown_of(NOISE_HEADS, octaves)}\n" if octaves else ""
    picture = f"\n![Error and loss by training step]({CURVES.relative_to('docs')})\n"
    return f"{head}{markdown_of(HEADS, rows)}\n{told}{by_noise}{picture}"


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER
    pages = {"perfect": ("learning.md", lambda: page(measured())), "trained": ("trained.md", lambda: trained_page(place))}
    name, made = pages[sys.argv[1]]
    target = REPOSITORY / "docs" / name
    target.write_text(made())
    print(f"Written: {target.relative_to(REPOSITORY)}")
