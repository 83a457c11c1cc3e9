"""Generated overhead scenes of two dates: geometry drawn from a generator, then rendered through mixed materials.

A scene is laid out once: a street-and-field grid whose cells become fields, woods, housing, works or parks, then a river or lake, roads and
trees. Objects are present at the first date, the second, or both. Rendering paints surface numbers on a grid of half pixels, averages them
to material shares per pixel, and turns the shares into reflectance at any wavelengths, so all band sets show the same scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rsdiff.data.spectra import MATERIALS, mixture, reflectances

FIRST, SECOND, BOTH = 1, 2, 3
_FINE = 2  # half pixels
_FIELD_STYLES = 16
_LIT = 255

Points = NDArray[np.float32]  # (N, 2), x and y in pixels
T = TypeVar("T")


@dataclass(frozen=True)
class Surface:
    """What a painted number means: material shares (summing to the brightness), and how uneven the surface is."""

    shares: NDArray[np.float32]
    roughness: float = 0.06
    stripe_strength: float = 0.0
    stripe_period: float = 4.0
    stripe_angle: float = 0.0


@dataclass
class Shape:
    """A shape painted with `surface` (shadows: a light, 0..255) at `dates`.

    polygon (convex) and area (any): the outline; line: the course, `width` wide; strokes: (N, 2, 2), many lines of two points; disc: the
    centre, `width` is the radius.
    """

    kind: Literal["polygon", "area", "line", "strokes", "disc"]
    points: Points
    surface: int
    dates: int = BOTH
    width: float = 0.0


@dataclass
class Scene:
    """Geometry of a scene of `size` (H, W) pixels: shapes on the ground, then shadows, then shapes that stand above them.

    roughness_map  (H, W), zero mean, unit variance, the same at both dates
    """

    size: tuple[int, int]
    surfaces: list[Surface]
    roughness_map: NDArray[np.float32]
    ground: list[Shape] = field(default_factory=list)
    shadows: list[Shape] = field(default_factory=list)
    objects: list[Shape] = field(default_factory=list)


@dataclass
class Painted:
    """Surface number and light (0..255) of every half pixel, (2H, 2W) of uint8."""

    surface: NDArray[np.uint8]
    light: NDArray[np.uint8]


_FIXED = {
    "grass": Surface(mixture(crop=0.55, dark_soil=0.3, straw=0.1), 0.10),
    "tree": Surface(mixture(tree=0.85), 0.30),
    "tree_light": Surface(mixture(tree=1.15, crop=0.1), 0.25),
    "wood": Surface(mixture(tree=0.75), 0.45),
    "water": Surface(mixture(water=1.0), 0.04),
    "bank": Surface(mixture(bright_soil=0.6, crop=0.3), 0.10),
    "asphalt": Surface(mixture(asphalt=1.0), 0.05),
    "marking": Surface(mixture(metal=0.7, asphalt=0.3), 0.0),
    "track": Surface(mixture(bright_soil=0.8, sand=0.2), 0.06),
    "concrete": Surface(mixture(concrete=0.9), 0.05),
    "tiles_lit": Surface(mixture(tiles=1.1), 0.06),
    "tiles_dim": Surface(mixture(tiles=0.65), 0.06),
    "slate_lit": Surface(mixture(slate=1.3), 0.05),
    "slate_dim": Surface(mixture(slate=0.75), 0.05),
    "flat_roof": Surface(mixture(concrete=1.1), 0.04),
    "metal_roof": Surface(mixture(metal=1.0), 0.02, stripe_strength=0.04, stripe_period=4.0),
    "roof_unit": Surface(mixture(metal=0.5, asphalt=0.5), 0.02),
    "car_white": Surface(mixture(metal=1.2), 0.0),
    "car_red": Surface(mixture(tiles=0.8), 0.0),
    "car_dark": Surface(mixture(slate=0.5), 0.0),
}
_ROOFS = ("tiles_lit", "tiles_dim", "slate_lit", "slate_dim", "flat_roof", "metal_roof", "roof_unit")
_NUMBER = {name: _FIELD_STYLES + position for position, name in enumerate(_FIXED)}


def lay_out(size: tuple[int, int], rng: Generator, changes: float) -> Scene:
    """Return a scene of `size` (H, W); `changes` (0..1) is the share of fields and buildings that differ between the dates."""
    H, W = size
    scene = Scene(size, [*(_field_style(rng) for _ in range(_FIELD_STYLES)), *_FIXED.values()], _fractal_noise(size, rng))
    sun = rng.uniform(0.8, 1.6) * _direction(rng.uniform(0, 2 * np.pi))  # shadow of one unit of height, in pixels
    corners, centre = _grid(size, rng), rng.uniform(0.2, 0.8, 2) * (W, H)
    town = _pick(rng, {0.0: 0.25, 0.35: 0.3, 0.6: 0.25, 0.95: 0.2}) * max(H, W)
    rows, columns = corners.shape[0] - 1, corners.shape[1] - 1
    for i in range(rows):
        for j in range(columns):
            cell = np.stack([corners[i, j], corners[i, j + 1], corners[i + 1, j + 1], corners[i + 1, j]])
            if not _touches(cell, size):
                continue
            distance = float(np.hypot(*(cell.mean(0) - centre)))
            if distance < town * rng.uniform(0.75, 1.1):
                _fill_built_cell(scene, cell, rng, sun, changes)
            elif rng.random() < 0.14:
                _fill_wood(scene, cell, rng, sun)
            else:
                _fill_field(scene, cell, rng, changes)
    _lay_roads(scene, corners, rng, town > 0)
    _scatter_trees(scene, rng, sun)
    _lay_water(scene, rng)
    return scene


def paint(scene: Scene, date: int) -> Painted:
    """Return the surfaces and the light of a scene at one date (FIRST or SECOND)."""
    H, W = scene.size
    surface = np.full((H * _FINE, W * _FINE), _NUMBER["grass"], np.uint8)
    light = np.full_like(surface, _LIT)
    for shape in scene.ground:
        if shape.dates & date:
            _draw(surface, shape, shape.surface)
    for shape in scene.shadows:
        if shape.dates & date:
            _draw(light, shape, shape.surface)
    for shape in scene.objects:
        if shape.dates & date:
            _draw(surface, shape, shape.surface)
            _draw(light, shape, _LIT)
    return Painted(surface, light)


def render(scene: Scene, painted: Painted, wavelengths: Sequence[float]) -> NDArray[np.float32]:
    """Return reflectance (bands, H, W), 0 and above, at `wavelengths` in nm."""
    H, W = scene.size
    spectra, few_bands = reflectances(wavelengths), len(wavelengths) < len(MATERIALS)
    table = np.stack([surface.shares for surface in scene.surfaces])
    if few_bands:  # averaging half pixels commutes with mixing: whichever has fewer columns is averaged
        table = table @ spectra
    fine = table[painted.surface]  # (2H, 2W, bands or materials)
    mixed = fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]
    light = cv2.resize(painted.light, (W, H), interpolation=cv2.INTER_AREA).astype(np.float32) / _LIT
    brightness = light * _unevenness(scene, painted.surface[::2, ::2]) * np.float32(1 / _FINE**2)
    values = mixed.reshape(H * W, -1)
    if not few_bands:
        values = values @ spectra
    return np.multiply(values.T.reshape(len(wavelengths), H, W), brightness, dtype=np.float32)


def changed(first: Painted, second: Painted) -> NDArray[np.uint8]:
    """Return (1, H, W): 1 where surface or light of any half pixel differs between two paintings, else 0."""
    differs = (first.surface != second.surface) | (first.light != second.light)
    return (differs[::2, ::2] | differs[1::2, ::2] | differs[::2, 1::2] | differs[1::2, 1::2])[None].astype(np.uint8)


def buildings(painted: Painted) -> NDArray[np.uint8]:
    """Return (1, H, W): 1 where half of a pixel or more is roof in a painting, else 0."""
    roof = np.isin(painted.surface, [_NUMBER[name] for name in _ROOFS]).astype(np.uint8)
    return (roof[::2, ::2] + roof[1::2, ::2] + roof[::2, 1::2] + roof[1::2, 1::2] >= _FINE)[None].astype(np.uint8)


def _unevenness(scene: Scene, surface: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the relative brightness (H, W) that roughness and furrows give: 1 on average, never below 0.2."""
    H, W = scene.size
    table = np.array(
        [
            (s.roughness, s.stripe_strength, np.cos(s.stripe_angle) / s.stripe_period, np.sin(s.stripe_angle) / s.stripe_period)
            for s in scene.surfaces
        ],
        np.float32,
    )
    roughness, strength, along_x, along_y = (column[surface] for column in table.T)
    phase = along_x * np.arange(W, dtype=np.float32) + along_y * np.arange(H, dtype=np.float32)[:, None]
    return np.maximum(1 + roughness * scene.roughness_map + strength * np.sin(np.float32(2 * np.pi) * phase), 0.2)


