"""The units that a unit is compared with: others of its kind that are like it but for direction.

Neurons, components and latents have their like in their own layer. A layer has few heads, so those
of the nearest layers stand beside them: as many layers as give enough, above and below alike.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.levers import Lever, Levers, levers_of
from dragoman.tools.captioning.neighbours import LayerScan, scan_layers
from dragoman.tools.captioning.units import UnitLayer, noun
from dragoman.tools.context import ToolContext


class Peers(NamedTuple):
    """Units of one kind among which like ones are found; those of the first layer are asked of."""

    layers: tuple[Levers, ...]
    density: Float[ndarray, " units"]
    """Of the units of all layers, one layer after the other: share of tokens at which a unit is
    above zero."""

    @property
    def own(self) -> Levers:
        """The units of the layer that is asked about."""
        return self.layers[0]

    @property
    def n_units(self) -> int:
        """Units of all layers."""
        return len(self.density)

    def described(self, plain: str) -> str:
        """In words: '`plain` of the layer', 'heads of layers 9 to 11'."""
        if len(self.layers) == 1:
            return f"{plain} of the layer"
        numbers = [each.where.layer for each in self.layers]
        return f"{noun(self.own.where.kind)} of layers {min(numbers)} to {max(numbers)}"

    def matched(self, unit: int) -> list[Lever]:
        """All but `unit` of the first layer, nearest in density and norm of what is written first.

        Both are measured in standard deviations.
        """
        norms = np.concatenate([each.norms for each in self.layers])
        features = np.stack([self.density, np.log(np.maximum(norms, 1e-12))])
        spread = np.maximum(features.std(axis=1, keepdims=True), 1e-12)
        distance = (((features - features[:, [unit]]) / spread) ** 2).sum(axis=0)
        levers = [Lever(each, row) for each in self.layers for row in range(len(each.norms))]
        return [levers[row] for row in np.argsort(distance, kind="stable") if row != unit]


def peers_of(
    context: ToolContext,
    documents: Sequence[str],
    where: UnitLayer,
    scan: LayerScan,
    dictionary: SparseDictionary | None = None,
    *,
    least: int,
) -> Peers:
    """The peers of the units of `where`: `least` of them, where the subject has as many.

    `scan` is of that layer on `documents`, on which the layers around are read too.
    """
    subject = context.subject
    own = levers_of(subject, where, scan, dictionary)
    if where.kind != "head":
        return Peers((own,), scan.density)
    chosen: list[int] = []
    for pair in _pairs_around(where.layer, subject.n_layers):
        if (1 + len(chosen)) * len(scan.density) >= least:
            break
        chosen += pair
    around = [UnitLayer(kind="head", layer=layer) for layer in chosen]
    scans = scan_layers(context, documents, dict.fromkeys(around, ())) if around else {}
    return Peers(
        (own, *(levers_of(subject, each, scans[each]) for each in around)),
        np.concatenate([scan.density, *(scans[each].density for each in around)]),
    )


def _pairs_around(layer: int, n_layers: int) -> Iterator[list[int]]:
    """The layers one below and one above, two below and two above, and so on, where they exist."""
    for distance in range(1, n_layers):
        yield [each for each in (layer - distance, layer + distance) if 0 <= each < n_layers]
