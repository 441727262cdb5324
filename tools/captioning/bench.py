"""Units laid out for captioning: corpus, activations, decoys and neighbours, read in one pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import content_id
from dragoman.tools.captioning.captioner import FIT_SHARE, Captioner
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.describing import captioner_for, table_of
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.neighbours import LayerScan, Neighbours, scan_layers
from dragoman.tools.captioning.readings import Read, Wanted, kept_scans, read_shards
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.captioning.whole import WholeCorpus
from dragoman.tools.context import ToolContext


class Asked(NamedTuple):
    """Units of a layer that are to be captioned, and others for the floors of their scores."""

    units: tuple[int, ...]
    decoys: tuple[int, ...]


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
    dictionary: SparseDictionary | None
    """Whose latents the units are, where they are latents."""


def lay_out(
    context: ToolContext,
    where: UnitLayer,
    units: Sequence[int],
    decoys: Sequence[int],
    corpus: Corpus,
    *,
    whole: WholeCorpus | None = None,
    dictionary: SparseDictionary | None = None,
) -> Bench:
    """`lay_out_layers` of one layer."""
    asked = {where: Asked(tuple(units), tuple(decoys))}
    return lay_out_layers(context, asked, corpus, whole=whole, dictionary=dictionary)[0]


def lay_out_layers(
    context: ToolContext,
    asked: Mapping[UnitLayer, Asked],
    corpus: Corpus,
    *,
    whole: WholeCorpus | None = None,
    dictionary: SparseDictionary | None = None,
    folder: Path | None = None,
) -> list[Bench]:
    """Look over the layers for neighbours, then read units, decoys and neighbours of all of them.

    Each takes one forward pass over its documents, however many layers there are. With `folder`
    what was read is kept there, by subject and texts, for the next time. `whole` is what `corpus`
    is a sample of, where its strongest contexts and quantiles are to be used.
    """
    units = {where: each.units for where, each in asked.items()}
    documents = looked_over(corpus)

    def scan(layers: Wanted) -> dict[UnitLayer, LayerScan]:
        return scan_layers(context, documents, layers, dictionary=dictionary) if layers else {}

    if folder is None:
        scans = scan(units)
    else:
        kept = folder / context.subject.identity.digest / content_id(list(documents))
        scans = kept_scans(kept, units, scan)
    wanted = {where: columns_of(each, scans[where].nearest()) for where, each in asked.items()}
    table = table_of(context, corpus.documents)
    read = _read(context, corpus, table, wanted, dictionary, folder)
    return [
        bench_of(
            context,
            where,
            each,
            {unit: read[where][:, place] for place, unit in enumerate(wanted[where])},
            corpus,
            table,
            scans[where],
            scans[where].nearest(),
            whole=whole,
            dictionary=dictionary,
        )
        for where, each in asked.items()
    ]


def looked_over(corpus: Corpus) -> Sequence[str]:
    """The documents on which layers are looked over: some of those that captions are found on."""
    return corpus.documents[: round(len(corpus.documents) * FIT_SHARE)]


def columns_of(asked: Asked, nearest: Sequence[Sequence[int]]) -> list[int]:
    """All units that have to be read: those asked for, their decoys, their `nearest`."""
    near = sorted({unit for row in nearest for unit in row})
    return list(dict.fromkeys([*asked.units, *asked.decoys, *near]))


def bench_of(
    context: ToolContext,
    where: UnitLayer,
    asked: Asked,
    read: Mapping[int, Float[ndarray, " tokens"]],
    corpus: Corpus,
    table: TokenTable,
    scan: LayerScan,
    nearest: Sequence[Sequence[int]],
    *,
    whole: WholeCorpus | None = None,
    dictionary: SparseDictionary | None = None,
) -> Bench:
    """The bench of units that were `read`, as were their decoys and their `nearest`, by unit."""
    near = sorted({unit for row in nearest for unit in row})
    place = {unit: number for number, unit in enumerate(near)}
    own = np.stack([read[unit] for unit in (*asked.units, *asked.decoys)], axis=1)
    further = None
    if whole is not None:
        further = whole.further(context, where, *asked, dictionary=dictionary)
    return Bench(
        where,
        asked.units,
        asked.decoys,
        corpus,
        table,
        captioner_for(context, table, own, len(asked.units), further),
        Neighbours(
            np.stack([read[unit] for unit in near], axis=1) if near else own[:, :0],
            tuple(tuple(place[unit] for unit in row) for row in nearest),
        ),
        scan,
        dictionary,
    )


def _read(
    context: ToolContext,
    corpus: Corpus,
    table: TokenTable,
    wanted: Wanted,
    dictionary: SparseDictionary | None,
    folder: Path | None,
) -> Read:
    if folder is None:
        return read_layers(context, corpus.documents, table, wanted, dictionary=dictionary)
    own = folder / context.subject.identity.digest
    return read_shards(lambda: context, corpus.documents, table, wanted, own, dictionary=dictionary)