def _field_style(rng: Generator) -> Surface:
    """Return the surface of a field: a crop at some stage over some soil, in rows."""
    green = _pick(rng, {rng.uniform(0.6, 1.0): 0.45, rng.uniform(0.1, 0.5): 0.25, 0.0: 0.3})
    dry = (1 - green) * _pick(rng, {0.0: 0.5, rng.uniform(0.4, 0.95): 0.5})
    bright = rng.uniform(0, 1)
    soil = 1 - green - dry
    shares = mixture(crop=green, straw=dry, dark_soil=soil * (1 - bright), bright_soil=soil * bright) * rng.uniform(0.85, 1.1)
    strength = _pick(rng, {0.0: 0.35, rng.uniform(0.05, 0.18): 0.65})
    return Surface(shares, rng.uniform(0.04, 0.10), strength, rng.uniform(3.0, 8.0), rng.uniform(0, np.pi))


def _fractal_noise(size: tuple[int, int], rng: Generator) -> NDArray[np.float32]:
    """Return (H, W) noise of zero mean and unit variance with as much contrast in every octave as in the next coarser one times 0.8."""
    H, W = size
    total = np.zeros(size, np.float32)
    cells, weight = max(2, max(size) // 64), 1.0
    while cells < 2 * max(size):
        shape = (min(H, cells * H // max(size) + 2), min(W, cells * W // max(size) + 2))
        octave = rng.standard_normal(shape, dtype=np.float32)
        total += np.float32(weight) * cv2.resize(octave, (W, H), interpolation=cv2.INTER_LINEAR)
        cells, weight = cells * 2, weight * 0.8
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)


def _grid(size: tuple[int, int], rng: Generator) -> Points:
    """Return the corners (rows, columns, 2) of a turned, uneven grid of cells that covers the image."""
    H, W = size
    reach = 0.5 * float(np.hypot(H, W)) + 60
    steps = [np.concatenate([[0], np.cumsum(rng.uniform(38, 95, int(2 * reach / 38)))]) for _ in range(2)]
    lines = [values[: int(np.searchsorted(values, 2 * reach)) + 2] - reach for values in steps]
    u, v = np.meshgrid(*lines)
    u, v = u + rng.uniform(-9, 9, u.shape), v + rng.uniform(-9, 9, v.shape)
    angle = rng.uniform(0, np.pi / 2)
    x, y = np.cos(angle) * u - np.sin(angle) * v + W / 2, np.sin(angle) * u + np.cos(angle) * v + H / 2
    return np.stack([x, y], -1).astype(np.float32)


def _fill_field(scene: Scene, cell: Points, rng: Generator, changes: float) -> None:
    style = int(rng.integers(_FIELD_STYLES))
    parcel = _within(cell, 0.015, 0.985, 0.015, 0.985)
    if rng.random() >= changes:
        scene.ground.append(Shape("polygon", parcel, style))
        return
    other = (style + int(rng.integers(1, _FIELD_STYLES))) % _FIELD_STYLES
    scene.ground += [Shape("polygon", parcel, style, FIRST), Shape("polygon", parcel, other, SECOND)]


def _fill_wood(scene: Scene, cell: Points, rng: Generator, sun: Points) -> None:
    scene.ground.append(Shape("polygon", cell, _NUMBER["wood"]))
    for s, t in rng.uniform(0.04, 0.96, (int(rng.integers(25, 45)), 2)):
        _plant_tree(scene, _point(cell, s, t), rng.uniform(2.5, 5), sun, BOTH)


def _fill_built_cell(scene: Scene, cell: Points, rng: Generator, sun: Points, changes: float) -> None:
    """Fill a cell with houses in rows, one large building with a car park, or a park."""
    use = _pick(rng, {"houses": 0.68, "works": 0.2, "park": 0.12})
    ground = {"houses": "grass", "works": "concrete", "park": "grass"}[use]
    scene.ground.append(Shape("polygon", cell, _NUMBER[ground]))
    if use == "park":
        for s, t in rng.uniform(0.08, 0.92, (int(rng.integers(5, 14)), 2)):
            _plant_tree(scene, _point(cell, s, t), rng.uniform(3, 6), sun, BOTH)
        scene.ground.append(Shape("line", np.stack([_point(cell, 0.1, 0.2), _point(cell, 0.9, 0.7)]), _NUMBER["track"], BOTH, 2.0))
    elif use == "works":
        _build_works(scene, cell, rng, sun, changes)
    else:
        _build_houses(scene, cell, rng, sun, changes)


def _build_houses(scene: Scene, cell: Points, rng: Generator, sun: Points, changes: float) -> None:
    length = float(np.hypot(*(cell[1] - cell[0])))
    depth = float(np.hypot(*(cell[3] - cell[0])))
    lots, rows = max(1, int(length // rng.uniform(17, 26))), max(1, int(depth // rng.uniform(24, 34)))
    roof = _pick(rng, {"tiles": 0.6, "slate": 0.4})
    for row in range(rows):
        for lot in range(lots):
            if rng.random() < 0.12:
                continue
            s0, s1 = (lot + rng.uniform(0.16, 0.26)) / lots, (lot + rng.uniform(0.74, 0.86)) / lots
            t0, t1 = (row + rng.uniform(0.22, 0.32)) / rows, (row + rng.uniform(0.62, 0.76)) / rows
            dates = _dates(rng, changes)
            _build_gable(scene, _within(cell, s0, s1, t0, t1), roof, rng.uniform(3.0, 5.5), sun, dates)
            if rng.random() < 0.5:
                _plant_tree(
                    scene, _point(cell, (lot + 0.95) / lots, (row + rng.uniform(0.05, 0.95)) / rows), rng.uniform(2, 4.5), sun, BOTH
                )


def _build_gable(scene: Scene, base: Points, roof: str, height: float, sun: Points, dates: int) -> None:
    """Build a house whose ridge runs along its longer side; the side that faces the sun is lit."""
    if np.hypot(*(base[1] - base[0])) < np.hypot(*(base[3] - base[0])):
        base = np.roll(base, 1, axis=0)
    _cast_shadow(scene, base, height * sun, dates)
    ridge = np.stack([(base[0] + base[3]) / 2, (base[1] + base[2]) / 2])
    lit_first = float((base[0] - base[3]) @ sun) < 0  # shadows point away from the sun
    for side, lit in (((base[0], base[1], ridge[1], ridge[0]), lit_first), ((ridge[0], ridge[1], base[2], base[3]), not lit_first)):
        scene.objects.append(Shape("polygon", np.stack(side), _NUMBER[f"{roof}_{'lit' if lit else 'dim'}"], dates))


def _build_works(scene: Scene, cell: Points, rng: Generator, sun: Points, changes: float) -> None:
    dates = _dates(rng, changes)
    edge = rng.uniform(0.45, 0.7)
    hall = _within(cell, 0.08, edge, 0.1, 0.9)
    _cast_shadow(scene, hall, rng.uniform(5, 9) * sun, dates)
    scene.objects.append(Shape("polygon", hall, _NUMBER[_pick(rng, {"flat_roof": 0.5, "metal_roof": 0.5})], dates))
    for s, t in rng.uniform(0.15, 0.8, (int(rng.integers(2, 6)), 2)):
        scene.objects.append(Shape("polygon", _within(hall, s, s + 0.08, t, t + 0.08), _NUMBER["roof_unit"], dates))
    scene.ground.append(Shape("polygon", _within(cell, edge + 0.06, 0.95, 0.06, 0.94), _NUMBER["asphalt"]))
    places = max(3, int(np.hypot(*(cell[3] - cell[0])) / 4.5))
    for s in (edge + 0.12, 0.84):
        for place in range(places):
            if rng.random() < 0.6:
                t = 0.1 + 0.8 * place / places
                car = _within(cell, s, s + 0.075, t, t + 0.45 / places)
                paint_of_car = _pick(rng, {"car_white": 0.45, "car_red": 0.2, "car_dark": 0.35})
                scene.objects.append(Shape("polygon", car, _NUMBER[paint_of_car]))


def _lay_water(scene: Scene, rng: Generator) -> None:
    """Lay a river or a lake through a third of the scenes, over whatever is there, standing objects included."""
    H, W = scene.size
    kind = _pick(rng, {"none": 0.66, "river": 0.18, "lake": 0.16})
    if kind == "none":
        return
    if kind == "river":
        x = np.linspace(-40, max(H, W) + 40, 40)
        swing = rng.uniform(8, 30) * np.sin(x / rng.uniform(35, 70) + rng.uniform(0, 6)) + rng.uniform(5, 12) * np.sin(x / 19)
        y = rng.uniform(0.2, 0.8) * H + swing + rng.uniform(-0.4, 0.4) * (x - W / 2)
        points, width = np.stack([x, y] if rng.random() < 0.5 else [y, x], -1).astype(np.float32), rng.uniform(14, 38)
        scene.objects += [Shape("line", points, _NUMBER["bank"], BOTH, width + 7), Shape("line", points, _NUMBER["water"], BOTH, width)]
        return
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = [rng.uniform(0, 0.3 / k) * np.sin(k * angles + rng.uniform(0, 6)) for k in (2, 3, 4, 7)]
    radius = 1 + np.sum(waves, axis=0)
    outline = np.stack([np.cos(angles), np.sin(angles)], -1) * (radius * rng.uniform(0.12, 0.32) * max(H, W))[:, None]
    centre = rng.uniform(0, 1, 2) * (W, H)
    for name, factor in (("bank", 1.07), ("water", 1.0)):
        scene.objects.append(Shape("area", (centre + factor * outline).astype(np.float32), _NUMBER[name]))


def _lay_roads(scene: Scene, corners: Points, rng: Generator, streets: bool) -> None:
    """Lay roads along grid lines (every line in towns, some elsewhere), paved and marked or as tracks."""
    for lines in (corners, corners.transpose(1, 0, 2)):
        for line in lines:
            if rng.random() >= (0.85 if streets else 0.4):
                continue
            if rng.random() < 0.25:
                scene.ground.append(Shape("line", line, _NUMBER["track"], BOTH, rng.uniform(1.5, 3)))
                continue
            width = _pick(rng, {4.0: 0.45, 6.0: 0.4, 9.0: 0.15})
            scene.ground.append(Shape("line", line, _NUMBER["concrete"], BOTH, width + 3 if streets else width))
            scene.ground.append(Shape("line", line, _NUMBER["asphalt"], BOTH, width))
            if width > 5:
                scene.ground.append(Shape("strokes", _dashes(line, scene.size), _NUMBER["marking"], BOTH, 0.5))


def _scatter_trees(scene: Scene, rng: Generator, sun: Points) -> None:
    H, W = scene.size
    for x, y in rng.uniform(0, 1, (max(4, H * W // 5000), 2)):
        _plant_tree(scene, np.array([x * W, y * H], np.float32), rng.uniform(2, 5), sun, BOTH)


def _plant_tree(scene: Scene, place: Points, radius: float, sun: Points, dates: int) -> None:
    H, W = scene.size
    if not (-3 * radius < place[0] < W + 3 * radius and -3 * radius < place[1] < H + 3 * radius):
        return
    towards_sun: Points = (-0.3 * radius / float(np.hypot(*sun)) * sun).astype(np.float32)
    scene.shadows.append(Shape("disc", (place + sun * np.float32(0.9 * radius))[None], 110, dates, radius))
    scene.objects.append(Shape("disc", place[None], _NUMBER["tree"], dates, radius))
    scene.objects.append(Shape("disc", (place + towards_sun)[None], _NUMBER["tree_light"], dates, radius * 0.55))


def _cast_shadow(scene: Scene, base: Points, reach: Points, dates: int) -> None:
    hull: Points = np.asarray(cv2.convexHull(np.concatenate([base, base + reach]).astype(np.float32))[:, 0], np.float32)
    scene.shadows.append(Shape("polygon", hull, 95, dates))


def _draw(canvas: NDArray[np.uint8], shape: Shape, value: int) -> None:
    """Paint a shape; coordinates carry four fractional bits, so that sub-pixel positions are kept."""
    points = np.rint(shape.points * (_FINE * 16)).astype(np.int32)
    if shape.kind == "polygon":
        cv2.fillConvexPoly(canvas, points, value, cv2.LINE_8, 4)
    elif shape.kind == "area":
        cv2.fillPoly(canvas, [points], value, cv2.LINE_8, 4)
    elif shape.kind == "line":
        cv2.polylines(canvas, [points], False, value, max(1, round(shape.width * _FINE)), cv2.LINE_8, 4)
    elif shape.kind == "strokes":
        cv2.polylines(canvas, list(points), False, value, max(1, round(shape.width * _FINE)), cv2.LINE_8, 4)
    else:
        cv2.circle(canvas, (int(points[0, 0]), int(points[0, 1])), round(shape.width * _FINE * 16), value, -1, cv2.LINE_8, 4)


def _point(cell: Points, s: float, t: float) -> Points:
    """Return the point at (s, t) in 0..1 of a four-cornered cell."""
    return ((1 - s) * (1 - t) * cell[0] + s * (1 - t) * cell[1] + s * t * cell[2] + (1 - s) * t * cell[3]).astype(np.float32)


def _within(cell: Points, s0: float, s1: float, t0: float, t1: float) -> Points:
    """Return the four-cornered part s0..s1, t0..t1 of a cell."""
    s, t = np.array([s0, s1, s1, s0], np.float32), np.array([t0, t0, t1, t1], np.float32)
    weights = np.array([(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t])
    return weights.T @ cell


def _touches(cell: Points, size: tuple[int, int]) -> bool:
    low, high = cell.min(0), cell.max(0)
    return bool(high[0] >= 0 and high[1] >= 0 and low[0] < size[1] and low[1] < size[0])


def _dashes(line: Points, size: tuple[int, int]) -> Points:
    """Return strokes (N, 2, 2) along a line of points, 4 pixels every 10, as far as they may lie in the image."""
    strokes = [np.zeros((0, 2, 2), np.float32)]
    for start, end in pairwise(line):
        length = float(np.hypot(*(end - start)))
        along = (end - start) / max(length, 1e-6)
        at = np.arange(0, length - 4, 10, dtype=np.float32)[:, None]
        strokes.append(np.stack([start + along * at, start + along * (at + 4)], axis=1))
    found = np.concatenate(strokes)
    near = ((found[:, 0] > -10) & (found[:, 0] < np.array([size[1], size[0]]) + 10)).all(axis=1)
    return found[near]


def _dates(rng: Generator, changes: float) -> int:
    """Return when a building stands: at both dates, or, with probability `changes`, at one of them."""
    return BOTH if rng.random() >= changes else int(rng.integers(FIRST, BOTH))


def _pick(rng: Generator, chances: dict[T, float]) -> T:
    """Return a key of `chances`, drawn with its probability (Generator.choice takes ten times as long)."""
    left = rng.random()
    for option, chance in chances.items():
        left -= chance
        if left < 0:
            return option
    return option


def _direction(angle: float) -> Points:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)
