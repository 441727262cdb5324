"""The several things that one unit responds to, told apart by meaning.

Two ways lead to senses. *Clusters*: the words at the unit's active tokens are embedded and
clustered, and the predicate search runs once for each cluster. *Disjuncts*: the alternatives of a
caption that was found for the unit as a whole, those of like meaning put together. On planted
units with two senses both are measured (`python -m dragoman.evals.planted_units`); clusters find
captions that the search as a whole misses, so they propose, and disjuncts tell the senses of
whatever was chosen.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.predicates import (
    After,
    Before,
    Both,
    Either,
    Like,
    Not,
    Piece,
    Predicate,
    Topic,
    Word,
    both,
    either,
    holds,
    phrase,
)
from dragoman.tools.captioning.proposer import PredicateSearch
from dragoman.tools.captioning.tokens import Column, TokenTable

Vectors: TypeAlias = Callable[[Sequence[str]], Float[ndarray, "texts d"]]
"""Texts to vectors of length one."""
MOST = 3
SMALLEST_SHARE = 0.05
"""A sense that explains fewer of the unit's active contexts is not told."""
_ALIKE = 0.35
"""Mean cosine of two groups of words that are one sense."""
_MOST_ALTERNATIVES = 24
_MOST_WORDS = 120
_SMALLEST_CLUSTER = 0.1


def by_clusters(
    table: TokenTable, active: Column, search: PredicateSearch, vectors: Vectors
) -> tuple[Predicate, ...]:
    """A predicate for each cluster of the words at active tokens; empty where there is but one."""
    counted = Counter(table.word[active].tolist())
    counted.pop("", None)
    words = [word for word, _ in counted.most_common(_MOST_WORDS)]
    if len(words) < 2:
        return ()
    groups = _grouped(vectors(words), np.array([counted[word] for word in words], float))
    n_active = float(active.sum())
    sizes = [sum(counted[words[row]] for row in group) / n_active for group in groups]
    kept = [group for group, size in zip(groups, sizes, strict=True) if size >= _SMALLEST_CLUSTER]
    if not 2 <= len(kept) <= MOST:
        return ()
    predicates: dict[str, Predicate] = {}
    for group in kept:
        members = {words[row] for row in group}
        inside = active & table.words.where(members.__contains__)
        for found in search.propose(inside, limit=1):
            predicates[found.predicate.model_dump_json()] = found.predicate
    return tuple(predicates.values()) if len(predicates) > 1 else ()


def by_disjuncts(
    predicate: Predicate, vectors: Vectors | None, tables: Sequence[TokenTable] = ()
) -> tuple[Predicate, ...]:
    """The alternatives of `predicate`, at most `MOST`: those nearest in meaning are one sense.

    Without an embedder alternatives of one form (words, classes, neighbours) are one sense. An
    exception that makes no difference to an alternative on any of `tables` is left out of it.
    """
    parts = [_plain(part, tables) for part in _alternatives(predicate)]
    if len(parts) == 1:
        return (predicate,)
    if vectors is None:
        forms = list(dict.fromkeys(type(part) for part in parts))
        groups = [[row for row, part in enumerate(parts) if type(part) is form] for form in forms]
        rest = [row for group in groups[MOST - 1 :] for row in group]
        groups = [*groups[: MOST - 1], *([rest] if rest else [])]
    else:
        groups = _grouped(vectors([_gist(part) for part in parts]), np.ones(len(parts)), most=MOST)
    return tuple(_united([parts[row] for row in group]) for group in groups)


def _alternatives(predicate: Predicate) -> list[Predicate]:
    """What `predicate` is the disjunction of, also where that stands inside of a conjunction."""
    match predicate:
        case Either(of=parts):
            found = [each for part in parts for each in _alternatives(part)]
            return list({each.model_dump_json(): each for each in found}.values())
        case Both(of=parts):
            crossed = list(product(*map(_alternatives, parts)))
            return [reduce(both, each) for each in crossed[:_MOST_ALTERNATIVES]]
        case _:
            return [predicate]


def _plain(predicate: Predicate, tables: Sequence[TokenTable]) -> Predicate:
    """The predicate without exceptions from which nothing of it is excepted."""
    if not isinstance(predicate, Both) or not tables:
        return predicate
    kept = list(predicate.of)
    for part in predicate.of:
        fewer = [each for each in kept if each is not part]
        if isinstance(part, Not) and fewer:
            plainer = reduce(both, fewer)
            if all((holds(plainer, table) <= holds(part, table)).all() for table in tables):
                kept = fewer
    return reduce(both, kept)


def _united(parts: Sequence[Predicate]) -> Predicate:
    predicate, *rest = parts
    for part in rest:
        predicate = either(predicate, part)
    return predicate


def _gist(predicate: Predicate) -> str:
    """What the predicate is about, without the words that all captions share."""
    match predicate:
        case Word(word=text) | Piece(piece=text):
            return text
        case Topic(name=text) | Like(topic=text):
            return text
        case After(of=part):
            return f"after {_gist(part)}"
        case Before(of=part):
            return f"before {_gist(part)}"
        case Both(of=parts):
            # What is excepted tells nothing of what is meant.
            return " ".join(_gist(part) for part in parts if not isinstance(part, Not))
        case _:
            return phrase(predicate)


def _grouped(
    vectors: Float[ndarray, "texts d"], weights: Float[ndarray, " texts"], most: int | None = None
) -> list[list[int]]:
    """Agglomerative clustering by mean cosine, until groups are unlike and no more than `most`."""
    groups = [[row] for row in range(len(vectors))]
    between = np.asarray(vectors @ vectors.T, np.float64).round(6)
    np.fill_diagonal(between, -np.inf)
    mass = np.asarray(weights, np.float64).copy()
    n_alive = len(groups)
    while n_alive > 1:
        first, second = sorted(map(int, np.unravel_index(between.argmax(), between.shape)))
        if between[first, second] < _ALIKE and (most is None or n_alive <= most):
            break
        total = mass[first] + mass[second]
        joined = (mass[first] * between[first] + mass[second] * between[second]) / total
        joined[first] = -np.inf
        between[first], between[:, first] = joined, joined
        between[second], between[:, second] = -np.inf, -np.inf
        mass[first] = total
        groups[first] += groups[second]
        groups[second] = []
        n_alive -= 1
    return [sorted(group) for group in groups if group]
