"""Calibrations beside checkpoints: which one fits a run, and where task=calibrate puts what it found.

A calibration belongs to weights, scale, sampler and number of samples; that of other ones is not used. It lies in the checkpoint's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsdiff.config import UserError
from rsdiff.data.digests import found_in
from rsdiff.data.durable import write_json
from rsdiff.data.source import ImageSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.metrics.calibration import Calibration
from rsdiff.runs.content import CALIBRATIONS, digest_of_checkpoint
from rsdiff.runs.identity import settings_of, signature_of
from rsdiff.training.checkpoints import Checkpoint

FILE = "calibration.json"
"""What a run of task=calibrate writes."""
NONE = "none"
"""task.calibration=none uses no calibration."""


@dataclass(frozen=True)
class Stored:
    """A calibration with what it was fitted for and on.

    fits       scale, sampler and samples, and the weights of the other checkpoints of an ensemble
    images     short digests of the images it was fitted on (see rsdiff.data.digests)
    data       data set and degradation, in words
    """

    calibration: Calibration
    fits: dict[str, Any]
    images: str
    data: str

    def names_in(self, source: ImageSource) -> frozenset[str]:
        """Return the names of the images of a split that it was fitted on."""
        return frozenset(source.name(index) for index in found_in(source.contents(), self.images))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"fits": self.fits, "data": self.data, "calibration": self.calibration.to_json(), "images": self.images}


def fits_of(scale: float, sampler: SamplerConfig, samples: int, beside: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what a calibration must have been fitted for to be of use in a restoration; `beside` are further checkpoints."""
    found: dict[str, Any] = settings_of({"scale": float(scale), "samples": samples, "sampler": sampler})
    others = [digest_of_checkpoint(place) for place in beside]
    return {**found, **({"ensemble": others} if others else {})}


def find(scale: float, sampler: SamplerConfig, place: Path | None, given: str, samples: int, beside: Sequence[Path] = ()) -> Stored | None:
    """Return the calibration of a restoration: the one that is given, else one in the checkpoint's folder that fits, else None.

    place   the checkpoint's folder
    beside  those of further checkpoints of an ensemble

    Raises UserError where the one that is given does not fit or cannot be read.
    """
    if given == NONE or samples < 2:
        return None
    wanted = fits_of(scale, sampler, samples, beside)
    if given:
        path = Path(given).expanduser()
        stored = read(path / FILE if path.is_dir() else path)
        if stored.fits != wanted:
            different = ", ".join(
                f"{name} {stored.fits.get(name)}, not {value}" for name, value in wanted.items() if stored.fits.get(name) != value
            )
            raise UserError(f"task.calibration={given} is of another restoration ({different}); use the same settings, or calibrate anew.")
        return stored
    found = [] if place is None else [read(path) for path in sorted(place.glob(CALIBRATIONS))]
    return next((stored for stored in found if stored.fits == wanted), None)


def keep(stored: Stored, checkpoint: Checkpoint) -> Path:
    """Put a calibration beside a checkpoint, in place of a former one of the same restoration; return where. Raises OSError."""
    path = checkpoint.folder / CALIBRATIONS.replace("*", signature_of(stored.fits))
    write_json(path, stored.to_json(), is_only_writer=True)
    return path


def read(path: Path) -> Stored:
    """Return a calibration from its file; raises UserError in one sentence."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Stored(Calibration.from_json(values["calibration"]), dict(values["fits"]), str(values["images"]), str(values["data"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no calibration ({type(error).__name__}); give a run folder of task=calibrate.") from None


def sentences(stored: Stored | None, samples: int, test: ImageSource | None = None) -> list[str]:
    """Return what is said of the intervals of a run; `test` are the images that it judges them on, if any."""
    if samples < 2:
        return []
    if stored is None:
        return ["the spread of the samples is not calibrated: it says too little of the errors of most models (task=calibrate)"]
    shared = 0 if test is None else len(stored.names_in(test))
    left_out = f"; {shared} of the images are left out there, they were fitted on" if shared else ""
    return [f"intervals are calibrated on {stored.calibration.images} images ({stored.data}){left_out}"]
