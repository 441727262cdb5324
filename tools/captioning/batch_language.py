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
from dragoman.tools.captioning.assessment import Assessment, Assessor, judges_for, said_of
from dragoman.tools.captioning.batch import BatchSettings, Group
from dragoman.tools.captioning.bench import Asked, Bench, bench_of, columns_of, looked_over
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.describing import choose_all, table_of
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.examination import Examination, described, examine, row_of
from dragoman.tools.captioning.hearing import Said
from dragoman.tools.captioning.neighbours import LayerScan, scan_layer
from dragoman.tools.captioning.reranking import TAU
from dragoman.tools.captioning.rows import TextExemplar, UnitCaption, unit_name
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.tool import DECOYS, decoys
from dragoman.tools.captioning.units import UnitLayer, check_units, n_units, read_layers
from dragoman.tools.captioning.whole import WholeCorpus
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tools_digest

GROUP_UNITS = 16
"""As many as the tool takes at once, so that both say the same."""
_BLOCK_UNITS = 320
_CHUNK_BYTES = 320 * 1024 * 1024
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
    """Units of one layer that are read together; which they are the request alone decides."""

    where: UnitLayer
    units: tuple[int, ...]
    decoys: tuple[int, ...]


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
        thorough: bool = False,
        whole: WholeCorpus | None = None,
        dictionary: SparseDictionary | None = None,
    ) -> None:
        """`thorough` adds the random twin, the causal check and the slow judges; `whole` is what
        `corpus` is a sample of, where its strongest contexts and quantiles are to be used.

        `ToolError` for a layer or a unit that the subject lacks.
        """
        for where, units in requests.items():
            check_units(context.subject, where, units, dictionary)
        self._context, self._corpus, self._effort, self._pmi = context, corpus, effort, pmi
        self._thorough, self._dictionary, self._requests = thorough, dictionary, requests
        self._whole = whole
        self._table = table_of(context, corpus.documents)
        self._most_columns = _CHUNK_BYTES // (4 * max(self._table.n, 1))
        self._blocks: list[_Block] = []
        self._asked: list[_Asked] = []
        for where, units in requests.items():
            for start in range(0, len(units), _BLOCK_UNITS):
                self._add_block(where, tuple(units[start : start + _BLOCK_UNITS]))
        self._scans: dict[int, LayerScan] = {}
        self._read: dict[int, dict[int, Float[ndarray, " tokens"]]] = {}

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
            corpus_digest=content_id(
                [list(self._corpus.documents), None if self._whole is None else self._whole.id]
            ),
            effort=self._effort,
            seed=self._context.seed,
            chat="" if chat is None else chat.identity.model,
            pmi=self._pmi,
            thorough=self._thorough,
            dictionary_digest="" if self._dictionary is None else self._dictionary.digest,
            code=tools_digest(),
        )

    def describe(self, index: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        """The rows of the units `wanted` of a group; its other units serve as their controls."""
        asked, names = self._asked[index], self.groups[index].names
        bench = self._bench(asked)
        _forget_columns(bench.captioner)
        choices = choose_all(self._context, bench.captioner, names, pmi=self._pmi)
        chosen, answers = choices.chosen, choices.answers
        tau = TAU if self._pmi else 0.0
        for column, found in self._found(bench, [said_of(each) for each in chosen], names, wanted):
            entry = described(bench, column, chosen[column], found, tau)
            if answers is not None:
                entry["chat_replies_per_unit"] = answers.replies_per_unit
            yield row_of(bench, column, entry, found, _exemplars(bench.captioner, column))

    def _found(
        self,
        bench: Bench,
        said: Sequence[Said | None],
        names: Sequence[str],
        wanted: Sequence[str],
    ) -> Iterator[tuple[int, Assessment | Examination | None]]:
        """Scores of the units that are wanted, by their number in the group."""
        columns = [column for column, name in enumerate(names) if name in wanted]
        if self._thorough:
            examined = examine(
                self._context, bench, said, names, effort=self._effort, pmi=self._pmi
            )
            yield from ((column, examined[column]) for column in columns)
            return
        assessor = Assessor(
            self._context,
            bench.captioner,
            said,
            effort=self._effort,
            # The other judges cost more than all else together.
            judges=judges_for(self._context, "quick"),
            neighbours=bench.neighbours,
        )
        for column in columns:
            self._context.step(column, len(names), f"scoring unit {names[column]}")
            yield column, assessor.assess(column, names[column])

    def _add_block(self, where: UnitLayer, units: tuple[int, ...]) -> None:
        """Groups of a block, each with the decoys that the tool would take for it."""
        every = n_units(self._context.subject, where, self._dictionary)
        others: dict[int, None] = {}
        for start in range(0, len(units), GROUP_UNITS):
            group = units[start : start + GROUP_UNITS]
            chosen = decoys(self._context, where, group, every, DECOYS[self._effort])
            self._asked.append(_Asked(len(self._blocks), where, group, tuple(chosen)))
            others |= dict.fromkeys(chosen)
        self._blocks.append(_Block(where, units, tuple(others)))

    def _bench(self, asked: _Asked) -> Bench:
        """A group laid out as the tool would lay it out."""
        if asked.block not in self._read:
            self._read_from(asked.block)
        read, block = self._read[asked.block], self._blocks[asked.block]
        scan = self._scan(asked.block)
        nearest = dict(zip(block.units, scan.nearest(), strict=True))
        return bench_of(
            self._context,
            asked.where,
            Asked(asked.units, asked.decoys),
            read,
            self._corpus,
            self._table,
            scan,
            [nearest[unit] for unit in asked.units],
            whole=self._whole,
            dictionary=self._dictionary,
        )

    def _read_from(self, first: int) -> None:
        """Read a block, and as many after it as memory is given for, in one pass."""
        self._read = {}  # Room for the next before it is read.
        self._scans = {each: scan for each, scan in self._scans.items() if each >= first}
        columns: dict[UnitLayer, dict[int, None]] = {}
        last = first
        for number, block in enumerate(self._blocks[first:], start=first):
            asked = Asked(block.units, block.decoys)
            wanted = dict.fromkeys(columns_of(asked, self._scan(number).nearest()))
            more = columns | {block.where: columns.get(block.where, {}) | wanted}
            if last > first and sum(map(len, more.values())) > self._most_columns:
                break
            columns, last = more, number + 1
        read = read_layers(
            self._context,
            self._corpus.documents,
            self._table,
            {where: list(units) for where, units in columns.items()},
            dictionary=self._dictionary,
        )
        for number in range(first, last):
            where = self._blocks[number].where
            self._read[number] = {
                unit: read[where][:, column] for column, unit in enumerate(columns[where])
            }

    def _scan(self, number: int) -> LayerScan:
        """What a block's layer does on a few documents."""
        if number not in self._scans:
            block = self._blocks[number]
            self._scans[number] = scan_layer(
                self._context,
                looked_over(self._corpus),
                block.where,
                block.units,
                dictionary=self._dictionary,
            )
        return self._scans[number]


def _exemplars(captioner: Captioner, column: int) -> list[TextExemplar]:
    if captioner.dead(column):
        return []
    highest = float(captioner.summaries.highest[column])
    shown = []
    for exemplar, _ in captioner.exemplars(column):
        part, row = captioner.located(exemplar)
        shown.append(_shown(part.table, part.activations[:, column], row, highest))
    return shown


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
