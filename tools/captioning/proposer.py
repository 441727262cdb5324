"""The built-in proposer: a search for the predicates that tell where a unit is active.

A beam search over and/or compositions (after Mu & Andreas 2020, arXiv:2006.14032, who search for
the highest intersection over union). Ours maximises what a caption is later scored by, the balanced
accuracy over contexts, on the proposer's own documents alone, less a price for each atom.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dragoman.tools.captioning.contexts import contexts_of
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

_SHORTLIST = 40
_BEAM = 8
_MAX_ATOMS = 4
_PRICE = 0.01
"""What an atom must add to the balanced accuracy before it is worth a longer caption."""
_LITERALS = 40
_SMOOTHING = 1.0


class Proposal(NamedTuple):
    """A predicate and how well it did on the documents that it was found on."""

    predicate: Predicate
    score: float


class _Scored(NamedTuple):
    predicate: Predicate
    column: Column
    n_atoms: int
    score: float


class PredicateSearch:
    """The search over one set of documents, for any number of units."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._contexts = contexts_of(table)
        self._general = list(_general_atoms())
        self._columns = np.stack([holds(atom, table) for atom in self._general])
        self._found = self._contexts.any_in(self._columns)

    def propose(self, active: Column, *, limit: int = 10) -> list[Proposal]:
        """The best predicates for where `active` holds, best first; fewer if there is little."""
        if not active.any():
            return []
        truth = self._contexts.any_in(active)
        shortlist = self._shortlist(active, truth)
        atom_columns = np.stack([atom.column for atom in shortlist])
        beam = shortlist[:_BEAM]
        known = {scored.predicate.model_dump_json(): scored for scored in shortlist}
        for _ in range(_MAX_ATOMS - 1):
            for scored in [
                new for old in beam for new in self._extended(old, shortlist, atom_columns, truth)
            ]:
                known.setdefault(scored.predicate.model_dump_json(), scored)
            longer = sorted(known.values(), key=_order)[:_BEAM]
            if longer == beam:
                break
            beam = longer
        best = sorted(known.values(), key=_order)[:limit]
        return [Proposal(scored.predicate, scored.score) for scored in best]

    def _shortlist(self, active: Column, truth: Column) -> list[_Scored]:
        scores = balanced_accuracy(self._found, truth) - _PRICE
        scored = [
            _Scored(atom, column, 1, float(score))
            for atom, column, score in zip(self._general, self._columns, scores, strict=True)
        ]
        for atom in _literal_atoms(self._table, active):
            column = holds(atom, self._table)
            score = balanced_accuracy(self._contexts.any_in(column), truth) - _PRICE
            scored.append(_Scored(atom, column, 1, float(score)))
        distinct = {each.predicate.model_dump_json(): each for each in scored}
        return sorted(distinct.values(), key=_order)[:_SHORTLIST]

    def _extended(
        self,
        old: _Scored,
        atoms: Sequence[_Scored],
        columns: npt.NDArray[np.bool_],
        truth: Column,
    ) -> Iterator[_Scored]:
        n_atoms = old.n_atoms + 1
        for compose, joined in ((either, columns | old.column), (both, columns & old.column)):
            scores = balanced_accuracy(self._contexts.any_in(joined), truth) - _PRICE * n_atoms
            for row in np.flatnonzero(scores > old.score).tolist():
                yield _Scored(
                    compose(old.predicate, atoms[row].predicate),
                    joined[row],
                    n_atoms,
                    float(scores[row]),
                )


def balanced_accuracy(said: Column, truth: Column) -> npt.NDArray[np.float64]:
    """Mean of the true positive and the true negative rate along the last axis, smoothed.

    One imagined miss on either side keeps a predicate of two lucky contexts from the top.
    """
    n_active, n_silent = truth.sum(), (~truth).sum()
    hits = (said & truth).sum(axis=-1) / (n_active + _SMOOTHING)
    false_alarms = ((said & ~truth).sum(axis=-1) + _SMOOTHING) / (n_silent + _SMOOTHING)
    accuracy: npt.NDArray[np.float64] = (hits + 1 - false_alarms) / 2
    return accuracy


def _order(scored: _Scored) -> tuple[float, int, str]:
    """Best first; among equals the shorter, then the alphabet, so that nothing hangs on luck."""
    return (-round(scored.score, 9), scored.n_atoms, scored.predicate.model_dump_json())


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
