"""Simulation: how well does a caption predict how active its unit is, token by token?

Bills et al. 2023 (OpenAI, "Language models can explain neurons in language models"): the Pearson
correlation of predicted and true activation over concatenated tokens, and the explained variance
1 - MSE / variance. Their simulator is a chat model at ten times the cost of all else; ours reads a
caption that can be checked as a few levels: the mean activation on the captioner's own documents
where each of the caption's alternatives holds, and where none does.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.contexts import Contexts, ends_of
from dragoman.tools.captioning.predicates import Either, Predicate, holds
from dragoman.tools.captioning.tokens import Ints, TokenTable
from dragoman.tools.statistics import Interval

_RESAMPLES = 1000
_PRIOR_TOKENS = 2.0
"""Each level is pulled towards the overall mean as by so many tokens, so that one lucky token does
not set it."""


class Levels(NamedTuple):
    """A caption's alternatives, the one with the highest mean activation first."""

    alternatives: tuple[Predicate, ...]
    values: tuple[float, ...]
    """Mean activation where the alternative holds and none before it does."""
    elsewhere: float

    def predicted(self, table: TokenTable) -> Float[ndarray, " tokens"]:
        """The expected activation at each token of `table`."""
        expected = np.full(table.n, self.elsewhere)
        for predicate, value in zip(self.alternatives[::-1], self.values[::-1], strict=True):
            expected[holds(predicate, table)] = value
        return expected


def calibrated(
    predicate: Predicate, table: TokenTable, activations: Float[ndarray, " tokens"]
) -> Levels:
    """Levels of `predicate` for the unit with these activations, on the captioner's documents.

    Activations below zero count as zero: a caption tells when a unit is active.
    """
    strength = np.maximum(activations.astype(np.float64), 0.0)
    overall = float(strength.mean())
    parts = predicate.of if isinstance(predicate, Either) else (predicate,)

    def level(chosen: ndarray) -> float:
        return float(
            (strength[chosen].sum() + _PRIOR_TOKENS * overall) / (chosen.sum() + _PRIOR_TOKENS)
        )

    ordered = sorted(parts, key=lambda part: -level(holds(part, table)))
    left = np.ones(table.n, dtype=bool)
    values = []
    for part in ordered:
        here = holds(part, table)
        values.append(level(left & here))
        left &= ~here
    return Levels(tuple(ordered), tuple(values), level(left))


class Simulation(NamedTuple):
    """Sums over the tokens of each context, from which both scores and their intervals come."""

    sums: Float[ndarray, "contexts 6"]
    """Tokens, predicted, true, predicted squared, true squared, predicted times true."""

    @property
    def correlation(self) -> float:
        """Pearson's r over all tokens; 0 where predicted or true is the same everywhere."""
        return float(_correlation(self.sums.sum(axis=0)))

    @property
    def explained_variance(self) -> float:
        """1 - MSE / variance; below 0 where the mean would predict better."""
        return float(_explained(self.sums.sum(axis=0)))

    def intervals(self, seed: int) -> tuple[Interval, Interval]:
        """95% intervals of both by resampling contexts, which are of different documents."""
        generator = np.random.default_rng(seed)
        count = len(self.sums)
        weights = generator.multinomial(count, np.full(count, 1 / count), _RESAMPLES)
        drawn = weights @ self.sums
        return tuple(
            Interval(*(float(limit) for limit in np.quantile(score(drawn), [0.025, 0.975])))
            for score in (_correlation, _explained)
        )  # type: ignore[return-value]  # a generator's length is not known to the checker


def simulate(
    expected: Float[ndarray, " tokens"],
    activations: Float[ndarray, " tokens"],
    contexts: Contexts,
    rows: Ints,
) -> Simulation:
    """Compare expected and true activation (zero where negative) on the contexts `rows`."""
    true = np.maximum(activations.astype(np.float64), 0.0)
    ends = ends_of(contexts, len(true))
    columns = np.stack(
        [np.ones_like(true), expected, true, expected**2, true**2, expected * true], axis=1
    )
    sums = [columns[contexts.starts[row] : ends[row]].sum(axis=0) for row in rows]
    return Simulation(np.stack(sums) if sums else np.zeros((0, 6)))


def _correlation(sums: ndarray) -> ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    return np.where(spread > 1e-12, (n * xy - x * y) / np.maximum(spread, 1e-12), 0.0)


def _explained(sums: ndarray) -> ndarray:
    n, _, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    variance = yy - y * y / n
    error = xx - 2 * xy + yy
    return np.where(variance > 1e-12, 1 - error / np.maximum(variance, 1e-12), 0.0)
