"""Makes the pictures of docs/gallery.md with weights of the zoo: make gallery DATA_ROOT=FOLDER.

It takes a quarter of an hour of one core, nearly all of it for samples of the diffusion.

FOLDER/scenes/RGB.byte.tif is the Landsat 7 scene of rasterio's test data, which is in the public domain; without it the picture of a scene
on its map stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import rsdiff
from rsdiff.data.synthetic import SyntheticDataset
from rsdiff.degradations.kernels import anisotropic_kernels, isotropic_kernels
from rsdiff.reporting.style import BASELINE, METHOD, REFERENCE, SERIES, styled

PLACE = Path(__file__).resolve().parent / "images/gallery"
RUN = Path(__file__).resolve().parent.parent / "run.py"
Array = NDArray[np.uint8]
SIDE, DETAIL = 256, 72


def scene(index: int) -> Array:
    """Return a generated scene, (SIDE, SIDE, 3) in 8 bits, that no weights were trained on."""
    return SyntheticDataset(size=SIDE, test_images=index + 1).build("test", 4).raw(index).arrays["hr"].transpose(1, 2, 0)


def enlarged(image: Array, side: int, method: Image.Resampling) -> Array:
    return np.asarray(Image.fromarray(image).resize((side, side), method))


def compare(name: str, checkpoint: str, degradation: str, rows: Sequence[tuple[int, int, int]], detail: int = DETAIL) -> None:
    """Draw input, bicubic, restored image and reference; a row is (scene, top, left) of the detail, `detail` pixels a side."""
    model, bicubic = rsdiff.load(checkpoint), rsdiff.load("bicubic")
    figure = Figure((11, 2.95 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for axes, (index, top, left) in zip(grid, rows, strict=True):
        lr, hr, _ = rsdiff.degrade(scene(index), degradation, scale=4, seed=index)
        results = {"bicubic": bicubic.restore(lr, scale=4), checkpoint: model.restore(lr, scale=4)}
        told = {key: f"{key}\n{rsdiff.score(sr, hr, 'basicsr_y', metrics=['psnr'])[0]['psnr']:.2f} dB" for key, sr in results.items()}
        shown = {"input": enlarged(lr, SIDE, Image.Resampling.NEAREST), **results, "reference": hr}
        for place, (key, image) in zip(axes, shown.items(), strict=True):
            _show(place, image[top : top + detail, left : left + detail], told.get(key, f"{key}\n"))
    save(figure, name)


def texture(name: str, rows: Sequence[tuple[int, int, int]]) -> None:
    """Draw what a regression and a diffusion make of an input, each time with its reference; a row is (scene, top, left) of the detail."""
    regression, diffusion = rsdiff.load("zoo:any_scale"), rsdiff.load("zoo:texture_x4")
    figure = Figure((13, 2.75 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 6, squeeze=False)
    for axes, (index, top, left) in zip(grid, rows, strict=True):
        lr, hr, _ = rsdiff.degrade(scene(index), "bicubic", scale=4)
        mean, _ = diffusion.restore(lr, scale=4, samples=8)
        drawn = {f"zoo:texture_x4, seed {seed}": diffusion.restore(lr, scale=4, seed=seed) for seed in (0, 1)}
        results = {"zoo:any_scale": regression.restore(lr, scale=4), **drawn, "mean of 8 samples": mean}
        shown = {"input": enlarged(lr, SIDE, Image.Resampling.NEAREST), **results, "reference": hr}
        for place, (key, image) in zip(axes, shown.items(), strict=True):
            _show(place, image[top : top + DETAIL, left : left + DETAIL], key)
    save(figure, name)


def scales(name: str) -> None:
    """Draw one input enlarged by four factors."""
    lr, _, _ = rsdiff.degrade(scene(1), "bicubic", scale=4)
    model = rsdiff.load("zoo:any_scale")
    figure = Figure((11, 3), layout="constrained")
    for place, factor in zip(figure.subplots(1, 4), (1.5, 2, 2.7, 4), strict=True):
        image = model.restore(lr, scale=factor)
        _show(place, image[: image.shape[0] // 2, : image.shape[1] // 2], f"x{factor:g}: {image.shape[1]} x {image.shape[0]} pixels")
    save(figure, name)


def spectra(name: str) -> None:
    """Draw the mean power at each frequency of 4 scenes: what interpolation loses and what the network brings back."""
    models = {name: rsdiff.load(name) for name in ("bicubic", "zoo:any_scale", "zoo:texture_x4")}
    powers: dict[str, list[Any]] = {name: [] for name in ("reference", *models)}
    for index in range(4):
        lr, hr, _ = rsdiff.degrade(scene(index), "bicubic", scale=4)
        for key, image in {"reference": hr, **{name: model.restore(lr, scale=4) for name, model in models.items()}}.items():
            powers[key].append(radial_power(image.mean(-1)))
    figure = Figure((7, 3.4), layout="constrained")
    axes = figure.subplots()
    for (key, values), colour in zip(powers.items(), (REFERENCE, BASELINE, METHOD, SERIES[3]), strict=True):
        mean = np.mean(values, 0)
        axes.semilogy(np.linspace(0, 0.5, len(mean)), mean, label=key, color=colour)
    axes.axvline(0.125, color="#66717f", linestyle=":", linewidth=1)
    axes.text(0.128, axes.get_ylim()[1] / 4, "highest frequency\nof the input", fontsize=8, color="#66717f", va="top")
    axes.set_xlabel("frequency (cycles per pixel)")
    axes.set_ylabel("power")
    axes.legend()
    save(figure, name)


def radial_power(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean power of an image (H, W), windowed, in rings of frequency from 0 to half a cycle per pixel."""
    window = np.outer(np.hanning(len(image)), np.hanning(len(image)))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(len(image)), np.fft.fftfreq(len(image))))
    rings = (frequency * len(image)).round().astype(int).ravel()
    return (np.bincount(rings, power.ravel()) / np.bincount(rings))[1 : len(image) // 2]


def kernels(name: str) -> None:
    """Draw blur kernels of the groups iso (width) and aniso (two widths and an angle)."""
    widths = torch.tensor([0.6, 1.2, 1.8, 2.4, 3.0, 4.0])
    angles = torch.linspace(0, np.pi, 7)[:-1]
    round_ones, long_ones = isotropic_kernels(widths, 21), anisotropic_kernels(torch.full((6,), 4.0), torch.full((6,), 1.2), angles, 21)
    figure = Figure((9, 3.4), layout="constrained")
    grid = figure.subplots(2, 6)
    for column in range(6):
        _show(grid[0, column], round_ones[column], f"width {float(widths[column]):.1f}", cmap="magma")
        _show(grid[1, column], long_ones[column], f"4.0, 1.2 at {np.degrees(float(angles[column])):.0f}°", cmap="magma")
    save(figure, name)


def eight_results(lr: Array) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean (H, W, C) and deviation (H, W) of the results for eight flips and turns of an input, in grey levels."""
    model = rsdiff.load("zoo:any_scale")
    results = []
    for turns, flip in [(turns, flip) for turns in range(4) for flip in (False, True)]:
        image = np.rot90(lr[:, ::-1] if flip else lr, turns)
        back = np.rot90(model.restore(np.ascontiguousarray(image), scale=4), -turns)
        results.append((back[:, ::-1] if flip else back).astype(float))
    return np.mean(results, 0), np.std(results, 0).mean(-1)


def spread(name: str) -> None:
    """Draw how far the results for eight flips and turns of an input disagree, beside their mean and its error."""
    lr, hr, _ = rsdiff.degrade(scene(2), "bicubic", scale=4)
    mean, deviation = eight_results(lr)
    error = np.abs(mean - hr).mean(-1)
    figure = Figure((11, 3.2), layout="constrained")
    places = figure.subplots(1, 4)
    _show(places[0], hr, "reference")
    _show(places[1], mean.round().astype(np.uint8), "mean of eight results")
    for place, values, title in (
        (places[2], deviation, "their spread (grey levels)"),
        (places[3], error, "error of the mean (grey levels)"),
    ):
        _show(place, values, title, cmap="magma", vmax=float(np.quantile(values, 0.99)))
        figure.colorbar(place.images[0], ax=place, shrink=0.8)
    save(figure, name)
    print(f"correlation of spread and error over pixels: {np.corrcoef(deviation.ravel(), error.ravel())[0, 1]:.2f}")


WINDOW = (386, 336, 112, 112)
"""Top, left, height and width of the part of the Landsat scene that is restored: lagoons and the reef of Andros, the Bahamas."""


def on_the_map(name: str, path: Path) -> None:
    """Draw a part of a georeferenced scene before and after task=restore, in map coordinates, and where the network is unsure."""
    top, left, height, width = WINDOW
    with tempfile.TemporaryDirectory() as folder:
        words = ["task=restore", "checkpoint=zoo:any_scale", "scale=4", f"input={path}", f"output={folder}/x4.tif", f"outputs={folder}"]
        subprocess.run([sys.executable, RUN, *words, f"task.window=[{top},{left},{height},{width}]"], check=True)
        with rasterio.open(path) as before, rasterio.open(f"{folder}/x4.tif") as after:
            whole, small, large = (
                _rows(image) for image in (before.read(), before.read(window=((top, top + height), (left, left + width))), after.read())
            )
            valid = before.dataset_mask() > 0
            frames = [_frame(data.bounds) for data in (before, after)]
            sizes = [data.res[0] for data in (before, after)]
            projection = str(before.crs)
    low, high = np.percentile(small, (1, 97), axis=(0, 1))  # for the eye only

    def shown(image: Array) -> NDArray[Any]:
        return np.clip((image - low) / (high - low), 0, 1)

    figure = Figure((11, 8.6), layout="constrained")
    places = figure.subplots(2, 2).ravel()
    overview = np.where(valid[..., None], shown(whole), 1.0)
    _map(places[0], overview, frames[0], f"Landsat 7, Andros (the Bahamas), pixels of {sizes[0]:.0f} m", 50)
    x0, x1, y0, y1 = frames[1]
    places[0].plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#ffd54a", linewidth=1.6)
    _map(places[1], shown(small), frames[1], f"the marked part: {width} x {height} pixels", 5)
    _map(places[2], shown(large), frames[1], f"restored: {4 * width} x {4 * height} pixels of {sizes[1]:.0f} m", 5)
    deviation = eight_results(small)[1]
    _map(
        places[3], deviation, frames[1], "spread of eight results (grey levels)", 5, cmap="magma", vmax=float(np.quantile(deviation, 0.995))
    )
    figure.colorbar(places[3].images[0], ax=places[3], shrink=0.85, pad=0.01, aspect=30)
    figure.supxlabel(f"easting (km), {projection}", fontsize=9)
    figure.supylabel("northing (km)", fontsize=9)
    save(figure, name)


def _rows(image: Array) -> Array:
    return np.moveaxis(image, 0, -1)


def _frame(bounds: Any) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top in km."""
    return bounds.left / 1e3, bounds.right / 1e3, bounds.bottom / 1e3, bounds.top / 1e3


def _map(place: Axes, image: Any, frame: tuple[float, float, float, float], title: str, bar: float, **options: Any) -> None:
    """Draw an image in map coordinates with a scale bar of `bar` km at its lower left."""
    place.imshow(image, extent=frame, interpolation="nearest", **options)
    place.set_title(title, fontsize=9)
    place.tick_params(labelsize=7)
    place.grid(visible=False)
    left, right, bottom, top = frame
    x, y = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    for colour, thick in (("black", 5), ("white", 2.5)):
        place.plot([x, x + bar], [y, y], color=colour, linewidth=thick, solid_capstyle="butt")
    style = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "edgecolor": "none"}
    place.text(x, y + 0.025 * (top - bottom), f"{bar:g} km", color="white", fontsize=8, bbox=style)
    place.set_xlim(left, right)
    place.set_ylim(bottom, top)


