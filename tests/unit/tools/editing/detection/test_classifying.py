"""Figures of a binary classifier, against values worked out by hand."""

import numpy as np
import pytest

from dragoman.tools.editing.detection.classifying import auroc, calibrate, many_f1, phi
from dragoman.tools.editing.detection.probe import by_group

WRONG = np.array([True, True, True, False, False])


def test_phi_and_f1_of_a_known_table() -> None:
    foreseen = np.array([True, True, False, True, False])
    # 2 hits, 1 miss, 1 false alarm, 1 right rejection.
    assert phi(foreseen, WRONG) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    assert many_f1(foreseen[None], WRONG[None])[0] == pytest.approx(4 / 6)


def test_phi_is_nothing_where_nothing_is_told() -> None:
    assert phi(np.ones(5, dtype=bool), WRONG) == 0.0
    assert phi(WRONG, WRONG) == pytest.approx(1.0)
    assert phi(~WRONG, WRONG) == pytest.approx(-1.0)


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([3.0, 2.0, 1.0, 1.0, 0.0]), WRONG) == pytest.approx(5.5 / 6)
    assert auroc(np.zeros(5), WRONG) == 0.5


def test_calibration_separates_what_can_be_separated_and_risk_rises() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    made = calibrate(scores, WRONG)
    assert made.threshold == pytest.approx(0.45)
    assert list(made.foresees(scores)) == list(WRONG)
    risk = made.risk(scores)
    assert (np.diff(risk) < 0).all()
    assert risk[0] > 0.5 > risk[-1]


def test_prompts_of_one_entity_stay_in_one_fold() -> None:
    groups = [f"entity {at // 3}" for at in range(30)]
    wrong = np.arange(30) % 3 == 0
    folds = by_group(wrong, groups, 4, 0)
    assert sorted(at for fold in folds for at in fold) == list(range(30))
    homes = [{groups[at] for at in fold} for fold in folds]
    assert sum(map(len, homes)) == 10
