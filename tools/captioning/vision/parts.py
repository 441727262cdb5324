"""Images split once, before anything is looked at: fit, validation, held out.

As on the language side captions are found on the first, chosen on the second, judged on the third.
Images that were cut from one picture stay together, so nothing that is judged has been seen before.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.captioner import FIT_SHARE, SPARSE, VALIDATION_SHARE
from dragoman.tools.captioning.exemplars import THRESHOLD_QUANTILE
from dragoman.tools.captioning.vision.crops import CropFrequencies
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable
from dragoman.tools.captioning.vision.search import ConceptSearch

Ints = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Some of the images."""

    images: Ints
    """Rows of the whole table."""
    table: PatchTable
    activations: Float[ndarray, "places units"]


class ImageSplit:
    """A table of images cut in three, with what every captioner over them shares.

    `sources` names for each image the picture that it was cut from.
    """

    def __init__(self, table: PatchTable, sources: Sequence[str], seed: int) -> None:
        self._seed = seed
        self.rows = split(sources, seed)
        """Of the whole table: fit, validation, held out."""
        self._tables = tuple(table.rows(rows) for rows in self.rows)

    def parts(self, activations: Float[ndarray, "places units"]) -> tuple[Part, Part, Part]:
        """The three parts with activations over the whole table cut in the same way."""
        by_image = activations.reshape(-1, PATCHES, activations.shape[1])
        fit, validation, held_out = (
            Part(rows, table, by_image[rows].reshape(-1, activations.shape[1]))
            for rows, table in zip(self.rows, self._tables, strict=True)
        )
        return fit, validation, held_out

    @cached_property
    def search(self) -> ConceptSearch:
        """The search over the fit's images."""
        return ConceptSearch(self._tables[0])

    @cached_property
    def frequencies(self) -> CropFrequencies:
        """How often concepts hold of random masked crops of the fit's images: p(d)."""
        return CropFrequencies(self._tables[0], self._seed)


def split(sources: Sequence[str], seed: int) -> tuple[Ints, Ints, Ints]:
    """Rows for fit, validation and held-out; all images of one source are in one part."""
    names = sorted(set(sources))
    order = np.random.default_rng([seed, 7]).permutation(len(names))
    place = {names[row]: rank for rank, row in enumerate(order)}
    ranks = np.array([place[source] for source in sources])
    # Sources are of unequal size: cut where the images' shares are reached, not the sources'.
    reached = np.cumsum(np.bincount(ranks, minlength=len(names))) / len(sources)
    first = int(np.searchsorted(reached, FIT_SHARE - 1e-9)) + 1
    second = max(int(np.searchsorted(reached, FIT_SHARE + VALIDATION_SHARE - 1e-9)) + 1, first + 1)
    return (
        np.flatnonzero(ranks < first),
        np.flatnonzero((ranks >= first) & (ranks < second)),
        np.flatnonzero(ranks >= second),
    )


def thresholds_of(known: Float[ndarray, "places units"]) -> Float[ndarray, " units"]:
    """0.99 quantiles over all patches of all images, 0 for units that are seldom above zero."""
    quantiles = np.maximum(np.quantile(known, THRESHOLD_QUANTILE, axis=0), 0.0)
    sparse = (known > 0).mean(axis=0) <= SPARSE
    return np.where(sparse, 0.0, quantiles)
