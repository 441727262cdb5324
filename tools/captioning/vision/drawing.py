"""Pictures drawn to a recipe, whose attributes are known because they were chosen first.

Each kind varies in colour, scale, place and orientation, with a little noise on top, so that no
two pictures are alike and no unit can tell a kind by one pixel.
"""

import colorsys
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw

SIDE = 256
"""Pictures are squares of this many pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 135, 25),
    "yellow": (248, 222, 40),
    "green": (45, 150, 55),
    "turquoise": (50, 195, 195),
    "blue": (35, 80, 205),
    "purple": (125, 45, 170),
    "pink": (245, 130, 175),
    "brown": (120, 72, 32),
    "black": (18, 18, 18),
    "grey": (128, 128, 128),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
_TEXTURES = ("stripes", "checks", "dots", "rings", "grid", "gradient", "noise", "plain")
KINDS = tuple(kind for pair in zip((*SHAPES, *SHAPES[:2]), _TEXTURES, strict=True) for kind in pair)
"""What can be drawn: shapes and textures in turn."""
_ORIENTATIONS = {"vertical": 0.0, "diagonal": 45.0, "horizontal": 90.0, "other diagonal": 135.0}
_SCALES = {"fine": (6, 12), "medium": (16, 28), "coarse": (36, 64)}


class Drawing(NamedTuple):
    """A picture and what is known to be on it."""

    image: Image.Image
    attributes: dict[str, str]


class _Grid(NamedTuple):
    """Coordinates of each pixel's centre, turned by the drawing's angle and shifted at random."""

    x: Float[ndarray, "side side"]
    y: Float[ndarray, "side side"]


_Texture: TypeAlias = Callable[[_Grid, float, Generator], Float[ndarray, "side side"]]


def draw(kind: str, generator: Generator, *, pixels: bool = True) -> Drawing:
    """One picture of `kind`; without `pixels` only its attributes, which are drawn first."""
    names = list(COLOURS)
    first, second = (names[i] for i in generator.choice(len(names), 2, replace=False))
    attributes = {"content": kind, "colour": first}
    if kind in SHAPES:
        count = int(generator.integers(1, 5))
        attributes |= {"second_colour": second, "count": str(count)}
        if not pixels:
            return Drawing(Image.new("RGB", (1, 1)), attributes)
        picture = _shapes(kind, first, second, count, generator)
    else:
        scale = str(generator.choice(list(_SCALES)))
        orientation = str(generator.choice(list(_ORIENTATIONS)))
        if kind != "plain":
            attributes |= {"second_colour": second}
        if kind in {"stripes", "checks", "dots", "rings", "grid", "noise"}:
            attributes |= {"scale": scale}
        if kind in {"stripes", "gradient"}:
            attributes |= {"orientation": orientation}
        if not pixels:
            return Drawing(Image.new("RGB", (1, 1)), attributes)
        period = float(generator.uniform(*_SCALES[scale]))
        angle = _ORIENTATIONS[orientation] if "orientation" in attributes else 0.0
        share = _TEXTURE[kind](_grid(angle, generator), period, generator)[..., None]
        picture = share * _shade(first, generator) + (1 - share) * _shade(second, generator)
    grain = generator.normal(0, generator.uniform(0, 8), picture.shape)
    return Drawing(Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)), attributes)


def _shade(name: str, generator: Generator) -> Float[ndarray, " 3"]:
    """A colour near the named one: neither hue nor lightness far enough for another name."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in COLOURS[name]))
    hue = (hue + generator.uniform(-0.015, 0.015)) % 1
    lightness = min(max(lightness + generator.uniform(-0.05, 0.05), 0.02), 0.98)
    return np.array(colorsys.hls_to_rgb(hue, lightness, saturation)) * 255


def _grid(angle: float, generator: Generator) -> _Grid:
    turned = math.radians(angle + float(generator.uniform(-6, 6)))
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    shift = generator.uniform(-SIDE / 2, SIDE / 2, 2)
    x = columns * math.cos(turned) + rows * math.sin(turned)
    y = rows * math.cos(turned) - columns * math.sin(turned)
    return _Grid(x + shift[0], y + shift[1])


