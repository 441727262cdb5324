"""The speed of many detections: equal answers are asked for, and a difference is seen."""

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dragoman.evals import detection_speed
from dragoman.evals.detection_speed import Compared, compare, facts_of, render
from dragoman.tools.editing.detection.detector import Detector
from dragoman.tools.editing.detection.questions import Range
from dragoman.tools.editing.detection.scoring import FactRisk
from dragoman.tools.fact_files import FactRow
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject

AMONG = Range((1, 2), (("Paris",), ("Rome", "Romford")))
DETECTOR = Detector("prior", "The capital of {} is", AMONG, (1,), 1, frozenset(), ())


class Scores:
    """Answers as told, and moves a clock by a second a call and a millisecond a fact."""

    def __init__(self, batched: float, single: float) -> None:
        self.now, self._risk = 0.0, {True: batched, False: single}

    def __call__(self, subject: Any, detector: Any, rows: Sequence[FactRow], *rest: Any) -> Any:
        self.now += 1 + len(rows) / 1000
        risk = self._risk[len(rows) > 1]
        return [
            FactRisk(
                entity=row.entity,
                object=row.object,
                risk=risk,
                error_foreseen=risk > 0.5,
                expected="Paris",
                answered="Paris",
                error=False,
                editor_saw_entity=False,
                reason="",
            )
            for row in rows
        ]


def _compare(monkeypatch: pytest.MonkeyPatch, batched: float, single: float) -> Compared:
    scores = Scores(batched, single)
    monkeypatch.setattr(detection_speed, "score_facts", scores)
    monkeypatch.setattr(time, "process_time", lambda: scores.now)
    rows = facts_of(load_relation("country_capital"), DETECTOR, 1000)
    return compare(cast(LanguageSubject, None), DETECTOR, rows, 10)


def test_facts_are_every_entity_with_every_object_in_turn() -> None:
    relation = load_relation("country_capital")
    rows = facts_of(relation, DETECTOR, 2 * len(relation.samples) + 1)
    assert rows[0].entity == rows[-1].entity == relation.samples[0].subject
    assert len({(row.entity, row.object) for row in rows}) == len(rows)
    assert {row.object for row in rows} <= {"Paris", "Rome", "Romford"}


def test_the_ratio_is_of_seconds_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _compare(monkeypatch, 0.4, 0.4)
    assert (found.n_facts, found.n_singles) == (1000, 10)
    assert found.batched_seconds == pytest.approx(0.002)
    assert found.single_seconds == pytest.approx(1.001)
    assert found.good
    page = render(found, "a\x1b", "country_capital", "make it")
    assert "costs 500.5 times less than alone" in page
    assert "differ in 0 of 10 facts" in page
    assert "\x1b" not in page


def test_answers_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = _compare(monkeypatch, 0.4, 0.45)
    assert moved.disagreeing == 0
    assert moved.apart == pytest.approx(0.05)
    assert not moved.good
    other = _compare(monkeypatch, 0.4, 0.6)
    assert other.disagreeing == 10
    assert not other.good
