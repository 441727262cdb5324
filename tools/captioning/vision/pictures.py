"""A unit's exemplars as one picture: five by three images, dimmed where the unit is silent."""

import io

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image

from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.captioning.vision.store import VisionExemplars
from dragoman.tools.subjects.vision import VisionSubject

MEDIA_TYPE = "image/jpeg"
CELL = 112
"""Pixels along a side of an image in the grid."""
_COLUMNS, _GAP, _QUALITY = 5, 4, 82
_DIMMED = 0.25
_MARGIN = 1.25
_PAPER = 255


def masked_views(
    subject: VisionSubject, images: ImageSet, exemplars: VisionExemplars, layer: int, unit: int
) -> list[UInt8[ndarray, "cell cell 3"]]:
    """The unit's strongest images, strongest first, dimmed outside its masks and outlined."""
    masks = exemplars.masks(layer, unit, CELL)
    views = []
    for number, mask in zip(exemplars.images(layer, unit).tolist(), masks, strict=True):
        view = subject.view(images.load(number))
        small = Image.fromarray(view).resize((CELL, CELL), Image.Resampling.BICUBIC)
        views.append(dimmed(np.asarray(small), mask))
    return views


def masked_crops(
    subject: VisionSubject,
    images: ImageSet,
    exemplars: VisionExemplars,
    layer: int,
    unit: int,
    most: int,
) -> list[Image.Image]:
    """The unit's strongest images, strongest first, cut to a square around their masks.

    Outside the mask they are dimmed, but not outlined: a describer would describe the line.
    """
    masks = exemplars.masks(layer, unit, subject.preprocessing.size)
    crops = []
    numbers = exemplars.images(layer, unit).tolist()
    for number, mask in list(zip(numbers, masks, strict=True))[:most]:
        view = subject.view(images.load(number))
        shares = np.where(mask, 1.0, _DIMMED)[..., None]
        crops.append(Image.fromarray((view * shares).astype(np.uint8)).crop(_around(mask)))
    return crops


def _around(mask: Bool[ndarray, "h w"]) -> tuple[int, int, int, int]:
    """A square inside the image that holds the mask, with a margin: left, top, right, bottom."""
    height, width = mask.shape
    if not mask.any():
        return (0, 0, width, height)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    needed = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = min(max(round(needed * _MARGIN), min(mask.shape) // 4), *mask.shape)
    top = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, height - side))
    left = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, width - side))
    return (left, top, left + side, top + side)


def grid(views: list[UInt8[ndarray, "cell cell 3"]]) -> bytes:
    """The images side by side, row by row, as a JPEG file."""
    n_rows = -(-max(len(views), 1) // _COLUMNS)
    step = CELL + _GAP
    n_columns = min(len(views), _COLUMNS) or 1
    canvas = np.full((n_rows * step - _GAP, n_columns * step - _GAP, 3), _PAPER, np.uint8)
    for place, view in enumerate(views):
        row, column = divmod(place, _COLUMNS)
        canvas[row * step : row * step + CELL, column * step : column * step + CELL] = view
    written = io.BytesIO()
    Image.fromarray(canvas).save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()


def dimmed(view: UInt8[ndarray, "h w 3"], mask: Bool[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """The image at a quarter of its light outside the mask, with a pale line around it."""
    shares = np.where(mask, 1.0, _DIMMED)[..., None]
    shown = (view * shares).astype(np.uint8)
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(mask, shift, axis=axis)
    shown[mask & ~inner] = (255, 240, 160)
    return shown
