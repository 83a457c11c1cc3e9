"""The page of everything in an outputs folder: runs that can be sorted, filtered and compared; one file, no network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rsdiff.reporting.page import embedded_detail, write_page

SIDE = 256
"""Pixels of a picture that are shown, of its middle, unscaled: differences between methods are in the details."""
MOST_BYTES = 24 * 2**20
"""Of all pictures together; those of older runs are left to their reports."""
KINDS = ("lr", "bicubic", "sr", "hr")


def pictures_of(evaluation: Path, most: int) -> dict[str, dict[str, str]]:
    """Return the middles of the first pictures that an evaluation drew: {image: {'lr': address, 'bicubic': .., 'sr': .., 'hr': ..}}."""
    drawn = sorted(evaluation.glob("**/panels/*.sr.png"))[:most]
    pictures = {}
    for path in drawn:
        name = (path.relative_to(evaluation).parent.parent / path.name.removesuffix(".sr.png")).as_posix()
        of_kind = {kind: path.with_name(path.name.removesuffix("sr.png") + f"{kind}.png") for kind in KINDS}
        pictures[name] = {kind: embedded_detail(file, SIDE) for kind, file in of_kind.items() if file.is_file()}
    return pictures


def described(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what the page says of those of `names` that are metrics, and their place among all."""
    from rsdiff.metrics import METRICS  # with PyTorch, which a page of runs that are known does not need

    wanted = set(names)
    return {
        name: {"title": metric.title, "unit": metric.unit, "direction": metric.direction, "meaning": metric.meaning, "order": order}
        for order, (name, metric) in enumerate(METRICS.items())
        if name in wanted
    }


def write_board_page(
    page: Path, runs: Sequence[Mapping[str, Any]], sweeps: Sequence[Mapping[str, Any]], tables: Sequence[Mapping[str, Any]]
) -> Path:
    """Write the page and return its path.

    runs    as rsdiff.runs.board makes them, the newest first
    sweeps  {'name', 'command', 'page', 'counts', 'runs'}; tables {'name', 'page'}; pages as seen from the page's folder
    """
    shared = Shared()
    metrics = {name: metric for run in reversed(runs) for name, metric in run["metrics"].items()}  # as the newest run says
    content = {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": [shared.run(run) for run in runs],
        "sweeps": list(sweeps),
        "tables": list(tables),
        "settings": list(shared.settings),
        "pictures": list(shared.pictures),
        "without_pictures": shared.without,
        "metrics": dict(sorted(metrics.items(), key=lambda named: named[1]["order"])),
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # no text of a run can end the script
    write_page(page, "board", data=Markup(text), title=f"Runs in {page.parent.resolve().name}")
    return page


class Shared:
    """What runs have in common and the page holds once: settings, and pictures of the same test images."""

    def __init__(self) -> None:
        self.settings: dict[str, int] = {}
        self.pictures: dict[str, int] = {}
        self.size = 0
        self.without = 0

    def run(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run with numbers in place of settings and pictures."""
        pictures: Mapping[str, Mapping[str, str]] = run["pictures"]
        new = {address for kinds in pictures.values() for address in kinds.values() if address not in self.pictures}
        size = sum(map(len, new))
        if self.size + size > MOST_BYTES:
            self.without += 1
            pictures = {}
        else:
            self.size += size
        numbered = {image: {kind: _number(self.pictures, text) for kind, text in kinds.items()} for image, kinds in pictures.items()}
        shown = {name: value for name, value in run.items() if name != "metrics"}
        return {**shown, "settings": [_number(self.settings, text) for text in run["settings"]], "pictures": numbered}


def _number(known: dict[str, int], text: str) -> int:
    return known.setdefault(text, len(known))
