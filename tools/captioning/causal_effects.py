"""What a change of a unit does to a target, beside two controls.

*Like units*, each changed as much in the same place: does this one do more than they? *Other
targets*, with which its caption has nothing to do: does it do more to this one than to them? A unit
that stirs up all there is, as some of a subject's last layer do, passes the first and not the
second. Effects on different targets are compared in units of what like units do to each.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.statistics import bootstrap


class Effects(NamedTuple):
    """What a change of the unit, and as large a change of each like unit, does to a target."""

    own: Float[ndarray, " contexts"]
    """Nats by which the unit makes the target likelier."""
    matched: Float[ndarray, "units contexts"]
    elsewhere: Float[ndarray, " targets"] | None = None
    """What the unit does to each of the other targets (see `strengths`); None: not looked at."""

    @property
    def mean(self) -> float:
        """Above zero the unit promotes the target, below it suppresses it."""
        return float(self.own.mean())

    @property
    def p_value(self) -> float:
        """The rank of the unit's effect, by size, among the controls': of two ranks the worse."""
        ranks = [_rank(abs(self.mean), np.abs(self.matched.mean(axis=1)))]
        if self.elsewhere is not None:
            ranks.append(_rank(self._strength, self.elsewhere))
        return max(ranks)

    @property
    def _strength(self) -> float:
        bar = self.bar_of_units
        return abs(self.mean) / bar if bar else math.inf

    @property
    def bar_of_units(self) -> float:
        """The size that one in twenty like units exceeds, in nats."""
        return float(_exceeded_by_few(np.abs(self.matched.mean(axis=1))))

    @property
    def bar_of_targets(self) -> float:
        """What the unit would do if it did as much as to one in twenty other targets, in nats."""
        if self.elsewhere is None:
            return 0.0
        if not len(self.elsewhere):  # then nothing that it does is known to be particular
            return abs(self.mean)
        return self.bar_of_units * float(_exceeded_by_few(self.elsewhere))

    @property
    def bar(self) -> float:
        """The higher of both bars: above it p is at most 0.05."""
        return max(self.bar_of_units, self.bar_of_targets)

    @property
    def output(self) -> JsonObject:
        """For the entry of the unit."""
        found: JsonObject = {
            "effect_nats": round(self.mean, 5),
            "p": round(self.p_value, 4),
            "bar_of_units_nats": round(self.bar_of_units, 5),
        }
        if self.elsewhere is not None:
            found["bar_of_targets_nats"] = round(self.bar_of_targets, 5)
            found["n_other_targets"] = len(self.elsewhere)
        return found

    def measurement(
        self,
        metric: str,
        scope: str,
        seed: int,
        *,
        like: str = "units of the layer",
        targets: str = "other targets",
    ) -> Measurement:
        """The effect's size beside the bar; the interval is over contexts.

        `like` says in words which units are like it, `targets` what the other targets are.
        """
        turned = self.own if self.mean >= 0 else -self.own
        value, interval = abs(self.mean), bootstrap(turned, seed)
        control = (
            f"what one in twenty matched {like} exceeds, each moved by as much in the same place"
        )
        if self.elsewhere is not None:
            control += (
                f"; or, where that is more, what the unit itself does to one in twenty {targets}"
            )
        return Measurement(
            metric=metric,
            value=value,
            unit="nat",
            baseline=self.bar,
            control=control,
            ci95=(min(interval.low, value), max(interval.high, value)),
            n=len(self.own),
            scope=scope,
        )


def strengths(effects: Float[ndarray, "targets units contexts"]) -> Float[ndarray, " targets"]:
    """What the first unit does to each target, in units of what one in twenty others exceeds.

    Targets that have no probability somewhere, or that no other unit changes, fall out.
    """
    sizes = np.abs(effects.mean(axis=2)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = sizes[0] / _exceeded_by_few(sizes[1:])
    finite: ndarray = found[np.isfinite(found)]
    return finite


def _exceeded_by_few(sizes: Float[ndarray, "n ..."]) -> Float[ndarray, "..."]:
    """The size that one in twenty exceeds; of fewer than thirty-nine, the largest."""
    descending = np.sort(sizes, axis=0)[::-1]
    found: ndarray = descending[max(0, math.floor(0.05 * (len(sizes) + 1)) - 1)]
    return found


def _rank(own: float, others: Float[ndarray, " n"]) -> float:
    return float(1 + (others >= own).sum()) / (1 + len(others))
