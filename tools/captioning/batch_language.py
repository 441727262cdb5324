"""Units of a language subject for the batch engine: read in chunks, captioned as by the tool.

A forward pass over the corpus serves hundreds of units; captions are found and scored in groups,
by the code of `caption_neurons`, so that a unit's row says what the tool would say of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import content_id
from dragoman.tools.captioning.assessment import Assessor, judges_for, said_of
from dragoman.tools.captioning.batch import BatchSettings, Group
from dragoman.tools.captioning.captioner import FIT_SHARE, Captioner
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.describing import captioner_for, choose_all, table_of
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.entries import entry_of
from dragoman.tools.captioning.neighbours import N_NEIGHBOURS, Neighbours
from dragoman.tools.captioning.reranking import TAU
from dragoman.tools.captioning.rows import TextExemplar, UnitCaption, row_of_entry, unit_name
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.tool import DECOYS, decoys
from dragoman.tools.captioning.units import UnitLayer, check_units, n_units, read_layers
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tools_digest

GROUP_UNITS = 16
"""As many as the tool takes at once, so that both say the same."""
_BLOCK_UNITS = 480
_CHUNK_BYTES = 256 * 1024 * 1024
_MOST_PREDICATES = 2000
"""Columns of truth values that are kept from one group to the next, of one byte a token."""
_BEFORE, _AFTER = 15, 8
"""Tokens of an exemplar that a row keeps around its peak."""


class _Asked(NamedTuple):
    """A group's units, with the decoys that their floors need."""

    block: int
    where: UnitLayer
    units: tuple[int, ...]
    decoys: tuple[int, ...]


class _Block(NamedTuple):
    """Units of one layer among which a unit's neighbours are looked for: fixed by the request."""

    where: UnitLayer
    columns: tuple[int, ...]