def _stripes(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    on = grid.x % period < period / 2
    return on.astype(float)


def _checks(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    odd = (grid.x // period + grid.y // period) % 2
    return odd.astype(float)


def _dots(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    step = period * 1.6
    distance = np.hypot(grid.x % step - step / 2, grid.y % step - step / 2)
    on = distance < step * 0.3
    return on.astype(float)


def _rings(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    # The shift would often put the centre outside: rings are drawn around a place inside.
    centre = generator.uniform(-SIDE / 5, SIDE / 5, 2)
    x, y = grid.x - grid.x.mean() - centre[0], grid.y - grid.y.mean() - centre[1]
    on = np.hypot(x, y) % period < period / 2
    return np.asarray(on, float)


def _lines(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    step, width = period * 1.5, period * 0.25
    return ((grid.x % step < width) | (grid.y % step < width)).astype(float)


def _gradient(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    along: Float[ndarray, "side side"] = grid.x - grid.x.min()
    return np.asarray(along / along.max())


def _noise(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    cells = max(2, round(SIDE / (period / 2)))
    values = generator.uniform(0, 255, (cells, cells)).astype(np.uint8)
    smooth = Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth) / 255


def _plain(grid: _Grid, period: float, generator: Generator) -> Float[ndarray, "side side"]:
    return np.ones((SIDE, SIDE))


_TEXTURE: dict[str, _Texture] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "grid": _lines,
    "gradient": _gradient,
    "noise": _noise,
    "plain": _plain,
}


def _shapes(
    shape: str, colour: str, ground: str, count: int, generator: Generator
) -> Float[ndarray, "side side 3"]:
    # Twice the size, then halved: edges without steps.
    large = 2 * SIDE
    stencil = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(stencil)
    cell = large // (1 if count == 1 else 2)
    places = generator.permutation(4)[:count] if count > 1 else np.zeros(1, int)
    for place in places:
        radius = float(generator.uniform(0.22, 0.42)) * cell
        room = cell / 2 - radius
        x = (place % 2 + 0.5) * cell + float(generator.uniform(-room, room))
        y = (place // 2 + 0.5) * cell + float(generator.uniform(-room, room))
        _outline(pen, shape, x, y, radius, float(generator.uniform(-0.3, 0.3)))
    share = np.asarray(stencil.resize((SIDE, SIDE), Image.Resampling.BOX))[..., None] / 255.0
    picture: Float[ndarray, "side side 3"]
    picture = share * _shade(colour, generator) + (1 - share) * _shade(ground, generator)
    return picture


def _outline(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, turn: float
) -> None:
    if shape in {"circle", "ring"}:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if shape == "ring":
            hole = radius * 0.6
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
        return
    if shape == "cross":
        bar = 0.3 * radius
        arms = [(-bar, -radius), (bar, -radius), (bar, -bar), (radius, -bar)]
        corners = [point for quarter in range(4) for point in _turned(arms, quarter * math.pi / 2)]
    else:
        n, inner = {"square": (4, 0.0), "triangle": (3, 0.0), "star": (5, 0.42)}[shape]
        start = math.pi / 4 if shape == "square" else -math.pi / 2
        steps = 2 * n if inner else n
        corners = [
            (
                math.cos(start + 2 * math.pi * step / steps) * radius * (inner if odd else 1),
                math.sin(start + 2 * math.pi * step / steps) * radius * (inner if odd else 1),
            )
            for step in range(steps)
            for odd in (inner > 0 and step % 2 == 1,)
        ]
    pen.polygon([(x + dx, y + dy) for dx, dy in _turned(corners, turn)], fill=255)


def _turned(points: list[tuple[float, float]], angle: float) -> list[tuple[float, float]]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return [(dx * cosine - dy * sine, dx * sine + dy * cosine) for dx, dy in points]
