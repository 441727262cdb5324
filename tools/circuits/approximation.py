"""The affine map behind a relation: the mean of its Jacobians (Hernandez et al. 2024).

LRE(h) = beta W h + b, with W the mean of J_i and b the mean of z_i - J_i h_i over the estimation
facts (arXiv:2308.09124, section 3). beta scales W h alone, after b is known: the mean of Jacobians
underestimates how far z moves. The low-rank inverse of W says how h must change for z to change.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.circuits.jacobian import Expansion, add_expansion, make_room
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.subjects.language import LanguageSubject

SMALLEST_SINGULAR = 1e-6
"""Relative to the largest; below it a direction of float32 Jacobians is rounding noise."""
ABSOLUTE_FLOOR = 1e-7
"""Whatever the largest is: a map this small is zero, and has no inverse."""
_LARGEST = 4 * 2**20
"""Bytes of a W that is kept whole: up to a d_model of 1024."""
KEPT_RANK = 256
"""Directions of a larger one that are kept: more than any edit was ever best with."""
_OVERSAMPLING = 32
_POWER_STEPS = 6
_WORTH_IT = 3
"""Randomised factors cost less than a whole decomposition below d_model / 3 of them."""


class RelationMap(NamedTuple):
    """W and b at one layer."""

    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]

    def __call__(
        self, entity: Float[Tensor, "*rows d_model"], beta: float = 1.0
    ) -> Float[Tensor, "*rows d_model"]:
        """The predicted z of entities' h."""
        return beta * self.linear(entity) + self.bias

    def linear(self, entity: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """W h alone: what every beta scales."""
        return entity @ self.weight.T


class Inverse(NamedTuple):
    """W = U diag(s) V^T, or its main directions, from which every low-rank inverse follows."""

    left: Float[Tensor, "d_model rank"]
    singular: Float[Tensor, " rank"]
    right: Float[Tensor, "rank d_model"]

    def _coordinates(self, change: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows rank"]:
        floor = max(SMALLEST_SINGULAR * float(self.singular[0]), ABSOLUTE_FLOOR)
        scale = torch.where(self.singular > floor, self.singular, torch.inf)
        return (change @ self.left) / scale

    def shift(
        self, change: Float[Tensor, "*rows d_model"], rank: int
    ) -> Float[Tensor, "*rows d_model"]:
        """The smallest change of h that moves z by `change` within W's `rank` main directions."""
        return self._coordinates(change)[..., :rank] @ self.right[:rank]

    def shifts(
        self, change: Float[Tensor, "pair d_model"], ranks: Sequence[int]
    ) -> Float[Tensor, "rank_tried pair d_model"]:
        """`shift` for each of `ranks`, which share what they have in common."""
        coordinates = self._coordinates(change)
        found: dict[int, Tensor] = {}
        reached, total = 0, torch.zeros_like(change)
        for rank in sorted(set(ranks)):
            total = total + coordinates[:, reached:rank] @ self.right[reached:rank]
            found[rank], reached = total, rank
        return torch.stack([found[rank] for rank in ranks])

    def damped(
        self, change: Float[Tensor, "pair d_model"], ranks: Sequence[int]
    ) -> Float[Tensor, "rank_tried pair d_model"]:
        """`shifts`, with directions fading out around each rank instead of ending there.

        Tikhonov's inverse s / (s^2 + s_r^2): the r-th singular value is damped to a half, larger
        ones less and smaller ones more. W is a mean of a few Jacobians, whose small directions are
        uncertain but not worthless, and a cut takes each whole or not at all.
        """
        along = change @ self.left
        floor = max(SMALLEST_SINGULAR * float(self.singular[0]), ABSOLUTE_FLOOR)
        damping = self.singular[torch.tensor(ranks) - 1].clamp_min(floor)
        scales = self.singular / (self.singular**2 + damping[:, None] ** 2)
        return (along * scales[:, None]) @ self.right


class LowRankMap(NamedTuple):
    """A map kept as its main directions: rank x 2 d_model numbers instead of d_model^2."""

    factors: Inverse
    bias: Float[Tensor, " d_model"]

    def __call__(
        self, entity: Float[Tensor, "*rows d_model"], beta: float = 1.0
    ) -> Float[Tensor, "*rows d_model"]:
        """The predicted z of entities' h."""
        return beta * self.linear(entity) + self.bias

    def linear(self, entity: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """W h alone, with W cut to its main directions."""
        factors = self.factors
        return ((entity @ factors.right.T) * factors.singular) @ factors.left.T


AffineMap: TypeAlias = RelationMap | LowRankMap
"""Read and inverted alike, however it is kept."""


class Estimate(NamedTuple):
    """What the estimation facts give, at each layer that was asked for."""

    maps: dict[int, RelationMap]
    translations: dict[int, RelationMap]
    """The simplest rival, z = h + mean(z_i - h_i): W is the identity."""
    embedding: RelationMap | None = None
    """The same map from what enters the first block: a relation of words, not of their meaning."""
    entity: Float[Tensor, "site fact d_model"] | None = None
    """h of the estimation facts after one another, at each layer asked for."""
    final: Float[Tensor, "fact d_model"] | None = None
    """z of the estimation facts after one another."""


def estimate(expansions: Iterable[Expansion], layers: Sequence[int]) -> Estimate:
    """Average the expansions, whose layers are `layers`; they are consumed one by one."""
    total: Tensor | None = None
    entities, finals, linears = [], [], []
    for each in expansions:
        # In place: the one large sum.
        total = each.jacobian.clone() if total is None else total.add_(each.jacobian)
        entities.append(each.entity)
        finals.append(each.final)
        linears.append(torch.einsum("lij,lj->li", each.jacobian, each.entity))
    if total is None:
        raise ValueError("no expansion to average")
    total /= len(finals)
    return _assembled(
        layers,
        total,
        torch.stack(entities, dim=1),
        torch.stack(finals),
        torch.stack(linears, dim=1),
        embedded=False,
    )


def estimate_from(
    subject: LanguageSubject,
    prompts: Sequence[RelationPrompt],
    layers: Sequence[int],
    *,
    embedding: bool = False,
    on_row: Callable[[int, int], None] = lambda place, row: None,
) -> Estimate:
    """The mean expansion of `prompts` at `layers` (ascending), each Jacobian added as it comes.

    Besides the sum no Jacobian is ever held whole. With `embedding`, also the map from what enters
    the first block. `on_row` hears of which prompt which row comes next.
    """
    sites = [Site(layer=layer) for layer in layers]
    if embedding:
        sites = [Site(layer=0, kind="resid_pre"), *sites]
    total = make_room(len(sites), subject.d_model, subject.device)
    added = [
        add_expansion(subject, prompt, sites, total, on_row=partial(on_row, place))
        for place, prompt in enumerate(prompts)
    ]
    if not added:
        raise ValueError("no prompt to expand")
    total /= len(prompts)
    return _assembled(
        layers,
        total,
        torch.stack([each.entity for each in added], dim=1),
        torch.stack([each.final for each in added]),
        torch.stack([each.linear for each in added], dim=1),
        embedded=embedding,
    )


def _assembled(
    layers: Sequence[int],
    weights: Float[Tensor, "site d_model d_model"],
    entity: Float[Tensor, "site fact d_model"],
    final: Float[Tensor, "fact d_model"],
    linear: Float[Tensor, "site fact d_model"],
    *,
    embedded: bool,
) -> Estimate:
    biases = (final - linear).mean(dim=1)
    maps, translations = {}, {}
    identity = torch.eye(final.shape[1], device=final.device)
    offset = 1 if embedded else 0
    for place, layer in enumerate(layers, start=offset):
        maps[layer] = RelationMap(weights[place], biases[place])
        translations[layer] = RelationMap(identity, (final - entity[place]).mean(dim=0))
    return Estimate(
        maps,
        translations,
        RelationMap(weights[0], biases[0]) if embedded else None,
        entity[offset:],
        final,
    )


def invert(relation_map: AffineMap, rank: int | None = None) -> Inverse:
    """The singular value decomposition of W, whole or its `rank` main directions.

    Of a map that is kept as factors those are all there is. For few directions of a large map:
    randomised subspace iteration (Halko, Martinsson & Tropp 2011, arXiv:0909.4061), the same to
    the bit for the same map.
    """
    if isinstance(relation_map, LowRankMap):
        factors = relation_map.factors
        return factors if rank is None else _cut(factors, rank)
    weight = relation_map.weight
    d_model = weight.shape[0]
    if rank is None or _WORTH_IT * (rank + _OVERSAMPLING) > d_model:
        whole = Inverse(*torch.linalg.svd(weight))
        return whole if rank is None else _cut(whole, rank)
    generator = torch.Generator(device=weight.device).manual_seed(0)
    width = rank + _OVERSAMPLING
    drawn = torch.randn(d_model, width, generator=generator, device=weight.device)
    basis = torch.linalg.qr(weight @ drawn).Q
    for _ in range(_POWER_STEPS):
        basis = torch.linalg.qr(weight @ torch.linalg.qr(weight.T @ basis).Q).Q
    left, singular, right = torch.linalg.svd(basis.T @ weight, full_matrices=False)
    return _cut(Inverse(basis @ left, singular, right), rank)


def low_rank(relation_map: RelationMap, rank: int) -> LowRankMap:
    """The map as its `rank` main directions."""
    return LowRankMap(invert(relation_map, rank), relation_map.bias.clone())


def compact(relation_map: RelationMap) -> AffineMap:
    """The map as it is kept: whole, or where it is large its main directions."""
    if relation_map.weight.nbytes <= _LARGEST:
        return relation_map
    return low_rank(relation_map, KEPT_RANK)


def _cut(factors: Inverse, rank: int) -> Inverse:
    left, singular, right = factors
    return Inverse(
        left[:, :rank].contiguous(), singular[:rank].contiguous(), right[:rank].contiguous()
    )
