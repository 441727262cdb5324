"""The directions that an editor is compared with (`methods`)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.editing.editor import Form
from dragoman.tools.editing.records import EditRecord

EDITED = "edited"
NO_EDIT = "no edit"
PREFIX = "prefix"
REPLACED = "replaced entity"
IDENTITY = "identity"
MEAN_DIFFERENCE = "mean difference"
TUNED_DIFFERENCE = "mean difference at its own strength"
RANDOM = "random direction of equal norm"


class Centroids(NamedTuple):
    """The mean attribute vector of each object, over the training records that state it."""

    objects: tuple[str, ...]
    vectors: Float[Tensor, "object d_model"]

    @classmethod
    def of(
        cls, records: Sequence[EditRecord], attributes: Float[Tensor, "record d_model"]
    ) -> "Centroids":
        """Centroids of the objects that `records` state."""
        objects = tuple(dict.fromkeys(record.new_object for record in records))
        which = torch.tensor([objects.index(record.new_object) for record in records])
        sums = torch.zeros(len(objects), attributes.shape[1]).index_add(0, which, attributes)
        counts = torch.bincount(which, minlength=len(objects))
        return cls(objects, sums / counts[:, None])

    def differences(self, records: Sequence[EditRecord]) -> Float[Tensor, "record d_model"] | None:
        """The new object's centroid minus the old one's; None where one of them has none."""
        known = set(self.objects)
        if not all({record.new_object, record.old_object} <= known for record in records):
            return None
        new = [self.objects.index(record.new_object) for record in records]
        old = [self.objects.index(record.old_object) for record in records]
        return self.vectors[new] - self.vectors[old]

    def start(
        self, records: Sequence[EditRecord], form: Form
    ) -> Float[Tensor, "record d_model"] | None:
        """What an editor of this form begins with: `differences`, or the new object's centroid
        against all of them, where the old object is not told.
        """
        if form == "contrast":
            return self.differences(records)
        new = [self.objects.index(record.new_object) for record in records]
        return self.vectors[new] - self.vectors.mean(0)


def compared_directions(
    edited: Float[Tensor, "record d_model"],
    attributes: Float[Tensor, "record d_model"],
    records: Sequence[EditRecord],
    centroids: Centroids,
    difference_strength: float,
    seed: int,
) -> dict[str, Float[Tensor, "record d_model"]]:
    """The editor's directions and those of the baselines.

    identity: the attribute vector itself. mean difference: `Centroids.differences` (left out where
    there is none). random: Gaussian, seeded. These are as long as the editor's. The mean difference
    is there once more as it is, times `difference_strength`, which validation entities chose.
    """
    norms = edited.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(edited.shape, generator=generator).to(edited)
    directions = {
        EDITED: edited,
        IDENTITY: _scaled(attributes, norms),
        RANDOM: _scaled(random, norms),
    }
    difference = centroids.differences(records)
    if difference is not None:
        directions[MEAN_DIFFERENCE] = _scaled(difference, norms)
        directions[TUNED_DIFFERENCE] = difference_strength * difference
    return directions


def _scaled(
    vectors: Float[Tensor, "record d_model"], norms: Float[Tensor, "record 1"]
) -> Float[Tensor, "record d_model"]:
    scaled: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-9) * norms
    return scaled
