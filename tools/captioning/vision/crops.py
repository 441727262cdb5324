"""p(d) for captions of images: how often what a caption says holds of a random masked crop.

On the language side a language model says how common a phrase is. What makes a phrase common in
descriptions of images is how often its concept is there to be described, so it is counted:
over rectangles of patches, as large as the areas that units respond to, at random places.
"""

import math
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from dragoman.tools.captioning.vision.concepts import Concept
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable
from dragoman.tools.captioning.vision.textures import GRID

_N_CROPS = 512
_SMALLEST, _LARGEST = 1, 6
"""Patches along a crop's sides."""
_HOLDS = 0.5
"""Share of a crop's patches at which a concept has to hold to hold of the crop."""


class CropFrequencies:
    """Frequencies of concepts over the same random masked crops of a table's images."""

    def __init__(self, table: PatchTable, seed: int) -> None:
        self._table, self._seed = table, seed
        self._known: dict[str, float] = {}

    def log_prior(self, concept: Concept) -> float:
        """The value of log p(d) in nats, with half a crop added on either side."""
        key = concept.model_dump_json()
        if key not in self._known:
            holding = self.holding(concept).sum()
            self._known[key] = math.log((holding + 0.5) / (_N_CROPS + 1.0))
        return self._known[key]

    def holding(self, concept: Concept) -> Bool[ndarray, " crops"]:
        """Of which crops the concept holds."""
        images, masks = self._crops
        at = self._table.holds(concept).reshape(-1, PATCHES)[images]
        holding: Bool[ndarray, " crops"] = (at & masks).sum(axis=1) >= _HOLDS * masks.sum(axis=1)
        return holding

    @cached_property
    def _crops(self) -> tuple[ndarray, Bool[ndarray, "crops patches"]]:
        generator = np.random.default_rng([self._seed, 11])
        images = generator.integers(self._table.n_images, size=_N_CROPS)
        masks = np.zeros((_N_CROPS, GRID, GRID), dtype=bool)
        for mask in masks:
            height, width = generator.integers(_SMALLEST, _LARGEST + 1, size=2)
            top, left = generator.integers(GRID - height + 1), generator.integers(GRID - width + 1)
            mask[top : top + height, left : left + width] = True
        return images, masks.reshape(_N_CROPS, PATCHES)
