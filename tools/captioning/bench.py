"""Units laid out for captioning: corpus, activations, decoys and neighbours, read in one pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
    n_fit = round(len(corpus.documents) * FIT_SHARE)
    units = {where: each.units for where, each in asked.items()}
    documents = corpus.documents[:n_fit]

    def scan(layers: Wanted) -> dict[UnitLayer, LayerScan]:
        return scan_layers(context, documents, layers, dictionary=dictionary) if layers else {}

    if folder is None:
        scans = scan(units)
    else:
        kept = folder / context.subject.identity.digest / content_id(list(documents))
        scans = kept_scans(kept, units, scan)
    near = {
        where: sorted({unit for row in scan.nearest() for unit in row})
        for where, scan in scans.items()
    }
    wanted = {
        where: list(dict.fromkeys([*each.units, *each.decoys, *near[where]]))
        for where, each in asked.items()
    }
    table = table_of(context, corpus.documents)
    read = _read(context, corpus, table, wanted, dictionary, folder)
    benches = []
    for where, each in asked.items():
        column = {unit: place for place, unit in enumerate(wanted[where])}
        own = [column[unit] for unit in (*each.units, *each.decoys)]
        place = {unit: number for number, unit in enumerate(near[where])}
        further = None
        if whole is not None:
            further = whole.further(context, where, *each, dictionary=dictionary)
        benches.append(
            Bench(
                where,
                each.units,
                each.decoys,
                corpus,
                table,
                captioner_for(context, table, read[where][:, own], len(each.units), further),
                Neighbours(
                    read[where][:, [column[unit] for unit in near[where]]],
                    tuple(tuple(place[unit] for unit in row) for row in scans[where].nearest()),
                ),
                scans[where],
                dictionary,
            )
        )
    return benches


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
