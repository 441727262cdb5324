"""Pooling over splits, what it takes to beat a control, and the verdict in words."""

import pytest

from dragoman.tools.circuits.measuring import measure_causality, measure_faithfulness, spread
from dragoman.tools.circuits.pooling import beats, pool
from dragoman.tools.circuits.trial import SWAPPED_H
from dragoman.tools.circuits.trial_record import Outcomes, TrialRecord
from dragoman.tools.circuits.verdicts import judge
from dragoman.tools.statistics import wilson


def _outcomes(values, *, chance=0.05, expected=False, start=0):
    by_fact = {f"s{start + i}": float(value) for i, value in enumerate(values)}
    return Outcomes(by_fact=by_fact, chance=chance, expected=expected)


def _trial(
    seed=0, *, named=None, controls=None, succeeded=None, rivals=None, known=None, lacking=""
):
    return TrialRecord(
        seed=seed,
        known=_outcomes(known or [1] * 30, chance=0.05),
        lacking=lacking,
        tested=tuple(f"s{i}" for i in range(20)),
        n_objects=20,
        n_sharing=0,
        layer=None if named is None else 5,
        beta=None if named is None else 2.0,
        named=None if named is None else _outcomes(named),
        whole=None if named is None else _outcomes(named),
        recall={} if named is None else {2: 1.0, 3: 1.0, 5: 1.0, 1: 0.5},
        controls={} if named is None else {n: _outcomes(v) for n, v in (controls or {}).items()},
        edit_layer=None if succeeded is None else 4,
        rank=None if succeeded is None else 64,
        succeeded=None if succeeded is None else _outcomes(succeeded),
        edit_controls={n: _outcomes(v) for n, v in (rivals or {}).items()},
    )


GOOD = [1] * 18 + [0] * 2
WEAK = [1] * 3 + [0] * 17
RIVALS = {"logit lens": WEAK, "translation": WEAK}


def test_one_split_has_wilsons_interval_and_several_count_each_fact_once():
    one = _outcomes(GOOD)
    assert pool([one]).interval == pytest.approx(wilson(18, 20))
    five = pool([one] * 5)
    assert (five.n, five.value, five.by_split) == (20, 0.9, [0.9] * 5)
    assert five.interval == pytest.approx(wilson(18, 20))


def test_splits_that_disagree_widen_the_interval():
    apart = pool(
        [
            _outcomes([1] * 20, start=20 * i) if i % 2 else _outcomes([0] * 20, start=20 * i)
            for i in range(4)
        ]
    )
    assert apart.n == 80
    assert apart.interval.low == 0.0
    assert apart.interval.high == 1.0


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="nothing was counted"):
        pool([])


@pytest.mark.parametrize(
    ("ours", "control", "better"),
    [
        ([1] * 10, [0] * 10, True),
        ([1] * 3, [0] * 3, False),  # three facts prove nothing
        ([1] * 10, [1] * 10, False),
        ([1] * 8 + [0] * 2, [0] * 8 + [1] * 2, False),  # eight to two does not exclude one half
        ([1] * 20, [1] * 12 + [0] * 8, True),
        ([0] * 10, [1] * 10, False),
    ],
)
def test_a_control_is_beaten_on_the_facts_where_the_two_differ(ours, control, better):
    assert beats([_outcomes(ours)], [_outcomes(control)]) is better


def test_an_expectation_is_beaten_when_the_interval_lies_above_it():
    assert beats([_outcomes(GOOD)], [_outcomes([0.3] * 20, expected=True)])
    assert not beats([_outcomes(WEAK)], [_outcomes([0.3] * 20, expected=True)])


def test_linear_and_causal():
    trials = [
        _trial(seed, named=GOOD, controls=RIVALS, succeeded=GOOD, rivals={"random": WEAK})
        for seed in range(5)
    ]
    assert judge(trials).label == "linear here and causal"
    measured = measure_faithfulness(trials)
    assert measured is not None
    headline, _ = measured
    assert headline.scope == "layer 5, 5 splits"
    assert (headline.n, headline.n_failed) == (20, 0)
    assert headline.control == "logit lens"
    assert spread(trials, "faithfulness") == [0.9] * 5


def test_the_swap_of_the_whole_h_is_shown_and_need_not_be_beaten():
    rivals = {"random": WEAK, SWAPPED_H: [1] * 20}
    trials = [_trial(named=GOOD, controls=RIVALS, succeeded=GOOD, rivals=rivals)]
    assert judge(trials).label == "linear here and causal"
    measured = measure_causality(trials)
    assert measured is not None
    headline, controls = measured
    assert headline.control == "random"
    assert SWAPPED_H in {each.scope for each in controls}


def test_decodable_but_not_causal():
    trial = _trial(named=GOOD, controls=RIVALS, succeeded=WEAK, rivals={"random": WEAK})
    verdict = judge([trial])
    assert verdict.label == "decodable but not causal"
    assert "causality 0.15 (n=20); edits below 0.6" in verdict.reason
    without = judge([_trial(named=GOOD, controls=RIVALS)])
    assert without.label == "decodable but not causal"
    assert "no edit could be judged" in without.reason


def test_known_but_not_linear_says_what_was_not_beaten():
    ties = judge([_trial(named=GOOD, controls={**RIVALS, "linear regression": GOOD})])
    assert ties.label == "known but not linear"
    assert "not above linear regression (0.90) by an interval" in ties.reason
    low = judge([_trial(named=WEAK, controls={"logit lens": [0] * 20})])
    assert low.label == "known but not linear"


def test_not_known_and_cannot_be_judged_give_no_number_of_the_map():
    ignorant = judge([_trial(known=[0] * 28 + [1] * 2, lacking="2 known of 18 test facts")] * 5)
    assert ignorant.label == "not known"
    assert "0.07 of 30 facts known" in ignorant.reason
    few = judge([_trial(known=[1] * 8 + [0] * 7, lacking="4 known of 6 test facts")])
    assert few.label == "cannot be judged"
    assert few.reason.startswith("4 known of 6 test facts")
    assert measure_faithfulness([_trial(lacking="too few")]) is None


def test_a_minority_of_judged_splits_judges_nothing():
    trials = [
        _trial(0, named=GOOD, controls=RIVALS),
        _trial(1, lacking="x"),
        _trial(2, lacking="x"),
    ]
    assert judge(trials).label == "cannot be judged"


def test_a_record_survives_its_own_json():
    trial = _trial(named=GOOD, controls=RIVALS, succeeded=GOOD, rivals={"random": WEAK})
    assert TrialRecord.model_validate_json(trial.model_dump_json()) == trial
