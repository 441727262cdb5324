"""How a measurement reads: the one wording of value, interval, n and control.

Decimals follow the interval: its width shows two significant digits, so that no digit is printed
that the experiment could not tell from its neighbour.
"""

import math
from collections.abc import Sequence

from dragoman.core.claims import ClaimStatus
from dragoman.core.escaping import visible
from dragoman.core.records import Measurement, Unit

_BARE_UNITS: frozenset[Unit] = frozenset(
    {"fraction", "probability", "correlation", "cosine", "ratio", "count"}
)
_BOUNDED_UNITS: frozenset[Unit] = frozenset({"fraction", "probability", "correlation", "cosine"})
_MOST_DECIMALS = 6
_GROUPED_FROM = 10_000

STATUS_WORDS: dict[ClaimStatus, str] = {
    "observed": "observed",
    "correlated": "correlated",
    "intervention-supported": "supported by intervention",
    "replicated": "replicated",
    "refuted": "refuted",
    "inconclusive": "inconclusive",
}
STATUS_MEANING: dict[ClaimStatus, str] = {
    "observed": "measured, and above its control",
    "correlated": "a measured relationship holds; nothing was changed to test it",
    "intervention-supported": "the network was changed, and behaved as predicted",
    "replicated": "supported by intervention in at least two separate experiments",
    "refuted": "the prediction failed",
    "inconclusive": "the measurement does not decide",
}


def number(value: float, decimals: int) -> str:
    """`value` with that many decimals: a true minus sign, no negative zero, grouped thousands."""
    rounded = round(value, decimals)
    digits = f"{abs(rounded):,.{decimals}f}"
    if abs(rounded) < _GROUPED_FROM:
        digits = digits.replace(",", "")
    return f"\N{MINUS SIGN}{digits}" if rounded < 0 else digits


def decimals(measurement: Measurement) -> int:
    """Decimals for everything that is printed of `measurement`, its baseline included."""
    low, high = measurement.ci95
    shown = (measurement.value, measurement.baseline, low, high)
    if measurement.unit == "count" and all(value == round(value) for value in shown):
        return 0
    least = 2 if measurement.unit in _BOUNDED_UNITS else 0
    return max(least, _decimals_of(high - low, shown))


def _decimals_of(width: float, shown: Sequence[float]) -> int:
    """Two significant digits of the width; of the largest value where the width is nought."""
    scale = width if width > 0 else max(abs(value) for value in shown)
    if scale == 0:
        return 0
    return min(max(1 - math.floor(math.log10(scale)), 0), _MOST_DECIMALS)


def value(measurement: Measurement) -> str:
    """The value alone: '0.86'."""
    return number(measurement.value, decimals(measurement))


def interval(measurement: Measurement) -> str:
    """The 95% interval: '[0.71, 0.94]', with the unit where the metric's name does not say it."""
    return _bracketed(measurement.ci95, measurement) + unit(measurement)


def unit(measurement: Measurement) -> str:
    """' nat', ' logit', ' bit'; empty for shares, correlations, ratios and counts."""
    return "" if measurement.unit in _BARE_UNITS else f" {measurement.unit}"


def sample(measurement: Measurement) -> str:
    """'n = 22', and '(3 failed)' after it where any did."""
    failed = f" ({measurement.n_failed} failed)" if measurement.n_failed else ""
    return f"n = {measurement.n}{failed}"


def baseline(measurement: Measurement) -> str:
    """The value under the control, and its interval where known: '0.12 [0.03, 0.28]'."""
    shown = number(measurement.baseline, decimals(measurement))
    if measurement.baseline_ci95 is not None:
        shown += f" {_bracketed(measurement.baseline_ci95, measurement)}"
    return shown


def control(measurement: Measurement) -> str:
    """The baseline and what it is: '0.12 (shuffled relation)'; safe for any terminal."""
    return f"{baseline(measurement)} ({visible(measurement.control, one_line=True)})"


def phrase(measurement: Measurement) -> str:
    """'0.86 [0.71, 0.94], n = 22, against 0.12 (shuffled relation)': safe for any terminal."""
    return (
        f"{value(measurement)} {interval(measurement)}, {sample(measurement)},"
        f" against {control(measurement)}"
    )


def _bracketed(bounds: tuple[float, float], measurement: Measurement) -> str:
    places = decimals(measurement)
    return f"[{number(bounds[0], places)}, {number(bounds[1], places)}]"


def duration(seconds: float) -> str:
    """'0.4 s', '42 s', '3 min 05 s', '1 h 12 min'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def money(usd: float | None) -> str:
    """'$0.0042', '$0' for a local model, 'unknown' where the endpoint's price is not known."""
    if usd is None:
        return "unknown"
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


def count(amount: int) -> str:
    """A whole number with grouped thousands: '134,515,008'."""
    return f"{amount:,}"
