"""The built-in proposer: a search for the predicates that tell at which tokens a unit is active."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dragoman.tools.captioning.composition import Algebra, Atoms, Proposal, search
from dragoman.tools.captioning.predicates import (
    After,
    Kind,
    Near,
    Piece,
    Predicate,
    Topic,
    Word,
    both,
    either,
    holds,
)
from dragoman.tools.captioning.tokens import Column, TokenTable, Words
from dragoman.tools.captioning.vocabulary import classes, topics

_LITERALS = 40
_ALGEBRA: Algebra[Predicate] = Algebra(both, either)


class PredicateSearch:
    """The search over one set of documents, for any number of units."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._general = _with_columns(list(_general_atoms()), table)

    def propose(self, active: Column, *, limit: int = 8) -> list[Proposal[Predicate]]:
        """The best predicates for where `active` holds, best first; none where it never does."""
        if not active.any():
            return []
        literal = _with_columns(list(_literal_atoms(self._table, active)), self._table)
        atoms = Atoms(
            [*self._general.predicates, *literal.predicates],
            np.concatenate([self._general.columns, literal.columns]),
        )
        return search(atoms, active, _ALGEBRA, price=self._price, limit=limit)

    @property
    def _price(self) -> float:
        return math.log(len(self._general.predicates) + 4 * _LITERALS)


def _with_columns(predicates: list[Predicate], table: TokenTable) -> Atoms[Predicate]:
    columns = np.zeros((len(predicates), table.n), np.float32)
    for row, predicate in enumerate(predicates):
        columns[row] = holds(predicate, table)
    return Atoms(predicates, columns)


def _general_atoms() -> Iterator[Predicate]:
    for name in classes():
        yield Kind(name=name)
        yield After(of=Kind(name=name))
    for name in topics():
        yield Topic(name=name)
        yield After(of=Topic(name=name))
        yield Near(topic=name)


def _literal_atoms(table: TokenTable, active: Column) -> Iterator[Predicate]:
    """Words and pieces at active tokens or just before them, seen active in two documents."""
    before = np.flatnonzero(active & (table.index > 0)) - 1
    at = np.flatnonzero(active)
    for word in _frequent(table.word, table.document, at):
        yield Word(word=word)
    for piece in _frequent(table.piece, table.document, at):
        if len(piece) == 1 or not piece[0].isalnum() or (piece != piece.casefold()):
            yield Piece(piece=piece)
    partial = ~(table.begins & table.ends)
    for piece in _frequent(table.piece, table.document, at[partial[at]]):
        yield Piece(piece=piece)
    for word in _frequent(table.word, table.document, before):
        yield After(of=Word(word=word))


def _frequent(
    column: Words, document: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> list[str]:
    seen = {(column[row], int(document[row])) for row in rows if column[row]}
    counted = Counter(value for value, _ in seen)
    often = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [value for value, count in often[:_LITERALS] if count >= 2]
