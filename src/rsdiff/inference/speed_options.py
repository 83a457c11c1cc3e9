"""The option of tasks that restore to let the device decide how it computes."""

from __future__ import annotations

from typing import ClassVar, Literal

from rsdiff.config import config
from rsdiff.config.reading import ReadWith

WHEN_EXACT = ("speed", ("exact",))


@config
class SpeedOptions:
    """How a choice is made of the options that change how networks compute; see rsdiff.inference.speed."""

    read_with: ClassVar[ReadWith] = {"precision": WHEN_EXACT, "channels_last": WHEN_EXACT, "tf32": WHEN_EXACT}

    speed: Literal["exact", "fast"] = "exact"
    """exact: as precision, channels_last and tf32 say, which by default is float32. fast: what of them restores faster with this model on
    this device, measured in seconds when the run begins, printed with its distance from exact, noted in speed.json and kept."""
