"""Comparison panels: input, bicubic, restored image, reference and error of one image, whole and in detail, as one PNG."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rsdiff.reporting.display import Picture, busiest_window, display_of, enlarged
from rsdiff.reporting.records import write_whole
from rsdiff.reporting.style import DETAIL, INK, MUTED, styled

DOTS_PER_INCH = 130
QUICK = 1
"""Effort of compressing PNG: a third of the time of the usual 6, and textured images become no larger."""
CELL, GAP, EDGE, HEADER = 2.35, 0.07, 0.1, 0.84
"""Inches: width of a cell, space between cells, margin of the sheet, room for names above the first row."""


DETAIL_COLOURS = np.array([(0, 158, 60), (0, 90, 255), (230, 20, 20)], np.float64)
"""Of detail that improves, is missing and was invented."""


@dataclass(frozen=True)
class Panel:
    """What a panel shows of one image.

    lr        (c, h, w) in [0, 1]
    restored  (C, H, W) in [0, 1], what the method made of it
    bicubic   (C, H, W) or None
    hr        (C, H, W) or None; without it there are no errors to show
    method    name over the restored image
    captions  scores below the names, by 'bicubic', 'sr' and 'kernel', e.g. {'sr': 'PSNR 27.31 dB, SSIM 0.812'}
    kernels   (k, k) blur kernels, the true one and the one the method estimates, or None
    detail    (3, H, W) shares of detail that improves, is missing and was invented; NaN where nothing is judged; or None
    """

    name: str
    lr: Tensor
    restored: Tensor
    method: str
    bicubic: Tensor | None = None
    hr: Tensor | None = None
    captions: tuple[tuple[str, str], ...] = ()
    rgb_bands: tuple[int, int, int] = (0, 1, 2)
    kernels: tuple[Tensor, Tensor] | None = None
    detail: Tensor | None = None


def write_panel(folder: Path, panel: Panel) -> Path:
    """Write `folder`/<name>.png and return its path; the single pictures lie beside it as <name>.lr.png, .bicubic.png, .sr.png, .hr.png.

    The single pictures have the size of the target (the LR with repeated pixels): the report's slider lays them over each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(panel)
    path = folder / f"{file_name(panel.name)}.png"
    for key, picture in pictures.items():
        write_whole(path.with_suffix(f".{key}.png"), partial(Image.fromarray(picture).save, format="PNG", compress_level=QUICK))
    data = _draw(panel, pictures)
    write_whole(path, lambda at: at.write_bytes(data))
    return path


def file_name(name: str) -> str:
    """Return the name of an image as that of a file, another one for every name: 'Port/port_1' gives 'Port--port_1'.

    Everything but letters, digits, '-' and '_' becomes '_', so that no picture can be mistaken for a suffix; a digest then tells it from
    other names that would be the same.
    """
    made = re.sub(r"[^\w/-]+", "_", name).replace("/", "--")
    return made if made.replace("--", "/") == name else f"{made}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"


def _pictures(panel: Panel) -> dict[str, Picture]:
    size = (int(panel.restored.shape[-2]), int(panel.restored.shape[-1]))
    shown = panel.hr if panel.hr is not None else panel.restored
    display = display_of(shown, panel.rgb_bands)
    # An LR of other bands (spectral super-resolution) is shown by its own rule.
    of_lr = display if panel.lr.shape[0] == shown.shape[0] else display_of(panel.lr)
    pictures = {"lr": enlarged(of_lr.picture(panel.lr), size)}
    if panel.bicubic is not None:
        pictures["bicubic"] = display.picture(panel.bicubic)
    pictures["sr"] = display.picture(panel.restored)
    if panel.hr is not None:
        pictures["hr"] = display.picture(panel.hr)
    return pictures


def _draw(panel: Panel, pictures: dict[str, Picture]) -> bytes:
    errors = _errors(panel)
    height, width = pictures["sr"].shape[:2]
    sheet = _Sheet(
        columns=len(pictures) + (panel.detail is not None) + (panel.kernels is not None) + bool(errors),
        cell_height=CELL * min(max(height / width, 0.5), 2.0),
        right=0.62 if errors else EDGE,
    )
    titles = {"lr": "Input (LR)", "bicubic": "Bicubic", "sr": panel.method, "hr": "Reference (HR)", "detail": "Detail"}
    captions = {"lr": f"{panel.lr.shape[-1]} x {panel.lr.shape[-2]} px", "hr": f"{width} x {height} px", **dict(panel.captions)}
    captions["detail"] = "green improves, blue lacks, red is invented"
    shown = {**pictures, **({} if panel.detail is None else {"detail": _detail_picture(panel.detail)})}
    top, left, side, _ = busiest_window(panel.hr if panel.hr is not None else panel.restored)
    with styled():
        figure = Figure(figsize=(sheet.width, sheet.height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        figure.text(EDGE / sheet.width, 1 - 0.21 / sheet.height, panel.name, fontsize=10.5, fontweight="bold", color=INK, va="center")
        for column, (key, picture) in enumerate(shown.items()):
            whole = figure.add_axes(sheet.cell(0, column))
            whole.imshow(picture, interpolation="antialiased", aspect="auto" if height > 2 * width or width > 2 * height else "equal")
            whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=DETAIL, linewidth=1.4))
            sheet.label(figure, column, titles[key], captions.get(key, ""))
            detail = figure.add_axes(sheet.cell(1, column))
            detail.imshow(picture[top : top + side, left : left + side], interpolation="nearest")
            _bare(whole, None)
            _bare(detail, DETAIL)
        if panel.kernels is not None:
            sheet.label(figure, len(shown), "Blur kernel", captions.get("kernel", ""))
            _draw_kernels(figure, sheet, len(shown), panel.kernels)
        if errors:
            _draw_errors(figure, sheet, errors)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": QUICK})
    return buffer.getvalue()


