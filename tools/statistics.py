"""Intervals, tests and corrections; every random draw takes its seed.

Wilson (1927) for proportions, percentile bootstrap (Efron 1979) for means, permutation tests with
the +1 correction (Phipson & Smyth 2010), Benjamini & Hochberg (1995) for many tests at once.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from dragoman.core.records import Measurement, Unit

Floats: TypeAlias = npt.NDArray[np.float64]

Z95 = 1.959963984540054


class Interval(NamedTuple):
    """A two-sided 95% interval."""

    low: float
    high: float


def wilson(successes: float, n: int) -> Interval:
    """Wilson score interval of a proportion; (0, 1) when nothing was observed.

    `successes` may be an expected count, such as the mean over all permutations of a control.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    centre = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(max(0.0, min(low, share)), min(1.0, max(high, share)))


def bootstrap(
    samples: Sequence[float] | Floats,
    seed: int,
    *,
    statistic: Callable[[Floats], Floats] | None = None,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap of the mean, or of `statistic` (rows of resamples → one value a row)."""
    values = np.asarray(samples, dtype=np.float64)
    if values.shape[0] == 0:
        raise ValueError("cannot bootstrap an empty sample")
    generator = np.random.default_rng(seed)
    drawn = values[generator.integers(0, values.shape[0], (resamples, values.shape[0]))]
    estimates = drawn.mean(axis=1) if statistic is None else statistic(drawn)
    low, high = np.quantile(estimates, [0.025, 0.975])
    return Interval(float(low), float(high))


def proportion(
    metric: str,
    successes: float,
    n: int,
    *,
    baseline_successes: float,
    baseline_n: int,
    control: str,
    n_failed: int = 0,
    scope: str = "",
) -> Measurement:
    """A fraction with Wilson intervals for itself and for its control."""
    if n == 0 or baseline_n == 0:
        raise ValueError(f"{metric}: nothing was measured")
    return Measurement(
        metric=metric,
        value=successes / n,
        unit="fraction",
        baseline=baseline_successes / baseline_n,
        control=control,
        ci95=wilson(successes, n),
        n=n,
        n_failed=n_failed,
        baseline_ci95=wilson(baseline_successes, baseline_n),
        scope=scope,
    )


def mean(
    metric: str,
    samples: Sequence[float] | Floats,
    *,
    unit: Unit,
    baseline_samples: Sequence[float] | Floats,
    control: str,
    seed: int,
    n_failed: int = 0,
    scope: str = "",
) -> Measurement:
    """A mean with bootstrap intervals for itself and for its control."""
    if len(samples) == 0 or len(baseline_samples) == 0:
        raise ValueError(f"{metric}: nothing was measured")
    value, baseline = float(np.mean(samples)), float(np.mean(baseline_samples))
    return Measurement(
        metric=metric,
        value=value,
        unit=unit,
        baseline=baseline,
        control=control,
        ci95=_around(value, bootstrap(samples, seed)),
        n=len(samples),
        n_failed=n_failed,
        baseline_ci95=_around(baseline, bootstrap(baseline_samples, seed)),
        scope=scope,
    )


def _around(value: float, interval: Interval) -> Interval:
    return Interval(min(interval.low, value), max(interval.high, value))


def permutation_p(
    first: Sequence[float], second: Sequence[float], seed: int, *, permutations: int = 10_000
) -> float:
    """One-sided p that mean(first) exceeds mean(second) only by the labels' luck."""
    pooled = np.concatenate([np.asarray(first, float), np.asarray(second, float)])
    n_first = len(first)
    observed = pooled[:n_first].mean() - pooled[n_first:].mean()
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(pooled, (permutations, 1)), axis=1)
    differences = shuffled[:, :n_first].mean(axis=1) - shuffled[:, n_first:].mean(axis=1)
    return float((1 + np.sum(differences >= observed - 1e-12)) / (permutations + 1))


def benjamini_hochberg(p_values: Sequence[float], *, rate: float = 0.05) -> list[bool]:
    """Which hypotheses stand when the false discovery rate is held at `rate`."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    last = -1
    for rank, index in enumerate(order, start=1):
        if p_values[index] <= rate * rank / count:
            last = rank
    accepted = {order[rank] for rank in range(max(last, 0))}
    return [index in accepted for index in range(count)]
