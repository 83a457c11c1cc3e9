"""What task=calibrate found, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rsdiff.metrics.calibration import LEVELS, Calibration, Pixels, coverages


def by_class(images: Mapping[str, Pixels], labels: Mapping[str, str], calibration: Calibration) -> dict[str, tuple[int, float]]:
    """Return (images, coverage of 90 %) by class folder; nothing for data without classes."""
    classes = sorted({labels[name] for name in images} - {""})
    members = {label: [pixels for name, pixels in images.items() if labels[name] == label] for label in classes}
    return {label: (len(own), coverages(own, calibration)[0.9]) for label, own in members.items()}


def calibration_text(
    calibration: Calibration,
    before: Mapping[float, float],
    after: Mapping[float, float],
    classes: Mapping[str, tuple[int, float]],
    tried: int,
    what: str,
) -> str:
    """Return what was found, in Markdown. `what` the intervals are made of: "samples" or "quantiles"."""
    lines = [
        f"# Intervals of {calibration.samples} {what}",
        "",
        f"Fitted on {calibration.images} images: error = hypot({calibration.factor:.3g} x spread, {calibration.floor:.3g} of the range).",
        "",
    ]
    if tried:
        lines += [
            f"Share of HR values within the intervals, over {tried} images that they were not fitted on:",
            "",
            "| level | calibrated | uncalibrated | reaches, in errors |",
            "|---:|---:|---:|---:|",
            *(
                f"| {level:g} | {_share(after[level])} | {_share(before[level])} | {calibration.reaches[level]:.3g} |"
                for level in LEVELS
                if math.isfinite(calibration.reaches[level])
            ),
        ]
    if classes:
        lines += ["", "| class | images | within 90 % |", "|---|---:|---:|"]
        lines += [f"| {label} | {count} | {_share(share)} |" for label, (count, share) in classes.items()]
    beyond = [level for level in LEVELS if not math.isfinite(calibration.reaches[level])]
    if beyond:
        lines += ["", f"Levels {', '.join(f'{level:g}' for level in beyond)} take more images."]
    others = calibration.images - calibration.images // 4
    extreme = [level for level in LEVELS if math.isfinite(calibration.reaches[level]) and level > (others - 1) / (others + 1)]
    if extreme:
        lines += [
            "",
            f"Intervals of {', '.join(f'{level:g}' for level in extreme)} reach about as far as the largest error of {others} images; "
            "calibrate on more images for narrower ones.",
        ]
    return "\n".join([*lines, ""])


def _share(value: float) -> str:
    return f"{value:.3f}"
