"""The harmonic mean of five: efficacy, paraphrase efficacy, specificity, essence, fluency.

One figure for an edit that takes hold, holds under other words, spares the neighbours, leaves the
entity itself and the text readable; a method that fails at one of them fails. Fluency counts as a
share of the unedited text's, at most 1. Intervals resample entities, all five values at once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dragoman.core.records import Measurement
from dragoman.tools.editing.comparison import Comparison
from dragoman.tools.editing.directions import EDITED, NO_EDIT
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS
from dragoman.tools.editing.text_metrics import TextScores
from dragoman.tools.editing.writing import Written
from dragoman.tools.statistics import Floats, bootstrap

FIVE = ("efficacy", "paraphrase_efficacy", "neighbourhood_specificity", "essence", "fluency")


class Overall(NamedTuple):
    """For each method its five values for each entity; NaN where an entity has none."""

    entities: tuple[str, ...]
    values: Mapping[str, Floats]
    """Method to (entity, five)."""

    def of(self, method: str) -> float:
        """The harmonic mean of the five means."""
        return float(harmonic(self.values[method][None])[0])

    def best_baseline(self) -> str:
        """The baseline of the highest harmonic mean."""
        others = [method for method in self.values if method != EDITED]
        return max(others, key=self.of)

    def measure(self, seed: int) -> list[Measurement]:
        """The editor's, beside its best baseline; then every baseline's, beside no edit."""
        best = self.best_baseline()
        return [
            self._measure(method, best if method == EDITED else NO_EDIT, seed)
            for method in self.values
        ]

    def lead(self, seed: int) -> tuple[float, float, float]:
        """The editor's harmonic mean less its best baseline's, and the paired 95% interval."""
        both = np.stack([self.values[EDITED], self.values[self.best_baseline()]], axis=1)

        def difference(drawn: Floats) -> Floats:
            return harmonic(drawn[:, :, 0]) - harmonic(drawn[:, :, 1])

        value = float(difference(both[None])[0])
        low, high = bootstrap(both, seed, statistic=difference)
        return value, min(low, value), max(high, value)

    def _measure(self, method: str, control: str, seed: int) -> Measurement:
        value, baseline = self.of(method), self.of(control)
        low, high = bootstrap(self.values[method], seed, statistic=harmonic)
        other = bootstrap(self.values[control], seed, statistic=harmonic)
        return Measurement(
            metric="harmonic_mean",
            value=value,
            unit="fraction",
            baseline=baseline,
            control=f"{control}, the best baseline" if method == EDITED else control,
            ci95=(min(low, value), max(high, value)),
            n=len(self.entities),
            n_failed=0,
            baseline_ci95=(min(other[0], baseline), max(other[1], baseline)),
            scope="" if method == EDITED else method,
        )


def harmonic(drawn: Floats) -> Floats:
    """(resample, entity, five) to the harmonic mean of the five means; 0 if one of them is 0.

    A value that no drawn entity has is left out.
    """
    present = ~np.isnan(drawn)
    counts = present.sum(axis=1)
    means = np.where(present, drawn, 0.0).sum(axis=1) / np.maximum(counts, 1)
    means = np.minimum(means, 1.0)
    there = counts > 0
    failed = (there & (means <= 0)).any(axis=1)
    inverse = np.where(there, 1 / np.where(means > 0, means, 1.0), 0.0).sum(axis=1)
    result: Floats = np.where(failed, 0.0, there.sum(axis=1) / np.maximum(inverse, 1e-12))
    return result


def overall(
    comparison: Comparison,
    scores: TextScores,
    answers: Sequence[Written],
    about: Sequence[Written],
) -> Overall:
    """Gather the five values of each edited entity under each method."""
    entities = tuple(dict.fromkeys(record.entity for record in comparison.records))
    rows = {entity: row for row, entity in enumerate(entities)}
    values: dict[str, Floats] = {}
    for method in comparison.methods:
        table = np.full((len(entities), len(FIVE)), np.nan)
        found = [
            comparison.shares(method, "rewrite"),
            comparison.shares(method, "paraphrase"),
            comparison.kept_shares(method, NEIGHBOUR_KINDS),
            _by_entity(comparison, about, scores.essence[method]),
            _by_entity(comparison, answers, _relative(scores, method)),
        ]
        for column, by_entity in enumerate(found):
            for entity, value in by_entity.items():
                table[rows[entity], column] = value
        values[method] = table
    return Overall(entities, values)


def _relative(scores: TextScores, method: str) -> list[float]:
    return [
        edited / plain if plain > 0 else 1.0
        for edited, plain in zip(scores.fluency[method], scores.fluency[NO_EDIT], strict=True)
    ]


def _by_entity(
    comparison: Comparison, written: Sequence[Written], values: Sequence[float]
) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one, value in zip(written, values, strict=True):
        found.setdefault(comparison.records[one.opening.record].entity, []).append(value)
    return {entity: float(np.mean(some)) for entity, some in found.items()}
