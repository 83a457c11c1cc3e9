"""What must be known of data and degradation before a network is built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """An image of `lr_bands` bands becomes one of `bands` bands, `scale` times as high and wide.

    scale     ratio of target to input pixels per side (the training scale; continuous-scale methods accept others at run time)
    bands     C, bands of the target
    lr_bands  c, bands of the input
    """

    scale: float
    bands: int
    lr_bands: int

    def refuse_fraction(self, model: str) -> str | None:
        """Return a sentence where the scale is no whole number of at least 1, else None."""
        if self.scale >= 1 and self.scale == int(self.scale):
            return None
        return f"model {model} enlarges by whole numbers and the scale is {self.scale:g}; set scale=2, 3 or 4."

    def refuse_other_scales(self, model: str) -> str | None:
        """Return the sentence with which a network that keeps the pixels refuses any scale but 1, else None."""
        if self.scale == 1:
            return None
        return f"model {model} adds bands and keeps the pixels, and the scale is {self.scale:g}; set scale=1."
