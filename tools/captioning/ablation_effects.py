"""What an ablation changes, beside the same ablation of matched random sets of units.

Any units do some harm; what counts is how much more these do than others like them.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import Measurement, Unit
from dragoman.tools import statistics
from dragoman.tools.registry import Effort

RANDOM_SETS: dict[Effort, int] = {"quick": 19, "full": 39}
"""With nineteen, one that none exceeds has p = 1/20."""
CONTROL = "what one in twenty matched random sets of {} exceeds"


class Measured(NamedTuple):
    """What is measured with and without the units; one value an independent sample."""

    metric: str
    unit: Unit
    scope: str
    harm: int
    """1 where a higher score is worse, -1 where a lower one is; 0: either way."""
    units: str = "neurons of the layer"
    """What random sets are drawn from, in words."""


def measured(
    task: Measured,
    own: Float[ndarray, " samples"],
    random: Float[ndarray, "sets samples"],
    seed: int,
) -> tuple[Measurement, float]:
    """The effect beside what one in twenty random sets exceeds, and the p of its rank."""
    means = random.mean(axis=1)
    if task.harm == 0:
        # Either direction counts, for the random sets too.
        own, means = own * (1 if own.mean() >= 0 else -1), np.abs(means)
    value, interval = float(own.mean()), statistics.bootstrap(own, seed)
    allowed = max(0, math.floor(0.05 * (len(means) + 1)) - 1)
    measurement = Measurement(
        metric=task.metric,
        value=value,
        unit=task.unit,
        baseline=float(np.sort(means)[::-1][allowed]),
        control=CONTROL.format(task.units),
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=len(own),
        scope=task.scope,
    )
    return measurement, float(1 + (means >= value).sum()) / (1 + len(means))


def typical(task: Measured, random: Float[ndarray, "sets samples"], seed: int) -> Measurement:
    """The random sets' own effects, whose mean stands against no ablation."""
    means = random.mean(axis=1)
    value, interval = float(means.mean()), statistics.bootstrap(means, seed)
    return Measurement(
        metric=f"{task.metric}_of_random_sets",
        value=value,
        unit=task.unit,
        baseline=0.0,
        control="no ablation",
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=len(means),
        scope=task.scope,
    )
