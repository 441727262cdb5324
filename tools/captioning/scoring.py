"""Detection: does a caption say where its unit is active, on contexts the captioner never saw?

Balanced accuracy, (true positive rate + true negative rate) / 2, as in EleutherAI's delphi.
The floor is what the caption would score if it belonged to another unit: the same
judgements against the contexts of other units, and other units' captions against these contexts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dragoman.core.records import Measurement, Unit
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.tokens import Column
from dragoman.tools.statistics import Z95, Interval, wilson

CONTROL = "shuffled captions: this one on other units, other units' captions on this one"
MIN_ACTIVE = 5
"""With fewer active held-out contexts no score is worth the name."""


class Detection(NamedTuple):
    """How often a caption was right on active and on silent contexts; None: could not be judged."""

    hits: int
    n_active: int
    rejections: int
    n_silent: int
    n_failed: int = 0

    @property
    def balanced_accuracy(self) -> float:
        """0.5 is chance; a context that could not be judged counts as a wrong answer."""
        return (self.hits / self.n_active + self.rejections / self.n_silent) / 2

    def interval(self) -> Interval:
        """95% interval of the mean of two proportions, from their Wilson intervals.

        Squared distances to the limits add up (MOVER; Zou & Donner 2008), which holds its level at
        the few dozen contexts there are, where a bootstrap is too narrow.
        """
        centre = self.balanced_accuracy
        active = wilson(self.hits, self.n_active)
        silent = wilson(self.rejections, self.n_silent)
        sensitivity, specificity = self.hits / self.n_active, self.rejections / self.n_silent
        below = math.hypot(sensitivity - active.low, specificity - silent.low) / 2
        above = math.hypot(active.high - sensitivity, silent.high - specificity) / 2
        return Interval(max(0.0, centre - below), min(1.0, centre + above))


def detect(said: Column | None, sample: Sample) -> Detection:
    """Judge one caption on one unit's sample; `said` has one entry a context.

    None for `said`: the caption could not be read as a prediction, so all its judgements failed.
    """
    n_active, n_silent = len(sample.active), len(sample.silent)
    if said is None:
        return Detection(0, n_active, 0, n_silent, n_failed=n_active + n_silent)
    hits, rejections = int(said[sample.active].sum()), int((~said[sample.silent]).sum())
    return Detection(hits, n_active, rejections, n_silent)


def scorable(sample: Sample) -> bool:
    """Whether there are enough contexts of both kinds to score a caption at all."""
    return min(len(sample.active), len(sample.silent)) >= MIN_ACTIVE


class Score(NamedTuple):
    """A caption's detection beside its floor."""

    detection: Detection
    floor: tuple[float, ...]
    """Balanced accuracies of mismatched pairs of caption and unit, at least two."""

    @property
    def floor_mean(self) -> float:
        return float(np.mean(self.floor))

    @property
    def beats_floor(self) -> bool:
        """The whole interval lies above the floor's mean, and above chance."""
        return self.detection.interval().low > max(self.floor_mean, 0.5)

    def measurement(self, scope: str, metric: str = "detection") -> Measurement:
        """The baseline's interval is that of the mean over mismatched pairs."""
        return measured(
            metric,
            self.detection.balanced_accuracy,
            self.detection.interval(),
            self.floor,
            scope=scope,
            unit="fraction",
            n=self.detection.n_active + self.detection.n_silent,
            n_failed=self.detection.n_failed,
        )


def measured(
    metric: str,
    value: float,
    interval: Interval,
    floor: Sequence[float],
    *,
    scope: str,
    unit: Unit,
    n: int,
    n_failed: int = 0,
) -> Measurement:
    """A score beside its floor: the mean over mismatched pairs, at least two, and its interval."""
    mean = float(np.mean(floor))
    margin = Z95 * float(np.std(floor, ddof=1)) / math.sqrt(len(floor))
    return Measurement(
        metric=metric,
        value=value,
        unit=unit,
        baseline=mean,
        control=CONTROL,
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=n,
        n_failed=n_failed,
        baseline_ci95=(mean - margin, mean + margin),
        scope=scope,
    )


def score_alone(said: Column, sample: Sample, unit: int, samples: Sequence[Sample]) -> Score | None:
    """One sense of `unit`'s caption beside its floor: what the same sense scores on other units.

    `samples` are those of all units; `sample` is what of the unit's own the sense is scored on.
    None where there are too few contexts of the unit, or fewer than two other units to compare.
    """
    if not scorable(sample):
        return None
    others = [(None, each) for other, each in enumerate(samples) if other != unit]
    mismatched = floor(said, sample, others)
    return Score(detect(said, sample), mismatched) if len(mismatched) > 1 else None


def floor(
    own: Column,
    sample: Sample,
    others: Sequence[tuple[Column | None, Sample]],
) -> tuple[float, ...]:
    """Detection of all mismatched pairs that `own` caption and unit form with the `others`.

    Each of the others brings its caption's judgements, or None where it has no caption, and its
    sample, of the same contexts.
    """
    values = []
    for said, contexts in others:
        if scorable(contexts):
            values.append(detect(own, contexts).balanced_accuracy)
        if said is not None:
            values.append(detect(said, sample).balanced_accuracy)
    return tuple(values)
