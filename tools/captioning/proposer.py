"""The built-in proposer: a search for the predicates that tell at which tokens a unit is active.

Atoms are what the vocabulary names, evaluated once for all units, and literals (words, pieces,
beginnings and endings) found at the unit's own active tokens, just before or just after. A subject
that reads from left to right cannot know what follows, but its units take part in predicting it.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dragoman.tools.captioning.composition import Algebra, Atoms, Proposal, search
from dragoman.tools.captioning.predicates import (
    After,
    Amid,
    Before,
    Ends,
    Kind,
    Like,
    Near,
    Piece,
    Predicate,
    Starts,
    Topic,
    Word,
    both,
    either,
    holds,
    without,
)
from dragoman.tools.captioning.tokens import Column, Lexicon, TokenTable
from dragoman.tools.captioning.vocabulary import classes, topics

BEAM = 16
"""Candidates that a search hands on to be ranked."""
_LITERALS = 32
"""Literals of each sort that are tried, the most frequent among the unit's active tokens."""
EVIDENCE = 3.0
"""Nats by which a predicate must shorten the description beyond its own length: the best of many
that were tried gains a nat or two where there is nothing to be found."""
_AFFIX_LETTERS = (2, 3, 4)
_ALGEBRA: Algebra[Predicate] = Algebra(both, either, without)


class PredicateSearch:
    """The search over one set of documents, for any number of units."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._general = _with_columns(list(_general_atoms(table)), table)
        # What names a literal is paid for as if all that were tried had been there from the start.
        self._price = math.log(len(self._general.predicates) + 5 * _LITERALS)

    def propose(self, active: Column, *, limit: int = BEAM) -> list[Proposal[Predicate]]:
        """The best predicates for where `active` holds, best first.

        Only those that shorten the description by `EVIDENCE`: a unit without a rule, as a rule, has
        none, and a unit that is never active has none at all.
        """
        if not active.any():
            return []
        literal = _with_columns(list(_literal_atoms(self._table, active)), self._table)
        atoms = self._general.and_also(literal)
        found = search(atoms, active, _ALGEBRA, price=self._price, limit=limit)
        return [each for each in found if each.gain > EVIDENCE]


def search_over(table: TokenTable) -> PredicateSearch:
    """The search over `table`, made once for all the captioners that share it."""
    for known, ready in _SEARCHES:
        if known is table:
            return ready
    made = PredicateSearch(table)
    _SEARCHES.append((table, made))
    return made


# The documents of the last captioners: a batch makes one for every few units.
_SEARCHES: deque[tuple[TokenTable, PredicateSearch]] = deque(maxlen=2)


def _with_columns(predicates: list[Predicate], table: TokenTable) -> Atoms[Predicate]:
    columns = np.zeros((len(predicates), table.n), bool)
    for row, predicate in enumerate(predicates):
        columns[row] = holds(predicate, table)
    return Atoms(predicates, columns)


def _general_atoms(table: TokenTable) -> Iterator[Predicate]:
    for name in classes():
        yield Kind(name=name)
        yield After(of=Kind(name=name))
        yield Before(of=Kind(name=name))
    for name in topics():
        yield Topic(name=name)
        yield After(of=Topic(name=name))
        yield Before(of=Topic(name=name))
        yield Near(topic=name)
        if table.meanings:
            yield Like(topic=name)
            yield After(of=Like(topic=name))
            yield Before(of=Like(topic=name))
            yield Amid(topic=name)


def _literal_atoms(table: TokenTable, active: Column) -> Iterator[Predicate]:
    """Words and parts of words at active tokens or beside them, seen active in two documents."""
    at = np.flatnonzero(active)
    before = np.flatnonzero(active & (table.index > 0)) - 1
    after = np.flatnonzero(table.previous(active))
    words, pieces = table.words, table.pieces
    for word in _frequent(words, table, at):
        yield Word(word=word)
    for piece in _frequent(pieces, table, at):
        if len(piece) == 1 or not piece[0].isalnum() or piece != piece.casefold():
            yield Piece(piece=piece)
    partial = ~(table.begins & table.ends)
    for piece in _frequent(pieces, table, at[partial[at]]):
        yield Piece(piece=piece)
    for word in _frequent(words, table, before):
        yield After(of=Word(word=word))
    for word in _frequent(words, table, after):
        yield Before(of=Word(word=word))
    yield from _affixes({words.strings[code] for code in np.unique(words.codes[at])})


def _affixes(words: set[str]) -> Iterator[Predicate]:
    """Beginnings and endings that several of the words share, the commonest first."""
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for word in words:
        for length in _AFFIX_LETTERS:
            if word.isalpha() and len(word) > length:
                starts[word[:length]] += 1
                ends[word[-length:]] += 1
    for letters in _often(starts):
        yield Starts(letters=letters)
    for letters in _often(ends):
        yield Ends(letters=letters)


def _frequent(lexicon: Lexicon, table: TokenTable, rows: npt.NDArray[np.int64]) -> list[str]:
    pairs = np.unique(np.stack([lexicon.codes[rows], table.document[rows]]), axis=1)
    codes, counts = np.unique(pairs[0], return_counts=True)
    counted = {lexicon.strings[code]: int(n) for code, n in zip(codes, counts, strict=True)}
    return _often(Counter({value: n for value, n in counted.items() if value}))


def _often(counted: "Counter[str]") -> list[str]:
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [value for value, count in ordered[:_LITERALS] if count >= 2]