class LanguageUnits:
    """Requested units of a language subject, and how to describe them."""

    def __init__(
        self,
        context: ToolContext,
        requests: Mapping[UnitLayer, Sequence[int]],
        corpus: Corpus,
        *,
        effort: Effort,
        pmi: bool = True,
        dictionary: SparseDictionary | None = None,
    ) -> None:
        """`ToolError` for a layer or a unit that the subject lacks."""
        for where, units in requests.items():
            check_units(context.subject, where, units, dictionary)
        self._context, self._corpus, self._effort, self._pmi = context, corpus, effort, pmi
        self._dictionary, self._requests = dictionary, requests
        self._table = table_of(context, corpus.documents)
        most = _CHUNK_BYTES // (4 * max(self._table.n, 1))
        self._most_columns = max(most, GROUP_UNITS)
        self._blocks: list[_Block] = []
        self._asked: list[_Asked] = []
        for where, units in requests.items():
            size = min(_BLOCK_UNITS, max(GROUP_UNITS, self._most_columns - 2 * GROUP_UNITS))
            size -= size % GROUP_UNITS
            for start in range(0, len(units), size):
                self._add_block(where, units[start : start + size])
        self._read: dict[int, Float[ndarray, "tokens units"]] = {}
        self._neighbours: dict[int, list[tuple[int, ...]]] = {}

    @cached_property
    def groups(self) -> list[Group]:
        """Names of the units that are captioned together."""
        return [
            Group(tuple(unit_name(each.where.kind, each.where.layer, unit) for unit in each.units))
            for each in self._asked
        ]

    @property
    def settings(self) -> BatchSettings:
        """All that the rows depend on."""
        subject, chat = self._context.subject.identity, self._context.chat
        return BatchSettings(
            subject=subject.name,
            subject_digest=subject.digest,
            units=tuple(f"{where}: {ranges(units)}" for where, units in self._requests.items()),
            units_digest=content_id([list(group.names) for group in self.groups]),
            corpus=self._corpus.description,
            corpus_digest=content_id(list(self._corpus.documents)),
            effort=self._effort,
            seed=self._context.seed,
            chat="" if chat is None else chat.identity.model,
            pmi=self._pmi,
            dictionary_digest="" if self._dictionary is None else self._dictionary.digest,
            code=tools_digest(),
        )

    def describe(self, index: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        """The rows of the units `wanted` of a group; its other units serve as their controls."""
        where, units = self._asked[index].where, self._asked[index].units
        activations, neighbours = self._material(self._asked[index])
        captioner = captioner_for(self._context, self._table, activations, len(units))
        _forget_columns(captioner)
        names = self.groups[index].names
        chosen = choose_all(self._context, captioner, names, pmi=self._pmi).chosen
        assessor = Assessor(
            self._context,
            captioner,
            [said_of(each) for each in chosen],
            effort=self._effort,
            judges=judges_for(self._context, self._effort),
            neighbours=neighbours,
        )
        for column, (name, unit) in enumerate(zip(names, units, strict=True)):
            if name not in wanted:
                continue
            self._context.step(column, len(units), f"scoring unit {name}")
            found = assessor.assess(column, name)
            entry = entry_of(
                captioner,
                column,
                name,
                chosen[column],
                found is not None and found.holds,
                scored=found is not None,
                tau=TAU if self._pmi else 0.0,
            )
            yield row_of_entry(
                where.kind,
                where.layer,
                unit,
                entry,
                () if found is None else found.measurements,
                () if found is None else found.controls,
                exemplars=self._exemplars(captioner, column, activations[:, column]),
            )

    def _add_block(self, where: UnitLayer, units: Sequence[int]) -> None:
        """Groups of a block, each with the decoys that the tool would take for it."""
        every = n_units(self._context.subject, where, self._dictionary)
        columns = dict.fromkeys(units)
        for start in range(0, len(units), GROUP_UNITS):
            group = tuple(units[start : start + GROUP_UNITS])
            others = decoys(self._context, where, group, every, DECOYS[self._effort])
            asked = _Asked(len(self._blocks), where, group, tuple(others))
            self._asked.append(asked)
            columns |= dict.fromkeys(asked.decoys)
        self._blocks.append(_Block(where, tuple(columns)))

    def _material(self, asked: _Asked) -> tuple[Float[ndarray, "tokens units"], Neighbours]:
        """A group's activations, its decoys' after it, and the neighbours in its block."""
        if asked.block not in self._read:
            self._read_from(asked.block)
        activations, columns = self._read[asked.block], self._blocks[asked.block].columns
        place = {unit: column for column, unit in enumerate(columns)}
        if asked.block not in self._neighbours:
            first = self._table.document < round(len(self._corpus.documents) * FIT_SHARE)
            self._neighbours = {asked.block: _nearest(activations[first])}
        nearest = self._neighbours[asked.block]
        return (
            activations[:, [place[unit] for unit in (*asked.units, *asked.decoys)]],
            Neighbours(activations, tuple(nearest[place[unit]] for unit in asked.units)),
        )

    def _read_from(self, first: int) -> None:
        """Read a block, and as many after it as memory is given for, in one pass."""
        last, n_columns = first, 0
        for block in self._blocks[first:]:
            n_columns += len(block.columns)
            if last > first and n_columns > self._most_columns:
                break
            last += 1
        wanted: dict[UnitLayer, dict[int, None]] = {}
        for where, columns in self._blocks[first:last]:
            wanted[where] = wanted.get(where, {}) | dict.fromkeys(columns)
        self._read = {}  # Room for the next before it is read.
        read = read_layers(
            self._context,
            self._corpus.documents,
            self._table,
            {where: list(units) for where, units in wanted.items()},
            dictionary=self._dictionary,
        )
        for number, (where, columns) in enumerate(self._blocks[first:last], start=first):
            place = {unit: column for column, unit in enumerate(wanted[where])}
            chosen = [place[unit] for unit in columns]
            self._read[number] = (
                read[where] if chosen == list(range(len(place))) else read[where][:, chosen]
            )

    def _exemplars(
        self, captioner: Captioner, column: int, activations: Float[ndarray, " tokens"]
    ) -> list[TextExemplar]:
        if captioner.dead(column):
            return []
        highest = float(captioner.summaries.highest[column])
        document = self._table.document
        return [
            _shown(
                self._table,
                activations,
                int(np.searchsorted(document, each.document)) + each.position,
                highest,
            )
            for each, _ in captioner.exemplars(column)
        ]


def _nearest(activations: Float[ndarray, "tokens units"]) -> list[tuple[int, ...]]:
    """For each column those that correlate most with it, as `neighbours.correlated` finds them."""
    centred = activations - activations.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    correlations = (centred.T @ centred) / np.maximum(np.outer(norms, norms), 1e-12)
    np.fill_diagonal(correlations, -1.0)
    order = np.argsort(-correlations, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    return [
        tuple(int(column) for column in columns if row[column] > 0)
        for row, columns in zip(correlations, order, strict=True)
    ]


def _shown(
    table: TokenTable, activations: Float[ndarray, " tokens"], row: int, highest: float
) -> TextExemplar:
    first = max(row - _BEFORE, row - int(table.index[row]))
    last = row + 1 + int((table.document[row + 1 : row + 1 + _AFTER] == table.document[row]).sum())
    strengths = np.clip(activations[first:last] / highest, 0.0, 1.0)
    return TextExemplar(
        tokens=tuple(table.surface[first:last]),
        strengths=tuple(round(float(each), 2) for each in strengths),
        peak=row - first,
        activation=round(float(activations[row]), 4),
    )


def _forget_columns(captioner: Captioner) -> None:
    """Each unit adds predicates that no other asks about: without this memory would have no end."""
    for part in (captioner.fit, captioner.validation, captioner.held_out):
        if len(part.table.columns) > _MOST_PREDICATES:
            part.table.columns.clear()


def ranges(units: Sequence[int]) -> str:
    """'0-3, 7' of 0, 1, 2, 3, 7."""
    spans: list[list[int]] = []
    for unit in sorted(units):
        if spans and unit == spans[-1][1] + 1:
            spans[-1][1] = unit
        else:
            spans.append([unit, unit])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)
