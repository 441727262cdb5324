"""Plain shapes in an image: connected areas of one colour name, or of whatever stands out from the
background, told apart by their outlines.

An area is rescaled so that it spreads alike in all directions. Its outline then lies at constant
distance from its centre if it was an ellipse (2 standard deviations), between sqrt(3) and sqrt(6)
if a rectangle, between sqrt(2) and 2 sqrt(2) if a triangle, however long or slanted it was.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from dragoman.tools.captioning.vision.areas import Area, areas, patches_of
from dragoman.tools.captioning.vision.textures import GRID, PATCH, SIDE

NAMES: tuple[str, ...] = ("circle", "ellipse", "square", "rectangle", "triangle", "bar", "dots")
_SMALLEST = 150
"""Pixels of an area that has a shape: smaller ones have no outline."""
_SPECK = 16
_N_DOTS = 4
"""So many round areas of like size in one window are dots."""


class _Dot(NamedTuple):
    size: int
    centre: tuple[float, float]


def shapes(
    names: UInt8[ndarray, "224 224"], apart: Bool[ndarray, "224 224"]
) -> Bool[ndarray, "14 14 shapes"]:
    """Which of `NAMES` stand at each patch, given every pixel's colour name and what stands out."""
    found = np.zeros((GRID, GRID, len(NAMES)), dtype=bool)
    dots: list[_Dot] = []
    for area in _whole_areas(names, apart):
        rows, columns = np.divmod(area.pixels, SIDE)
        shape = _shape(rows, columns)
        if shape is None:
            continue
        if len(rows) < SIDE * SIDE / 100 and shape in ("circle", "square", "ellipse"):
            dots.append(_Dot(len(rows), (float(rows.mean()), float(columns.mean()))))
        if len(rows) >= _SMALLEST:
            found[..., NAMES.index(shape)] |= patches_of(area.pixels)
    found[..., NAMES.index("dots")] = _dotted(dots)
    return found


def _whole_areas(
    names: UInt8[ndarray, "224 224"], apart: Bool[ndarray, "224 224"]
) -> Iterator[Area]:
    """Those of each colour, and of what has a pattern and so no colour of its own."""
    for inside in (*(names == colour for colour in np.unique(names)), apart):
        yield from (area for area in areas(inside, _SPECK) if area.whole)


def _shape(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> str | None:
    """The name of a filled area's outline; None for one that has none of the names."""
    points = np.stack([rows - rows.mean(), columns - columns.mean()]).astype(np.float64)
    # A pixel is no point: it spreads by 1/12 on its own.
    covariance = points @ points.T / points.shape[1] + np.eye(2) / 12
    values, vectors = np.linalg.eigh(covariance)
    fill = points.shape[1] / (4 * np.pi * np.sqrt(values.prod()))
    if not 0.74 < fill < 1.06:
        return None  # hollow, or ragged
    distances = _outline(points, values, vectors)
    farthest, nearest = float(np.quantile(distances, 0.98)), float(np.quantile(distances, 0.02))
    longer = float(np.sqrt(values[1] / values[0]))
    if longer > 4:
        return "bar"
    if fill > 0.97 and farthest - nearest < 0.42:
        return "circle" if longer < 1.25 else "ellipse"
    if fill > 0.9 and farthest < 2.65:
        return "square" if longer < 1.25 else "rectangle"
    if fill < 0.9 and farthest > 2.45 and nearest < 1.65:
        return "triangle"
    return None


def _outline(
    points: Float[ndarray, "2 pixels"], values: Float[ndarray, "2"], vectors: Float[ndarray, "2 2"]
) -> Float[ndarray, " angles"]:
    """Distance of the farthest pixel in each of 36 directions, in standard deviations."""
    round_points = (vectors.T @ points) / np.sqrt(values)[:, None]
    radius = np.hypot(*round_points)
    sector = ((np.arctan2(*round_points) + np.pi) / (2 * np.pi) * 36).astype(np.int64) % 36
    farthest = np.zeros(36)
    np.maximum.at(farthest, sector, radius)
    return farthest[farthest > 0]


def _dotted(dots: list[_Dot]) -> Bool[ndarray, "14 14"]:
    """Patches in whose neighbourhood of 3 by 3 there are several dots of like size."""
    found = np.zeros((GRID, GRID), dtype=bool)
    if len(dots) < _N_DOTS:
        return found
    sizes = np.array([dot.size for dot in dots])
    cells = np.array([dot.centre for dot in dots]) / PATCH
    centres = np.stack(np.meshgrid(*[np.arange(GRID) + 0.5] * 2, indexing="ij"), axis=-1)
    near = np.abs(centres[:, :, None] - cells).max(axis=-1) < 1.6
    for size in np.unique(sizes):
        alike = (sizes > size * 0.6) & (sizes < size * 1.7)
        found |= (near & alike).sum(axis=-1) >= _N_DOTS
    return found
