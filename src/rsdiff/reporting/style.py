"""Colours and type of every figure and of the report."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib

INK = "#1d2733"
MUTED = "#66717f"
GRID = "#e3e8ee"
METHOD = "#0b6fa4"
BASELINE = "#c9702b"
REFERENCE = "#3c7d4e"
DETAIL = "#ffd23f"
SERIES = (METHOD, BASELINE, REFERENCE, "#7a4fa3", "#b0304f", "#4d8f8b")

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "rsdiff",
}


def styled() -> AbstractContextManager[None]:
    """Return the context in which a figure is made and saved; matplotlib's settings are as before when it ends."""
    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]
