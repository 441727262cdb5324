"""How alike the maps of relations are: principal angles between their main subspaces.

W = U diag(s) V^T. The first k columns of V are what a map reads from h, those of U what it writes
to z. Two such subspaces compare by the mean of the squared cosines of their principal angles
(Bjoerck & Golub 1973): 1 the same subspace, k / d_model two random ones. How large it can be at
all shows in split halves: two maps of one relation, each from one half of its estimation facts.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Measurement
from dragoman.tools.circuits.jacobian import expand
from dragoman.tools.circuits.prompts import leave_one_out
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

Side: TypeAlias = Literal["reads", "writes"]
SIDES: tuple[Side, ...] = ("reads", "writes")

RANDOM_SUBSPACES = "random subspaces"
SPLITS = 8
"""Ways to halve the estimation facts: the spread over them is what the intervals show."""


class Halves(NamedTuple):
    """The main subspaces of a relation's two half maps, for every split of its facts."""

    name: str
    n_facts: int
    bases: dict[Side, Float[Tensor, "split half d_model rank"]]


def halve(
    subject: LanguageSubject,
    name: str,
    template: str,
    estimation: Sequence[Sample],
    layer: int,
    rank: int,
    seed: int,
    step: Callable[[int, int, str], None],
) -> Halves:
    """Jacobians of every estimation fact at one layer, averaged over halves of them."""
    jacobians = []
    prompts = leave_one_out(template, estimation)
    for place, prompt in enumerate(prompts):
        step(place, len(prompts), f"Jacobians of {name} at layer {layer}")
        expansion = expand(subject, prompt, first_layer=layer, last_layer=layer)
        jacobians.append(expansion.jacobian[0])
    stacked = torch.stack(jacobians)
    generator = np.random.default_rng(seed)
    reads, writes = [], []
    for number in range(SPLITS):
        step(number, SPLITS, f"main directions of {name}")
        order = generator.permutation(len(jacobians)).tolist()
        half = len(order) // 2
        for some in (order[:half], order[half:]):
            left, _, right = torch.linalg.svd(stacked[some].mean(0))
            reads.append(right[:rank].T)
            writes.append(left[:, :rank])
    shape = (SPLITS, 2, subject.d_model, rank)
    return Halves(
        name,
        len(jacobians),
        {"reads": torch.stack(reads).view(shape), "writes": torch.stack(writes).view(shape)},
    )


def overlap(
    first: Float[Tensor, "*batch d_model rank"], second: Float[Tensor, "*batch d_model rank"]
) -> Float[Tensor, " *batch"]:
    """Mean squared cosine of the principal angles between orthonormal bases."""
    product = first.transpose(-1, -2) @ second
    return product.square().sum((-1, -2)) / first.shape[-1]


def principal_angles(
    first: Float[Tensor, "d_model rank"], second: Float[Tensor, "d_model rank"]
) -> list[float]:
    """In degrees, smallest first."""
    cosines = torch.linalg.svdvals(first.T @ second).clamp(max=1.0)
    return [float(each) for each in torch.rad2deg(torch.arccos(cosines))]


def overlaps(first: Halves, second: Halves, side: Side) -> list[float]:
    """One value for each split: the mean over pairs of halves; within a relation its two halves."""
    a, b = first.bases[side], second.bases[side]
    if first is second:
        return [float(each) for each in overlap(a[:, 0], a[:, 1])]
    pairs = [overlap(a[:, i], b[:, j]) for i in range(2) for j in range(2)]
    return [float(each) for each in torch.stack(pairs).mean(0)]


def random_overlaps(d_model: int, rank: int, seed: int) -> list[float]:
    """The same for random subspaces, one value for each split."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, SPLITS, d_model, rank, generator=generator)
    bases, _ = torch.linalg.qr(drawn)
    return [float(each) for each in overlap(bases[0], bases[1])]


def measure_overlap(
    first: Halves, second: Halves, side: Side, chance: Sequence[float]
) -> Measurement:
    """`subspace_overlap` with the range over splits as its interval, beside random subspaces."""
    values = overlaps(first, second, side)
    value, baseline = float(np.mean(values)), float(np.mean(chance))
    scope = (
        f"{side}: two halves of {first.name}"
        if first is second
        else f"{side}: {first.name} and {second.name}"
    )
    return Measurement(
        metric="subspace_overlap",
        value=value,
        unit="cosine",
        baseline=baseline,
        control=RANDOM_SUBSPACES,
        ci95=_spread(values),
        n=min(first.n_facts, second.n_facts),
        baseline_ci95=_spread(chance),
        scope=scope,
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    middle = float(np.mean(values))
    return min(float(low), middle), max(float(high), middle)


def cluster(similarity: Float[Tensor, "relation relation"], least: float) -> list[list[int]]:
    """Average linkage: the most alike groups are joined while they are at least `least` alike."""
    groups = [[place] for place in range(similarity.shape[0])]
    while len(groups) > 1:
        best, at = -1.0, (0, 0)
        for i, first in enumerate(groups):
            for j in range(i + 1, len(groups)):
                alike = float(similarity[first][:, groups[j]].mean())
                if alike > best:
                    best, at = alike, (i, j)
        if best < least:
            break
        joined = sorted(groups[at[0]] + groups[at[1]])
        groups = [group for place, group in enumerate(groups) if place not in at]
        groups = sorted([*groups, joined])
    return groups
