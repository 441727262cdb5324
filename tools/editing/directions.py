"""The directions that an editor is compared with, each as long as the editor's own."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.editing.records import EditRecord

EDITED = "edited"
NO_EDIT = "no edit"
PREFIX = "prefix"
IDENTITY = "identity"
MEAN_DIFFERENCE = "mean difference"
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


def compared_directions(
    edited: Float[Tensor, "record d_model"],
    attributes: Float[Tensor, "record d_model"],
    records: Sequence[EditRecord],
    centroids: Centroids,
    seed: int,
) -> dict[str, Float[Tensor, "record d_model"]]:
    """The editor's directions and, at equal norm, those of the baselines.

    identity: the attribute vector itself. mean difference: the new object's centroid minus the old
    one's (left out where one of them was in no training record). random: Gaussian, seeded.
    """
    norms = edited.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(edited.shape, generator=generator).to(edited)
    directions = {
        EDITED: edited,
        IDENTITY: _scaled(attributes, norms),
        RANDOM: _scaled(random, norms),
    }
    known = set(centroids.objects)
    if all({record.new_object, record.old_object} <= known for record in records):
        new = [centroids.objects.index(record.new_object) for record in records]
        old = [centroids.objects.index(record.old_object) for record in records]
        difference = centroids.vectors[new] - centroids.vectors[old]
        directions[MEAN_DIFFERENCE] = _scaled(difference, norms)
    return directions


def _scaled(
    vectors: Float[Tensor, "record d_model"], norms: Float[Tensor, "record 1"]
) -> Float[Tensor, "record d_model"]:
    scaled: Tensor = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-9) * norms
    return scaled
