"""The concept search: which composition of concepts tells at which patches a unit is active.

The search itself is the one that language units have (`captioning/composition.py`). It runs twice:
over patches, for units that look at what is in front of them, and over whole images, for units
that respond to something elsewhere in the image.
"""

import math

import numpy as np

from dragoman.tools.captioning.composition import Algebra, Atoms, Column, Proposal, search
from dragoman.tools.captioning.vision.concepts import (
    Concept,
    OfClass,
    Somewhere,
    both,
    either,
    looks_known,
    things_known,
    without,
)
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable, in_images

_ALGEBRA: Algebra[Concept] = Algebra(both, either, without)
_MOST_CLASSES = 24


class ConceptSearch:
    """The search over one set of images, for any number of units."""

    def __init__(self, table: PatchTable) -> None:
        self._table = table
        local = [atom for atom in (*looks_known(), *things_known()) if table.holds(atom).any()]
        self._general: list[Concept] = [*local, *(Somewhere(of=atom) for atom in local)]
        self._at_patches = self._columns(self._general)
        whole: list[Concept] = [Somewhere(of=atom) for atom in local]
        self._whole = Atoms(
            whole,
            np.stack([table.counts(atom) > 0 for atom in local])
            if local
            else np.zeros((0, table.n_images), dtype=bool),
        )

    def at_patches(self, active: Column, *, limit: int = 6) -> list[Proposal[Concept]]:
        """The best concepts for the patches where `active` holds, best first.

        Active patches of one image come in clumps; a clump counts for one observation, so an atom
        has to pay for as many patches.
        """
        if not active.any() or not self._general:
            return []
        clump = active.sum() / active.reshape(-1, PATCHES).any(axis=1).sum()
        classes: list[Concept] = [
            OfClass(index=index) for index in self._table.likely_classes(active)[:_MOST_CLASSES]
        ]
        atoms = self._at_patches.and_also(self._columns(classes)) if classes else self._at_patches
        return search(atoms, active, _ALGEBRA, price=self._price * float(clump), limit=limit)

    def in_images(self, active: Column, *, limit: int = 3) -> list[Proposal[Concept]]:
        """The best concepts for the images in which `active` holds somewhere, best first."""
        somewhere = in_images(active)
        if not somewhere.any() or not self._general:
            return []
        return search(self._whole, somewhere, _ALGEBRA, price=self._price, limit=limit)

    @property
    def _price(self) -> float:
        return math.log(len(self._general) + _MOST_CLASSES)

    def _columns(self, concepts: list[Concept]) -> Atoms[Concept]:
        columns = [self._table.holds(concept) for concept in concepts]
        empty = np.zeros((0, self._table.n_images * PATCHES), dtype=bool)
        return Atoms(concepts, np.stack(columns) if columns else empty)
