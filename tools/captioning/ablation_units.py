"""Which units are ablated, to what, and which matched random sets beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.levers import Lever, Levers
from dragoman.tools.captioning.neighbours import scan_layer
from dragoman.tools.captioning.peers import Peers, peers_of
from dragoman.tools.captioning.units import UnitLayer, check_units, n_units, noun
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject

Ablation: TypeAlias = Literal["mean", "zero"]
Level: TypeAlias = Float[ndarray, " levels"]
"""What the components of a layer's site are set to; of latents, the latents."""

_POOL = 8
"""Matched units in the pool for each that is ablated."""
_DOCUMENTS, _BATCH = 100, 32
"""As many texts give the mean of what heads write as give that of other units."""


class Plan(NamedTuple):
    """Sets of units, and the levels that ablation sets them to, layer by layer."""

    own: tuple[Lever, ...]
    random: tuple[tuple[Lever, ...], ...]
    """Each as many other units, matched one by one."""
    levels: Mapping[UnitLayer, Level]
    among: str
    """In words, what the random sets are drawn from: 'neurons of the layer'."""


def check_ablation(
    subject: LanguageSubject,
    where: UnitLayer,
    units: Sequence[int],
    count: int,
    dictionary: SparseDictionary | None = None,
) -> None:
    """`ToolError` unless the units exist, and enough are left for `count` different sets."""
    check_units(subject, where, units, dictionary)
    every = n_units(subject, where, dictionary)
    whose = "layer's"
    if where.kind == "head":
        every, whose = every * subject.n_layers, "subject's"
    if len(units) * 2 > every or math.comb(every - len(units), len(units)) < count:
        raise ToolError(
            f"neurons: {len(units)} of the {whose} {every} {noun(where.kind)} leave too few to "
            f"match in {count} different sets"
        )


def plan_ablation(
    context: ToolContext,
    where: UnitLayer,
    units: Sequence[int],
    documents: Sequence[str],
    ablation: Ablation,
    count: int,
    dictionary: SparseDictionary | None = None,
) -> Plan:
    """What to ablate: `units`, and `count` random sets; `documents` give the means.

    `check_ablation` has to have passed.
    """
    scan = scan_layer(context, documents, where, units, dictionary=dictionary)
    least = len(units) + _pool_size(units, count)
    peers = peers_of(context, documents, where, scan, dictionary, least=least)
    sets = matched_sets(peers, units, count, context.seed)
    if where.kind != "head":
        levels = {where: scan.mean if ablation == "mean" else np.zeros_like(scan.mean)}
    elif ablation == "mean":
        # The mean of the vectors that a head finds: its activation is their norm.
        means = _means(context, documents, [each.site for each in peers.layers])
        levels = {each.where: means[each.site] for each in peers.layers}
    else:
        width = context.subject.site_width(peers.own.site)
        levels = {each.where: np.zeros(width) for each in peers.layers}
    own = tuple(Lever(peers.own, unit) for unit in units)
    return Plan(own, tuple(sets), levels, peers.described(noun(where.kind)))


def matched_sets(
    peers: Peers, units: Sequence[int], count: int, seed: int
) -> list[tuple[Lever, ...]]:
    """`count` different sets of other units, each unit of a set matched to one that is ablated."""
    own = peers.own.where
    generator = np.random.default_rng([seed, 6, own.layer])
    taken = {Lever(peers.own, unit).name for unit in units}
    size = _pool_size(units, count)
    pools = []
    for unit in units:
        others = [lever for lever in peers.matched(unit) if lever.name not in taken]
        # Members that another pool has given away are passed over.
        pools.append(others[: size + len(units)])
    sets: dict[frozenset[str], tuple[Lever, ...]] = {}
    while len(sets) < count:
        chosen: dict[str, Lever] = {}
        for pool in pools:
            free = [lever for lever in pool if lever.name not in chosen][:size]
            lever = free[int(generator.integers(len(free)))]
            chosen[lever.name] = lever
        sets.setdefault(frozenset(chosen), tuple(chosen.values()))
    return list(sets.values())


def ablating(
    chosen: Sequence[Lever], levels: Mapping[UnitLayer, Level], batch: Batch
) -> list[Edit]:
    """Sets units to their `levels` at every token of `batch` but the document start.

    That token is a sink with activations of its own kind, whose loss would drown all else.
    """
    real = (batch.mask == 1) & (batch.positions > 0)
    by_layer: dict[UnitLayer, Levers] = {each.levers.where: each.levers for each in chosen}
    edits = []
    for where, levers in by_layer.items():
        units = [each.unit for each in chosen if each.levers.where == where]
        level = torch.tensor(levels[where], dtype=torch.float32, device=batch.ids.device)
        edits.append(_holding(levers, units, level, real))
    return edits


def _holding(levers: Levers, units: Sequence[int], level: Tensor, real: Tensor) -> Edit:
    def apply(activations: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos width"]:
        changed = activations.clone()
        levers.hold(changed, units, level, real)
        return changed

    return Edit(levers.site, apply)


def _pool_size(units: Sequence[int], count: int) -> int:
    return max(_POOL, 2 * len(units), count)


@torch.no_grad()
def _means(
    context: ToolContext, documents: Sequence[str], sites: Sequence[Site]
) -> dict[Site, Level]:
    """Mean activations at `sites` over all tokens of the first hundred texts but their start."""
    subject, read = context.subject, list(documents[:_DOCUMENTS])
    totals = {site: torch.zeros(subject.site_width(site), dtype=torch.float64) for site in sites}
    count = 0
    for start in range(0, len(read), _BATCH):
        context.step(start, len(read), "reading what the heads write on average")
        batch = subject.batch(read[start : start + _BATCH])
        real = (batch.mask == 1) & (batch.positions > 0)
        count += int(real.sum())
        for site, activations in subject.activations(batch, sites).items():
            totals[site] += activations[real].double().sum(0).cpu()
    return {site: (total / max(count, 1)).numpy() for site, total in totals.items()}
