"""Fuzzing: are the highlighted tokens of a text those at which the unit is active?

After EleutherAI's delphi: a judge that knows only the caption sees texts with marked tokens, in
half of them the truly active ones, in half as many others, and says which are marked rightly.
Detection asks in which texts a unit is active, fuzzing where in the text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.contexts import Contexts, Sample, ends_of
from dragoman.tools.captioning.scoring import MIN_ACTIVE, Detection
from dragoman.tools.captioning.tokens import Column, Ints, TokenTable

_ENOUGH = 0.5
"""A marking is right, says a caption, when it holds at least at this share of the marked tokens."""


class Marked(NamedTuple):
    """A context with some of its tokens marked."""

    context: int
    """Row of `Contexts`."""
    tokens: Ints
    """Rows of the table, ascending, all inside the context."""


class FuzzingSample(NamedTuple):
    """Markings on which a unit's caption is scored."""

    right: tuple[Marked, ...]
    """The context of each document's peak, its active tokens marked."""
    wrong: tuple[Marked, ...]
    """The same contexts with as many tokens marked at random, none of them active."""
    hard: tuple[Marked, ...]
    """Contexts of neighbouring units, marked where those are active and this unit is not."""


def mark(
    contexts: Contexts,
    active: Column,
    sample: Sample,
    *,
    neighbours: Column,
    nearby: Ints,
    seed: int,
) -> FuzzingSample:
    """Markings of the contexts of `sample`, and of the contexts `nearby` for the hard ones.

    `active` and `neighbours` say at which tokens the unit, or one of its neighbours, is above its
    threshold.
    """
    generator = np.random.default_rng([seed, 3])
    ends = ends_of(contexts, len(active))
    right, wrong, hard = [], [], []
    for context in sample.active.tolist():
        rows = np.arange(contexts.starts[context], ends[context])
        marked, others = rows[active[rows]], rows[~active[rows]]
        right.append(Marked(context, marked))
        if len(others):
            count = min(len(marked), len(others))
            drawn = np.sort(generator.choice(others, count, replace=False))
            wrong.append(Marked(context, drawn))
    for context in nearby.tolist():
        rows = np.arange(contexts.starts[context], ends[context])
        hard.append(Marked(context, rows[neighbours[rows] & ~active[rows]]))
    return FuzzingSample(tuple(right), tuple(wrong), tuple(hard))


def fuzz(
    holds: Column | None, right: Sequence[Marked], wrong: Sequence[Marked]
) -> Detection | None:
    """Judge a caption by where it holds; None where there are too few markings.

    `holds` has one entry a token; None: it cannot be checked, so all its judgements failed.
    """
    n_right, n_wrong = len(right), len(wrong)
    if min(n_right, n_wrong) < MIN_ACTIVE:
        return None
    if holds is None:
        return Detection(0, n_right, 0, n_wrong, n_failed=n_right + n_wrong)
    accepted = shares(holds, right) >= _ENOUGH
    rejected = shares(holds, wrong) < _ENOUGH
    return Detection(int(accepted.sum()), n_right, int(rejected.sum()), n_wrong)


def shares(holds: Column, markings: Sequence[Marked]) -> Float[ndarray, " markings"]:
    """For each marking the share of its tokens at which the caption holds."""
    return np.array([holds[marked.tokens].mean() for marked in markings], dtype=np.float64)


def marked_text(table: TokenTable, contexts: Contexts, marked: Marked) -> str:
    """The context with each run of marked tokens between « and »."""
    start, end = contexts.starts[marked.context], ends_of(contexts, table.n)[marked.context]
    chosen = np.zeros(table.n + 1, dtype=bool)
    chosen[marked.tokens] = True
    text = ""
    for row in range(start, end):
        opens = chosen[row] and (row == start or not chosen[row - 1])
        closes = chosen[row] and (row == end - 1 or not chosen[row + 1])
        text += f"{'«' if opens else ''}{table.surface[row]}{'»' if closes else ''}"
    return text
