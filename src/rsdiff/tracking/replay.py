"""Sends what a finished run recorded in its folder to a tracker that was not there at the time."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rsdiff.tracking.json_lines import read_history
from rsdiff.tracking.tracker import Cell, Tracker


def replay(folder: Path, tracker: Tracker, checkpoint: Path | None) -> None:
    """Give `tracker` the history, pictures and tables of the run in `folder`, and its checkpoint, and close it."""
    pictures = sorted((int(found[2]), found[1], path) for path in (folder / "images").rglob("*.png") if (found := _name(folder, path)))
    for record in read_history(folder):
        step = int(record["step"])
        while pictures and pictures[0][0] < step:
            _send(tracker, *pictures.pop(0))
        tracker.log(step, {name: value for name, value in record.items() if name != "step"})
    for picture in pictures:
        _send(tracker, *picture)
    for path in sorted((folder / "tables").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            tracker.table(path.stem, [{name: _cell(text) for name, text in row.items()} for row in csv.DictReader(stream)])
    if checkpoint is not None:
        tracker.model(checkpoint)
    tracker.finish("finished")


def _name(folder: Path, path: Path) -> re.Match[str] | None:
    """Return the match of '<name>_<step>' for a picture of the history."""
    return re.fullmatch(r"(.+)_(\d{8})", path.relative_to(folder / "images").with_suffix("").as_posix())


def _send(tracker: Tracker, step: int, name: str, path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    values: Tensor = torch.from_numpy(pixels).float() / 255
    tracker.image(name, values[None] if values.ndim == 2 else values.permute(2, 0, 1), step)


def _cell(text: str) -> Cell:
    try:
        return float(text)
    except ValueError:
        return text
