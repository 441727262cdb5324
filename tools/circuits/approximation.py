"""The affine map behind a relation: the mean of its Jacobians (Hernandez et al. 2024).

LRE(h) = beta W h + b, with W the mean of J_i and b the mean of z_i - J_i h_i over the estimation
facts (arXiv:2308.09124, section 3). beta scales W h alone, after b is known: the mean of Jacobians
underestimates how far z moves. The low-rank inverse of W says how h must change for z to change.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.circuits.jacobian import Expansion

SMALLEST_SINGULAR = 1e-6
"""Relative to the largest; below it a direction of float32 Jacobians is rounding noise."""


class RelationMap(NamedTuple):
    """W and b at one layer."""

    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]

    def __call__(
        self, entity: Float[Tensor, "*rows d_model"], beta: float = 1.0
    ) -> Float[Tensor, "*rows d_model"]:
        """The predicted z of entities' h."""
        return beta * (entity @ self.weight.T) + self.bias


class Inverse(NamedTuple):
    """W = U diag(s) V^T, from which every low-rank inverse follows."""

    left: Float[Tensor, "d_model rank"]
    singular: Float[Tensor, " rank"]
    right: Float[Tensor, "rank d_model"]

    def shift(
        self, change: Float[Tensor, "*rows d_model"], rank: int
    ) -> Float[Tensor, "*rows d_model"]:
        """The smallest change of h that moves z by `change` within W's `rank` main directions."""
        usable = self.singular[:rank] > SMALLEST_SINGULAR * self.singular[0]
        scale = torch.where(usable, self.singular[:rank], torch.inf)
        return ((change @ self.left[:, :rank]) / scale) @ self.right[:rank]


class Estimate(NamedTuple):
    """What the estimation facts give, at each layer that was asked for."""

    maps: dict[int, RelationMap]
    translations: dict[int, RelationMap]
    """The simplest rival, z = h + mean(z_i - h_i): W is the identity."""


def estimate(expansions: Iterable[Expansion], layers: Sequence[int]) -> Estimate:
    """Average the expansions, whose layers are `layers`; they are consumed one by one."""
    total: Expansion | None = None
    biases: Float[Tensor, "layer d_model"] | None = None
    count = 0
    for each in expansions:
        bias = each.final - torch.einsum("lij,lj->li", each.jacobian, each.entity)
        biases = bias if biases is None else biases + bias
        if total is None:
            total = Expansion(each.jacobian.clone(), each.entity, each.final)
        else:
            jacobian = total.jacobian.add_(each.jacobian)  # in place: the one large sum
            total = Expansion(jacobian, total.entity + each.entity, total.final + each.final)
        count += 1
    if total is None or biases is None:
        raise ValueError("no expansion to average")
    maps, translations = {}, {}
    identity = torch.eye(total.final.shape[0], device=total.final.device)
    for place, layer in enumerate(layers):
        maps[layer] = RelationMap(total.jacobian[place] / count, biases[place] / count)
        translations[layer] = RelationMap(identity, (total.final - total.entity[place]) / count)
    return Estimate(maps, translations)


def invert(relation_map: RelationMap) -> Inverse:
    """The singular value decomposition of W."""
    return Inverse(*torch.linalg.svd(relation_map.weight))
