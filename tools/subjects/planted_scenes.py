"""Pictures of which everything is known: two objects each, of known shape, colour and texture.

All objects cover the same area, so nothing but their three properties and their places differs.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8
from numpy import ndarray

SIDE = 224
OutlineName: TypeAlias = Literal["circle", "square", "triangle"]
OUTLINES: tuple[OutlineName, ...] = ("circle", "square", "triangle")
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "orange": (250, 140, 20),
    "yellow": (240, 220, 40),
    "green": (30, 160, 60),
    "blue": (40, 80, 220),
    "purple": (150, 50, 180),
}
TEXTURES = ("vertical stripes", "horizontal stripes", "rising stripes", "checks")
BACKGROUND = 190
"""Grey level behind the objects."""
PERIOD = 8
"""Pixels from stripe to stripe."""
_PLAIN_SHARE = 0.52
_N_OBJECTS = 2
_SPACING, _SHIFT = 74, 4
"""Pixels from place to place, and by how many an object may stand off its place."""
PLACES: tuple[tuple[int, int], ...] = tuple(
    (SIDE // 2 + row * _SPACING, SIDE // 2 + column * _SPACING)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
)
"""Row and column of where objects stand."""
_RADIUS, _SQUARE, _TRIANGLE = 22.0, 39.0, 59.3
"""Of the disc, and sides of the other two: each covers 1521 pixels."""
_JITTER = 8
"""Of colours, in levels of 255."""


class SceneObject(NamedTuple):
    """One object of a scene."""

    outline: OutlineName
    colour: str
    texture: str | None
    """None: plain."""
    centre: tuple[float, float]
    """Row and column."""


class Scene(NamedTuple):
    """A picture and what it shows."""

    pixels: UInt8[ndarray, "224 224 3"]
    objects: tuple[SceneObject, ...]


def scene(seed: int, number: int) -> Scene:
    """Scene number `number` of a series; the same for the same seed."""
    generator = np.random.default_rng([seed, number])
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, dtype=np.float64)
    pixels += generator.integers(-_JITTER, _JITTER + 1)
    objects = []
    for place in generator.permutation(len(PLACES))[:_N_OBJECTS].tolist():
        down, right = PLACES[place]
        shift = generator.uniform(-_SHIFT, _SHIFT, size=2)
        each = SceneObject(
            outline=OUTLINES[int(generator.integers(len(OUTLINES)))],
            colour=list(PALETTE)[int(generator.integers(len(PALETTE)))],
            texture=(
                None
                if generator.random() < _PLAIN_SHARE
                else TEXTURES[int(generator.integers(len(TEXTURES)))]
            ),
            centre=(down + float(shift[0]), right + float(shift[1])),
        )
        colour = np.array(PALETTE[each.colour]) + generator.integers(-_JITTER, _JITTER + 1, size=3)
        inside = outline(each.outline, each.centre)
        lit = light(each.texture)
        pixels[inside & lit] = colour
        pixels[inside & ~lit] = 0
        objects.append(each)
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), tuple(objects))


def outline(name: OutlineName, centre: tuple[float, float]) -> Bool[ndarray, "224 224"]:
    """The pixels of an object."""
    rows, columns = _grid()
    down, right = rows - centre[0], columns - centre[1]
    if name == "circle":
        return np.asarray(np.hypot(down, right) <= _RADIUS)
    if name == "square":
        return np.asarray(np.maximum(np.abs(down), np.abs(right)) <= _SQUARE / 2)
    height = _TRIANGLE * np.sqrt(3) / 2
    # The centroid of a triangle that stands on its base lies a third of the height above it.
    below_top = down + height * 2 / 3
    slanted = np.abs(right) <= below_top / np.sqrt(3)
    return np.asarray((below_top >= 0) & (below_top <= height) & slanted)


def light(texture: str | None) -> Bool[ndarray, "224 224"]:
    """Where a texture shows the object's colour; elsewhere it is black."""
    down, right = _grid()
    half = PERIOD // 2
    if texture is None:
        return np.ones((SIDE, SIDE), dtype=bool)
    columns, rows = (right // half) % 2, (down // half) % 2
    if texture == "vertical stripes":
        return np.asarray(columns == 0)
    if texture == "horizontal stripes":
        return np.asarray(rows == 0)
    if texture == "checks":
        return np.asarray((columns + rows) % 2 == 0)
    # Along the diagonal, so that the period across the stripes is the same.
    return np.asarray(((down + right) % (PERIOD * np.sqrt(2))) < PERIOD / np.sqrt(2))


def _grid() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    down, right = np.mgrid[:SIDE, :SIDE]
    return down, right
