"""The several things that one vision unit responds to, told apart by what its exemplars show.

The images that activate the unit are clustered by what holds at their active patches, and the
search runs once for each cluster.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.cluster.vq import ClusterError, kmeans2

from dragoman.tools.captioning.composition import Column
from dragoman.tools.captioning.vision.concepts import Concept
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable
from dragoman.tools.captioning.vision.search import ConceptSearch

MOST = 3
_SMALLEST_CLUSTER = 0.1
_DIMENSIONS = 8
_SEPARATE = 0.3
"""Mean silhouette (Rousseeuw 1987) from which on clusters are more than a cut through one cloud."""


def by_clusters(
    table: PatchTable, active: Column, search: ConceptSearch, seed: int
) -> tuple[Concept, ...]:
    """A concept for each cluster of the active images; empty where there is but one."""
    at = active.reshape(-1, PATCHES)
    images = np.flatnonzero(at.any(axis=1))
    if len(images) < 10:
        return ()
    points = _points(table.descriptions(at)[images])
    groups = _grouped(points, seed)
    if groups is None:
        return ()
    found: dict[str, Concept] = {}
    for group in range(int(groups.max()) + 1):
        if (groups == group).mean() < _SMALLEST_CLUSTER:
            continue
        inside = np.zeros_like(at)
        members = images[groups == group]
        inside[members] = at[members]
        for proposal in search.at_patches(inside.reshape(-1), limit=1):
            found[proposal.predicate.model_dump_json()] = proposal.predicate
    return tuple(found.values()) if len(found) > 1 else ()


def _points(descriptions: Float[ndarray, "images concepts"]) -> Float[ndarray, "images d"]:
    """The directions in which the images differ most."""
    centred = descriptions - descriptions.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points: Float[ndarray, "images d"] = (left * sizes)[:, :_DIMENSIONS]
    return points


def _grouped(points: Float[ndarray, "images d"], seed: int) -> ndarray | None:
    """The clustering into two or three that separates best; None where none does."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    best, value = None, _SEPARATE
    # Of points that lie on fewer spots than there are groups some group runs empty.
    n_distinct = len(np.unique(points.round(6), axis=0))
    for n_groups in range(2, min(MOST, n_distinct) + 1):
        try:
            _, groups = kmeans2(points, n_groups, minit="++", rng=seed, missing="raise")
        except ClusterError:  # a cluster ran empty: there are not so many
            continue
        found = _silhouette(distances, groups)
        if found > value + 0.02:
            best, value = groups, found
    return best


def _silhouette(distances: Float[ndarray, "images images"], groups: ndarray) -> float:
    members = np.eye(groups.max() + 1)[groups]
    sizes = members.sum(axis=0)
    sums = distances @ members
    own = groups[:, None] == np.arange(len(sizes))
    within = (sums * own).sum(axis=1) / np.maximum(sizes[groups] - 1, 1)
    without = np.where(own, np.inf, sums / sizes).min(axis=1)
    spread = np.maximum(np.maximum(within, without), 1e-9)
    return float(((without - within) / spread).mean())
