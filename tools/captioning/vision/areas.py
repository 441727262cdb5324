"""Connected areas of an image, and what stands out from its background."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8
from numpy import ndarray
from scipy import ndimage

from dragoman.tools.captioning.vision.textures import GRID, PATCH, SIDE

_LARGEST = 0.5 * SIDE * SIDE
"""Pixels of an area that is no background."""
_MOST = 400
"""The largest of an image: one of specks has no areas to speak of."""
_EIGHT = np.ones((3, 3), dtype=bool)
_COVERED = 0.2
"""Share of a patch that an area has to cover to be said to be there."""


class Area(NamedTuple):
    """Pixels that touch each other, corner to corner included."""

    pixels: npt.NDArray[np.int64]
    """Flat indices."""
    whole: bool
    """It ends within the image."""


def areas(inside: Bool[ndarray, "224 224"], smallest: int) -> Iterator[Area]:
    """The connected areas of `smallest` pixels or more, the largest first, no backgrounds."""
    # Corner to corner is connected: the fields of a chequerboard are no dots.
    labels, n_areas = ndimage.label(inside, _EIGHT)
    if not n_areas:
        return
    flat = labels.ravel()
    sizes = np.bincount(flat)
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(sizes)
    touching = set(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]).tolist())
    found = np.flatnonzero((sizes >= smallest) & (sizes <= _LARGEST))
    for label in found[np.argsort(-sizes[found], kind="stable")][:_MOST].tolist():
        if label:
            pixels = order[ends[label] - sizes[label] : ends[label]]
            yield Area(pixels, label not in touching)


def standing_out(names: UInt8[ndarray, "224 224"]) -> Bool[ndarray, "224 224"]:
    """Where an image, given as the names of its colours, shows something else than background."""
    rim = np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])
    return np.asarray(ndimage.binary_fill_holes(names != np.bincount(rim).argmax()))


def patches_of(pixels: npt.NDArray[np.int64]) -> Bool[ndarray, "14 14"]:
    """The patches that an area covers a good part of; of a small one those it covers most."""
    cover = np.zeros(SIDE * SIDE, dtype=np.float32)
    cover[pixels] = 1
    shares = cover.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3))
    return np.asarray(shares > min(_COVERED, 0.8 * float(shares.max())))
