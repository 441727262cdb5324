"""Units laid out for captioning: corpus, activations, decoys and neighbours, read in one pass."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.captioner import FIT_SHARE, Captioner
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.describing import captioner_for, table_of
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.neighbours import LayerScan, Neighbours, scan_layer
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext


class Bench(NamedTuple):
    """Some units of one layer, with all that finding and scoring their captions takes."""

    where: UnitLayer
    units: tuple[int, ...]
    decoys: tuple[int, ...]
    corpus: Corpus
    table: TokenTable
    captioner: Captioner
    neighbours: Neighbours
    scan: LayerScan


def lay_out(
    context: ToolContext,
    where: UnitLayer,
    units: Sequence[int],
    decoys: Sequence[int],
    corpus: Corpus,
    *,
    dictionary: SparseDictionary | None = None,
) -> Bench:
    """Look over the layer for neighbours, then read units, decoys and neighbours together."""
    n_fit = round(len(corpus.documents) * FIT_SHARE)
    scan = scan_layer(context, corpus.documents[:n_fit], where, units, dictionary=dictionary)
    nearest = scan.nearest()
    own = [*units, *decoys]
    near = sorted({unit for row in nearest for unit in row})
    wanted = list(dict.fromkeys([*own, *near]))
    column = {unit: place for place, unit in enumerate(wanted)}
    table = table_of(context, corpus.documents)
    read: Float[ndarray, "tokens units"] = read_layers(
        context, corpus.documents, table, {where: wanted}, dictionary=dictionary
    )[where]
    place = {unit: number for number, unit in enumerate(near)}
    return Bench(
        where,
        tuple(units),
        tuple(decoys),
        corpus,
        table,
        captioner_for(context, table, read[:, [column[unit] for unit in own]], len(units)),
        Neighbours(
            read[:, [column[unit] for unit in near]],
            tuple(tuple(place[unit] for unit in row) for row in nearest),
        ),
        scan,
    )
