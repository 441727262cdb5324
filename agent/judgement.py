"""Judgement: what a measurement says about a prediction. Code decides, never a chat model."""

from dragoman.core.claims import ClaimStatus, Prediction
from dragoman.core.records import Bearing, Measurement, ToolResult

FEW = 12
"""Below this many independent samples an interval is wide, and a critic says so."""


def measured(prediction: Prediction, result: ToolResult) -> Measurement | None:
    """The measurement that a prediction is about, if the experiment yielded it."""
    return result.measurement(prediction.metric, prediction.scope)


def bearing_of(prediction: Prediction, measurement: Measurement) -> Bearing:
    """Which way a measurement points.

    It supports when its interval lies wholly above both the threshold and the control. It refutes
    when the interval lies wholly below the threshold, or the value does not exceed the control.
    """
    low, high = measurement.ci95
    if low > prediction.threshold and low > measurement.baseline:
        return "supports"
    if high < prediction.threshold or measurement.value <= measurement.baseline:
        return "refutes"
    return "neutral"


def status_of(prediction: Prediction, bearing: Bearing, *, replicated: bool) -> ClaimStatus:
    """Where on the ladder a claim stands."""
    match bearing:
        case "refutes":
            return "refuted"
        case "neutral":
            return "inconclusive"
        case "supports":
            # Behaviour that is seen twice is still only seen: the last rung needs the others.
            climbs = replicated and prediction.rung == "intervention-supported"
            return "replicated" if climbs else prediction.rung


def weaknesses(measurement: Measurement) -> list[str]:
    """What a careful reader holds against a number, by its own figures."""
    found = []
    if measurement.n < FEW:
        found.append("few independent samples stand behind this number")
    asked = measurement.n + measurement.n_failed
    if asked and measurement.n_failed / asked > 0.3:
        found.append("many of the things that were asked for could not be scored")
    control = measurement.baseline_ci95
    if (
        control is not None
        and control[1] > measurement.ci95[0]
        and control[0] < measurement.ci95[1]
    ):
        found.append("its interval overlaps that of its control")
    return found
