"""Several splits of the same facts as one number with an honest interval.

Splits share facts, so their counts must not be added up as if they were independent: n is the
number of *different* facts. The interval is the wider of two: Wilson's over those facts, and
Student's over the splits, which also varies the estimation facts and the settings chosen.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from dragoman.core.records import Measurement
from dragoman.tools.circuits.trial_record import Outcomes
from dragoman.tools.statistics import Interval, wilson

_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95% quantiles of Student's t for 1 to 9 degrees of freedom."""


class Pooled(NamedTuple):
    """Outcomes of some splits together."""

    value: float
    """The mean over all (split, fact) pairs."""
    n: int
    """Different facts."""
    interval: Interval
    by_split: list[float]


def pool(splits: Sequence[Outcomes]) -> Pooled:
    """One number for outcomes of the same kind on several splits, none of them empty."""
    values = [value for split in splits for value in split.by_fact.values()]
    if not values:
        raise ValueError("nothing was counted")
    value = fmean(values)
    n = len({fact for split in splits for fact in split.by_fact})
    by_split = [fmean(split.by_fact.values()) for split in splits if split.by_fact]
    low, high = wilson(value * n, n)
    if len(by_split) > 1:
        degrees = min(len(by_split) - 1, len(_STUDENT))
        half = _STUDENT[degrees - 1] * stdev(by_split) / math.sqrt(len(by_split))
        low, high = min(low, value - half), max(high, value + half)
    return Pooled(value, n, Interval(max(0.0, low), min(1.0, high)), by_split)


def beats(ours: Sequence[Outcomes], control: Sequence[Outcomes]) -> bool:
    """Whether an interval says that `ours` does better than `control` on the same facts.

    Fact by fact: of the facts on which the two differ (in the mean over splits), the share on which
    ours is better must lie above one half, by Wilson's interval. Against an expectation, in which
    no single fact can win, our own interval must lie above it.
    """
    if any(split.expected for split in control):
        return pool(ours).interval.low > pool(control).value
    differences: dict[str, float] = {}
    for mine, theirs in zip(ours, control, strict=True):
        for fact, value in mine.by_fact.items():
            if fact in theirs.by_fact:
                differences[fact] = differences.get(fact, 0.0) + value - theirs.by_fact[fact]
    wins = sum(each > 0 for each in differences.values())
    losses = sum(each < 0 for each in differences.values())
    return wilson(wins, wins + losses).low > 0.5


def measure(
    metric: str,
    splits: Sequence[Outcomes],
    baseline: Sequence[Outcomes],
    control: str,
    *,
    n_failed: int = 0,
    scope: str = "",
) -> Measurement:
    """Pooled outcomes beside a pooled control."""
    ours, theirs = pool(splits), pool(baseline)
    return Measurement(
        metric=metric,
        value=ours.value,
        unit="fraction",
        baseline=theirs.value,
        control=control,
        ci95=ours.interval,
        n=ours.n,
        n_failed=n_failed,
        baseline_ci95=theirs.interval,
        scope=scope,
    )


def by_chance(splits: Sequence[Outcomes]) -> list[Outcomes]:
    """What the splits' own answers reach on permuted objects, as outcomes."""
    return [
        Outcomes(
            by_fact=dict.fromkeys(split.by_fact, split.chance), chance=split.chance, expected=True
        )
        for split in splits
    ]
