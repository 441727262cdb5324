"""Contexts: short stretches of text; a caption says in which of them its unit is active."""

from typing import NamedTuple

import numpy as np

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