@dataclass(frozen=True)
class _Sheet:
    """Where things lie, in inches: a row of whole images above a row of details, names above both."""

    columns: int
    cell_height: float
    right: float

    @property
    def width(self) -> float:
        return EDGE + self.columns * CELL + (self.columns - 1) * GAP + self.right

    @property
    def height(self) -> float:
        return HEADER + self.cell_height + GAP + CELL + EDGE

    def cell(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return (left, bottom, width, height) of a cell as shares of the sheet."""
        height = self.cell_height if row == 0 else CELL
        bottom = EDGE + (CELL + GAP if row == 0 else 0)
        return self._left(column), bottom / self.height, CELL / self.width, height / self.height

    def label(self, figure: Figure, column: int, title: str, caption: str) -> None:
        """Write a column's name and, below it, its scores."""
        figure.text(self._left(column), 1 - 0.50 / self.height, title, fontsize=9, fontweight="bold", color=INK, va="center")
        figure.text(self._left(column), 1 - 0.69 / self.height, caption, fontsize=7.5, color=MUTED, va="center")

    def _left(self, column: int) -> float:
        return (EDGE + column * (CELL + GAP)) / self.width


def _detail_picture(shares: Tensor) -> Picture:
    """Return shares (3, H, W) of detail as a picture (H, W, 3) of mixed colours; light grey where nothing is judged."""
    values = shares.float().numpy()
    mixed = np.tensordot(values, DETAIL_COLOURS, ((0,), (0,)))
    return np.where(np.isfinite(mixed), mixed, 225.0).round().astype(np.uint8)


def _errors(panel: Panel) -> dict[str, NDArray[np.float32]]:
    """Mean absolute error over bands of the restored image and of bicubic interpolation."""
    if panel.hr is None:
        return {}
    images = {panel.method: panel.restored} | ({"Bicubic": panel.bicubic} if panel.bicubic is not None else {})
    hr = panel.hr.detach().float().cpu()
    return {name: (image.detach().float().cpu() - hr).abs().mean(0).numpy() for name, image in images.items()}


def _draw_errors(figure: Figure, sheet: _Sheet, errors: dict[str, NDArray[np.float32]]) -> None:
    finite = np.concatenate([error[np.isfinite(error)] for error in errors.values()])
    high = max(float(np.quantile(finite, 0.995)), 1e-6) if finite.size else 1.0
    column = sheet.columns - 1
    sheet.label(figure, column, "Absolute error", "mean of bands, one scale")
    for row, (name, error) in enumerate(errors.items()):
        axes = figure.add_axes(sheet.cell(row, column))
        height, width = error.shape
        drawn = axes.imshow(
            error, cmap="inferno", vmin=0, vmax=high, aspect="auto" if height > 2 * width or width > 2 * height else "equal"
        )
        _name(axes, name)
        _bare(axes, None)
        left, bottom, width_share, height_share = sheet.cell(row, column)
        bar = figure.add_axes((left + width_share + 0.05 / sheet.width, bottom, 0.07 / sheet.width, height_share))
        figure.colorbar(drawn, cax=bar, ticks=MaxNLocator(4))
        bar.tick_params(labelsize=7, length=2, colors=MUTED, pad=1.5)
        bar.set_frame_on(False)


def _draw_kernels(figure: Figure, sheet: _Sheet, column: int, kernels: tuple[Tensor, Tensor]) -> None:
    """Draw the true kernel above the estimated one, on the true one's scale."""
    true, estimated = (kernel.detach().float().cpu().numpy() for kernel in kernels)
    for row, (name, kernel) in enumerate((("true", true), ("estimated", estimated))):
        axes = figure.add_axes(sheet.cell(row, column))
        axes.imshow(kernel, cmap="inferno", vmin=0, vmax=max(float(true.max()), 1e-6), interpolation="nearest")
        _name(axes, f"{name}, {kernel.shape[0]} x {kernel.shape[1]}")
        _bare(axes, None)


def _name(axes: Axes, name: str) -> None:
    """Write what a cell shows into its corner."""
    box = {"facecolor": "#00000099", "linewidth": 0}
    axes.text(0.035, 0.965, name, transform=axes.transAxes, va="top", fontsize=7.5, color="white", bbox=box)


def _bare(axes: Axes, edge: str | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(edge is not None)
        if edge is not None:
            spine.set(edgecolor=edge, linewidth=1.8)