def _show(place: Axes, image: Any, title: str, **options: Any) -> None:
    place.imshow(image, interpolation="nearest", **options)
    place.set_title(title, fontsize=9)
    place.set_axis_off()


def save(figure: Figure, name: str) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLACE / f"{name}.jpg", dpi=100, pil_kwargs={"quality": 85, "optimize": True})


if __name__ == "__main__":
    landsat = Path(sys.argv[1] if len(sys.argv) > 1 else "data") / "scenes/RGB.byte.tif"
    if len(sys.argv) > 1 and not landsat.is_file():
        sys.exit(
            f"{landsat} does not exist; DATA_ROOT is the folder that holds scenes/RGB.byte.tif. Without it all other pictures are made."
        )
    with styled():
        compare("any_scale", "zoo:any_scale", "bicubic", [(1, 60, 60), (4, 120, 100)])
        compare("blind", "zoo:blind_x4", "bsrgan", [(2, 40, 40), (4, 40, 40)], detail=176)  # drawn with noise, and with blur and blocks
        texture("texture", [(1, 60, 60), (4, 120, 100)])
        scales("scales")
        spectra("spectra")
        kernels("kernels")
        spread("spread")
        if landsat.is_file():
            on_the_map("scene", landsat)
        else:
            print(f"{landsat} is not there; the picture of a scene on its map stays as it is")
