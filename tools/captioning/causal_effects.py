"""What a change of a unit does to a target, beside as large a change of matched units."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import Measurement
from dragoman.tools.statistics import bootstrap

CONTROL = "what one in twenty matched {} exceeds, each moved by as much in the same place"


class Effects(NamedTuple):
    """What a change of the unit, and as large a change of each matched unit, does to a target."""

    own: Float[ndarray, " contexts"]
    """Nats by which the unit makes the target likelier."""
    matched: Float[ndarray, "units contexts"]

    @property
    def mean(self) -> float:
        """Above zero the unit promotes the target, below it suppresses it."""
        return float(self.own.mean())

    @property
    def p_value(self) -> float:
        """The rank of the unit's effect, by size, among the matched ones, itself included."""
        at_least = np.abs(self.matched.mean(axis=1)) >= abs(self.mean)
        return float(1 + at_least.sum()) / (1 + len(self.matched))

    @property
    def bar(self) -> float:
        """The size that one in twenty matched units exceeds: above it p is at most 0.05."""
        sizes = np.sort(np.abs(self.matched.mean(axis=1)))[::-1]
        return float(sizes[max(0, math.floor(0.05 * (len(sizes) + 1)) - 1)])

    def measurement(
        self, metric: str, scope: str, seed: int, matched: str = "units of the layer"
    ) -> Measurement:
        """The effect's size beside the bar, which `matched` set; the interval is over contexts."""
        turned = self.own if self.mean >= 0 else -self.own
        value, interval = abs(self.mean), bootstrap(turned, seed)
        return Measurement(
            metric=metric,
            value=value,
            unit="nat",
            baseline=self.bar,
            control=CONTROL.format(matched),
            ci95=(min(interval.low, value), max(interval.high, value)),
            n=len(self.own),
            scope=scope,
        )
