"""Writes docs/learning.md: python -m tests.learning.report. The page says what each method is worth with a perfect network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.learning.cases import CASES, world
from tests.learning.checks import Loss, Samples, check_levels, check_loss, samples_of
from tests.learning.test_faults import FAULTS

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


if __name__ == "__main__":
    target = Path(REPOSITORY / "docs" / "learning.md")
    target.write_text(page(measured()))
    print(f"Written: {target.relative_to(REPOSITORY)}")
