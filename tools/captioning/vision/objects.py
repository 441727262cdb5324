"""Objects in an image: what stands out from the background, with its colours and its texture.

A patch of 16 pixels shows too little of a striped or many-coloured object to say what it is, and a
window around the patch shows its surroundings as well. Here the object is told from them first:
colours are shares of its own pixels, and its texture is that of its inside.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8
from numpy import ndarray
from scipy import ndimage

from dragoman.tools.captioning.vision import colours
from dragoman.tools.captioning.vision.areas import areas, patches_of
from dragoman.tools.captioning.vision.textures import GRID, NAMES, SIDE, texture_within

TEXTURES: tuple[str, ...] = tuple(name for name in NAMES if not name.endswith("edges"))
"""An edge is a place, not the look of a whole object."""
_OF_OBJECTS = [NAMES.index(name) for name in TEXTURES]
_SMALLEST = 150
"""Pixels: of less no texture can be told."""
_COLOUR_SHARE = 0.3
"""Share of an object's pixels that a colour has to have: of stripes there are two."""
_RIM = 2
"""Pixels at an object's outline that blend with what is behind it: they are no texture of its."""


def objects(
    view: UInt8[ndarray, "224 224 3"],
    names: UInt8[ndarray, "224 224"],
    apart: Bool[ndarray, "224 224"],
) -> tuple[Bool[ndarray, "14 14 colours"], Bool[ndarray, "14 14 textures"]]:
    """Which colours and textures the objects have that stand at each patch.

    `names` has the name of every pixel's colour, by its place in `colours.NAMES`; objects are the
    connected areas of `apart`, which stands out from the background.
    """
    coloured = np.zeros((GRID, GRID, len(colours.NAMES)), dtype=bool)
    textured = np.zeros((GRID, GRID, len(TEXTURES)), dtype=bool)
    image = view.astype(np.float32) / 255
    for area in areas(apart, _SMALLEST):
        patches = patches_of(area.pixels)
        inside = np.zeros(SIDE * SIDE, dtype=bool)
        inside[area.pixels] = True
        coloured[patches] |= _colours(names.ravel()[area.pixels])
        core = ndimage.binary_erosion(inside.reshape(SIDE, SIDE), iterations=_RIM, border_value=1)
        if core.sum() >= _SMALLEST / 2:
            textured[patches] |= texture_within(image, core, patches)[_OF_OBJECTS]
    return coloured, textured


def _colours(names: npt.NDArray[np.uint8]) -> Bool[ndarray, " colours"]:
    shares = np.bincount(names, minlength=len(colours.NAMES)) / len(names)
    return np.asarray(shares >= _COLOUR_SHARE)
