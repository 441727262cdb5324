"""Where the marks of an interval plot stand: value, whisker, control and threshold.

Positions are percentages of the plot's width, so that the drawing needs no size of its own.
Effects of one unit share an axis; a bounded unit shows all of its range.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from dragoman.agent.rendering.numbers import number
from dragoman.core.claims import Prediction
from dragoman.core.records import Measurement, Unit

_RANGES: dict[Unit, tuple[float, float]] = {
    "fraction": (0.0, 1.0),
    "probability": (0.0, 1.0),
    "correlation": (-1.0, 1.0),
    "cosine": (-1.0, 1.0),
}
_FAR = 1e150
"""Beyond this a difference of two numbers may overflow; the mark then stands outside the plot."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Tick(NamedTuple):
    """A labelled place on the axis, in percent."""

    at: float
    label: str


class Row(NamedTuple):
    """One effect; all positions in percent of the width."""

    measurement: Measurement
    value: float
    low: float
    high: float
    control: float
    control_low: float
    control_high: float
    threshold: float | None
    """What the preregistered prediction demanded; None where it made none for this effect."""


class Panel(NamedTuple):
    """Effects on one axis."""

    unit: Unit
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]


def panels(effects: Sequence[Measurement], predictions: Sequence[Prediction]) -> tuple[Panel, ...]:
    """One panel for each unit, in the order in which the units first appear."""
    units = dict.fromkeys(effect.unit for effect in effects)
    return tuple(
        _panel(unit, [effect for effect in effects if effect.unit == unit], predictions)
        for unit in units
    )


def _panel(unit: Unit, effects: Sequence[Measurement], predictions: Sequence[Prediction]) -> Panel:
    thresholds = [_threshold(effect, predictions) for effect in effects]
    shown = [threshold for threshold in thresholds if threshold is not None]
    for effect in effects:
        shown += [effect.value, *effect.ci95, effect.baseline, *(effect.baseline_ci95 or ())]
    ticks = _ticks(*_RANGES.get(unit, (0.0, 0.0)), shown)
    first, last = ticks[0], ticks[-1]

    def at(value: float) -> float:
        return round(100 * (value - first) / (last - first), 3)

    rows = []
    for effect, threshold in zip(effects, thresholds, strict=True):
        control_low, control_high = effect.baseline_ci95 or (effect.baseline, effect.baseline)
        rows.append(
            Row(
                measurement=effect,
                value=at(effect.value),
                low=at(effect.ci95[0]),
                high=at(effect.ci95[1]),
                control=at(effect.baseline),
                control_low=at(control_low),
                control_high=at(control_high),
                threshold=None if threshold is None else at(threshold),
            )
        )
    places = _places(ticks[1] - ticks[0])
    return Panel(unit, tuple(rows), tuple(Tick(at(tick), number(tick, places)) for tick in ticks))


def _threshold(effect: Measurement, predictions: Sequence[Prediction]) -> float | None:
    for prediction in predictions:
        if prediction.metric == effect.metric and prediction.scope in (None, effect.scope):
            return prediction.threshold
    return None


def _ticks(least: float, most: float, shown: Sequence[float]) -> list[float]:
    """Round places, four to seven of them, from below all that is shown to above it."""
    near = [max(-_FAR, min(_FAR, value)) for value in shown]
    low, high = min(least, *near), max(most, *near)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):
        margin = 0.5 * max(abs(low), abs(high), 1.0)
        low, high = low - margin, high + margin
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _places(step: float) -> int:
    """Decimals that tell neighbouring ticks apart."""
    return next((places for places in range(7) if abs(round(step, places) - step) < 1e-9), 6)
