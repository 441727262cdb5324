"""Contexts: short stretches of text; a caption says in which of them its unit is active."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.tokens import Column, Ints, TokenTable

CONTEXT_TOKENS = 16


class Contexts(NamedTuple):
    """Consecutive stretches of at most `CONTEXT_TOKENS` tokens, none across two documents."""

    starts: Ints
    """Row of each context's first token in the table."""
    document: Ints

    def any_in(self, column: Column) -> Column:
        """Whether `column` holds somewhere in each context; `column` may have rows before it."""
        found: Column = np.logical_or.reduceat(column, self.starts, axis=-1)
        return found

    def count_in(self, column: Column) -> Ints:
        """At how many tokens of each context `column` holds."""
        return np.asarray(np.add.reduceat(column.astype(np.int64), self.starts))


def contexts_of(table: TokenTable) -> Contexts:
    """Cut every document of `table` into contexts."""
    starts = np.flatnonzero(table.index % CONTEXT_TOKENS == 0)
    return Contexts(starts, table.document[starts])


class Sample(NamedTuple):
    """The contexts on which a unit's caption is scored: rows of `Contexts`."""

    active: Ints
    """From each document that activates the unit, the context with its peak."""
    silent: Ints
    """From each document, one context without activation, where there is one."""
    hard: Ints
    """Silent contexts that hold a token like those at which the unit peaked elsewhere."""


def draw(
    contexts: Contexts,
    table: TokenTable,
    activations: np.ndarray,
    threshold: float,
    lookalike: Column,
    seed: int,
) -> Sample:
    """One active and one silent context a document at most, so that contexts are independent.

    `activations` is one unit's column; `lookalike` marks tokens whose text is that of an exemplar's
    peak, for the hard negatives.
    """
    generator = np.random.default_rng(seed)
    is_active = contexts.any_in(activations > threshold)
    is_lookalike = contexts.any_in(lookalike)
    peak = np.maximum.reduceat(activations, contexts.starts)
    active, silent, hard = [], [], []
    for document in np.unique(contexts.document):
        rows = np.flatnonzero(contexts.document == document)
        if is_active[rows].any():
            active.append(rows[peak[rows].argmax()])
        quiet = rows[~is_active[rows]]
        if len(quiet):
            silent.append(generator.choice(quiet))
        alike = quiet[is_lookalike[quiet]]
        if len(alike):
            hard.append(generator.choice(alike))
    return Sample(*(np.array(rows, dtype=np.int64) for rows in (active, silent, hard)))


def nearby(
    contexts: Contexts,
    activations: Float[ndarray, " tokens"],
    threshold: float,
    neighbours: Float[ndarray, "tokens units"],
    thresholds: Float[ndarray, " units"],
    seed: int,
) -> Ints:
    """From each document one context in which a neighbouring unit is active and this one is not.

    Such contexts are the hard negatives: what sets them off from a random silent context is what
    another unit, much like this one, responds to.
    """
    generator = np.random.default_rng([seed, 2])
    silent = ~contexts.any_in(activations > threshold)
    roused = contexts.any_in(np.asarray((neighbours > thresholds).any(axis=1)))
    rows = np.flatnonzero(silent & roused)
    chosen = [
        generator.choice(rows[contexts.document[rows] == document])
        for document in np.unique(contexts.document[rows])
    ]
    return np.array(chosen, dtype=np.int64)


def ends_of(contexts: Contexts, n_tokens: int) -> Ints:
    """Row past each context's last token in its table."""
    return np.append(contexts.starts[1:], n_tokens)
