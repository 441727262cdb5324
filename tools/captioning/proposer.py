"""The built-in proposer: a search for the predicates that tell at which tokens a unit is active.

A beam search over and/or compositions (after Mu & Andreas 2020, arXiv:2006.14032, who search for
the highest intersection over union). Ours maximises a description length: how much likelier the
unit's active tokens become, in nats, when their rate may differ between the tokens of which the
predicate holds and the others; less, for each atom, the nats that it takes to name one atom among
all. So a long caption has to pay for itself, and the fewer the data the shorter the captions.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray

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

Truth: TypeAlias = npt.NDArray[np.float32]
"""1 at the tokens where the unit is active, else 0."""
_SHORTLIST = 100
_BEAM = 8
_EXTENSIONS = 6
"""Compositions that each member of the beam may contribute in a round."""
_MAX_ATOMS = 6
_LITERALS = 40


class Proposal(NamedTuple):
    """A predicate, and the nats by which it shortens the description of the fit's documents."""

    predicate: Predicate
    gain: float


class _Scored(NamedTuple):
    predicate: Predicate
    column: Column
    n_atoms: int
    gain: float


class _Atoms(NamedTuple):
    """Atoms with their columns as numbers, so that whole rounds are matrix products."""

    predicates: list[Predicate]
    columns: Float[ndarray, "atoms tokens"]


class PredicateSearch:
    """The search over one set of documents, for any number of units."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._general = _with_columns(list(_general_atoms()), table)

    def propose(self, active: Column, *, limit: int = 8) -> list[Proposal]:
        """The best predicates for where `active` holds, best first; none where it never does."""
        if not active.any():
            return []
        truth = active.astype(np.float32)
        atoms, known = self._shortlist(active, truth)
        beam = _best(known, _BEAM)
        for _ in range(_MAX_ATOMS - 1):
            before = len(known)
            for old in beam:
                for new in _extended(old, atoms, truth, self._price):
                    known.setdefault(new.predicate.model_dump_json(), new)
            if len(known) == before:
                break
            beam = _best(known, _BEAM)
        return [Proposal(each.predicate, each.gain) for each in _best(known, limit)]

    @property
    def _price(self) -> float:
        return math.log(len(self._general.predicates) + 4 * _LITERALS)

    def _shortlist(self, active: Column, truth: Truth) -> tuple[_Atoms, dict[str, _Scored]]:
        literal = _with_columns(list(_literal_atoms(self._table, active)), self._table)
        predicates = [*self._general.predicates, *literal.predicates]
        columns = np.concatenate([self._general.columns, literal.columns])
        gains = information(columns.sum(axis=1), columns @ truth, truth) - self._price
        order = sorted(range(len(predicates)), key=lambda row: (-round(float(gains[row]), 6), row))
        rows = order[:_SHORTLIST]
        known = {
            predicates[row].model_dump_json(): _Scored(
                predicates[row], columns[row] > 0, 1, float(gains[row])
            )
            for row in rows
        }
        return _Atoms([predicates[row] for row in rows], columns[rows]), known


def information(
    n_said: Float[ndarray, "*shape"], n_hits: Float[ndarray, "*shape"], truth: Truth
) -> Float[ndarray, "*shape"]:
    """Gain in log-likelihood, in nats, of two rates of activity over one for all tokens.

    `n_said` tokens satisfy the predicate, `n_hits` of them are active. A predicate that marks the
    silent tokens says nothing about where the unit is active: its gain is 0.
    """
    n, n_active = float(len(truth)), float(truth.sum())
    gain = (
        _entropy_sum(n_hits, n_said)
        + _entropy_sum(n_active - n_hits, n - n_said)
        - _entropy_sum(np.array(n_active), np.array(n))
    )
    informative = n_hits * n > n_said * n_active
    return np.where(informative, gain, 0.0)


def _entropy_sum(k: Float[ndarray, "*shape"], n: Float[ndarray, "*shape"]) -> Any:
    """Log-likelihood of k successes in n at their own rate."""
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    total = n * np.log(np.maximum(n, 1))
    return k * np.log(np.maximum(k, 1)) + (n - k) * np.log(np.maximum(n - k, 1)) - total


def _extended(old: _Scored, atoms: _Atoms, truth: Truth, price: float) -> Iterator[_Scored]:
    """The best compositions of `old` with one more atom, as far as they gain anything."""
    n_atoms = old.n_atoms + 1
    column = old.column.astype(np.float32)
    n_both, hits_both = atoms.columns @ column, atoms.columns @ (column * truth)
    n_either = atoms.columns.sum(axis=1) + column.sum() - n_both
    hits_either = atoms.columns @ truth + column @ truth - hits_both
    for compose, n_said, n_hits in (
        (both, n_both, hits_both),
        (either, n_either, hits_either),
    ):
        gains = information(n_said, n_hits, truth) - price * n_atoms
        for row in np.argsort(-gains, kind="stable")[:_EXTENSIONS].tolist():
            if gains[row] > old.gain + 1e-6:
                other = atoms.columns[row] > 0
                joined = old.column & other if compose is both else old.column | other
                yield _Scored(
                    compose(old.predicate, atoms.predicates[row]),
                    joined,
                    n_atoms,
                    float(gains[row]),
                )


def _best(known: dict[str, _Scored], limit: int) -> list[_Scored]:
    """Best first; among equals the shorter, then the alphabet, so that nothing hangs on luck."""
    ordered = sorted(
        known.items(), key=lambda item: (-round(item[1].gain, 6), item[1].n_atoms, item[0])
    )
    return [scored for _, scored in ordered[:limit]]


def _with_columns(predicates: list[Predicate], table: TokenTable) -> _Atoms:
    columns = np.zeros((len(predicates), table.n), np.float32)
    for row, predicate in enumerate(predicates):
        columns[row] = holds(predicate, table)
    return _Atoms(predicates, columns)


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
