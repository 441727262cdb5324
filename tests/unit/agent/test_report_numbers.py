"""How measurements, times and prices read."""

import re

import pytest

from dragoman.agent.rendering import numbers
from dragoman.agent.rendering.intervals import panels
from dragoman.core.claims import Prediction
from dragoman.core.records import Measurement, Unit
from dragoman.core.report import Report

MINUS = "\N{MINUS SIGN}"


def measurement(
    value: float = 0.863,
    low: float = 0.71,
    high: float = 0.94,
    *,
    unit: Unit = "fraction",
    baseline: float = 0.12,
    n_failed: int = 0,
    baseline_ci95: tuple[float, float] | None = None,
    control: str = "shuffled relation",
) -> Measurement:
    return Measurement(
        metric="faithfulness",
        value=value,
        unit=unit,
        baseline=baseline,
        control=control,
        ci95=(low, high),
        n=22,
        n_failed=n_failed,
        baseline_ci95=baseline_ci95,
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (measurement(), "0.86 [0.71, 0.94], n = 22, against 0.12 (shuffled relation)"),
        (
            measurement(n_failed=3, baseline_ci95=(0.03, 0.28)),
            "0.86 [0.71, 0.94], n = 22 (3 failed), against 0.12 [0.03, 0.28] (shuffled relation)",
        ),
        (
            measurement(0.86342, 0.8601, 0.8671, baseline=0.5),
            "0.8634 [0.8601, 0.8671], n = 22, against 0.5000 (shuffled relation)",
        ),
        (
            measurement(3.412, 2.871, 3.938, unit="nat", baseline=-0.004),
            "3.4 [2.9, 3.9] nat, n = 22, against 0.0 (shuffled relation)",
        ),
        (
            measurement(-0.4, -0.6, -0.1, unit="correlation", baseline=0),
            "~0.40 [~0.60, ~0.10], n = 22, against 0.00 (shuffled relation)".replace("~", MINUS),
        ),
        (
            measurement(12, 12, 12, unit="count", baseline=3),
            "12 [12, 12], n = 22, against 3 (shuffled relation)",
        ),
        (
            measurement(123456, 120000, 130000, unit="ratio", baseline=1),
            "123,456 [120,000, 130,000], n = 22, against 1 (shuffled relation)",
        ),
        (
            measurement(0, 0, 0, unit="logit", baseline=0),
            "0 [0, 0] logit, n = 22, against 0 (shuffled relation)",
        ),
        (
            measurement(control="\x1b]52;c;x\x07\u202e"),
            r"0.86 [0.71, 0.94], n = 22, against 0.12 (\x1b]52;c;x\x07\u202e)",
        ),
    ],
)
def test_phrase(given: Measurement, read: str) -> None:
    assert numbers.phrase(given) == read


@pytest.mark.parametrize(
    ("seconds", "read"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (412.7, "6 min 53 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_duration(seconds: float, read: str) -> None:
    assert numbers.duration(seconds) == read


@pytest.mark.parametrize(
    ("usd", "read"), [(None, "unknown"), (0.0, "$0"), (0.0042, "$0.0042"), (1234.5, "$1,234.50")]
)
def test_money(usd: float | None, read: str) -> None:
    assert numbers.money(usd) == read


def test_marks_stand_where_their_numbers_are(audit_report: Report) -> None:
    claim = audit_report.claims[0]
    (panel,) = panels(claim.effects, audit_report.hypotheses[0].predictions)
    row = panel.rows[0]
    effect = claim.effects[0]
    assert panel.ticks[0].at == 0
    assert panel.ticks[-1].at == 100
    assert [tick.label for tick in panel.ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert row.value == pytest.approx(100 * effect.value, abs=0.001)
    assert row.low == pytest.approx(100 * effect.ci95[0], abs=0.001)
    assert row.high == pytest.approx(100 * effect.ci95[1], abs=0.001)
    assert row.control == pytest.approx(100 * effect.baseline, abs=0.001)
    assert row.threshold == pytest.approx(20)


@pytest.mark.parametrize(
    "effect",
    [
        measurement(-3.4, -5.0, -2.2, unit="nat", baseline=0.1),
        measurement(1e-7, 0, 2e-7, unit="ratio", baseline=0),
        measurement(1e300, -1e300, 1e300, unit="ratio", baseline=0),
        measurement(1e16, 1e16, 1e16, unit="ratio", baseline=1e16),
        measurement(0, 0, 0, unit="logit", baseline=0),
        measurement(1.3, 1.2, 1.4, baseline=-0.2),
    ],
)
def test_every_mark_is_on_the_axis(effect: Measurement) -> None:
    far = Prediction(metric="faithfulness", threshold=2.0, rung="observed")
    (panel,) = panels([effect], [far])
    assert 2 <= len(panel.ticks) <= 9
    assert len({tick.label for tick in panel.ticks}) == len(panel.ticks) or abs(effect.value) > 1e15
    row = panel.rows[0]
    if abs(effect.value) < 1e150:
        for place in (row.value, row.low, row.high, row.control, row.threshold):
            assert place is not None
            assert 0 <= place <= 100


def test_effects_of_one_unit_share_an_axis(audit_report: Report) -> None:
    made = panels(audit_report.claims[1].effects, ())
    assert [(panel.unit, len(panel.rows)) for panel in made] == [("fraction", 3), ("nat", 1)]
    assert all(row.threshold is None for panel in made for row in panel.rows)
    assert all(re.fullmatch(r"[\d.,]+", tick.label) for panel in made for tick in panel.ticks)
