"""Shares by group and the fluency of texts."""

import pytest

from dragoman.tools.editing.metrics import (
    grouped_shares,
    harmonic_mean,
    ngram_entropy,
    share_by_group,
)


def test_each_entity_counts_once() -> None:
    measured = share_by_group(
        "efficacy",
        [True, True, True, False],
        ["a", "a", "a", "b"],
        baseline_wins=[False, False],
        baseline_groups=["a", "b"],
        control="no edit",
    )
    assert measured.value == 0.5
    assert measured.n == 2
    low, high = measured.ci95
    assert low < 0.1
    assert high > 0.9
    assert measured.baseline == 0


def test_groups_keep_their_shares() -> None:
    assert grouped_shares([True, False, True], ["x", "x", "y"]) == [0.5, 1.0]


def test_nothing_measured_is_no_number() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        share_by_group("x", [], [], baseline_wins=[], baseline_groups=[], control="c")


def test_harmonic_mean_forgives_no_failure() -> None:
    assert harmonic_mean([1.0, 0.0]) == 0
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)


def test_repetition_is_not_fluent() -> None:
    assert ngram_entropy("go go go go go go") == 0
    varied = "one two three four five six seven eight nine"
    # 8 different bigrams, 7 different trigrams.
    assert ngram_entropy(varied) == pytest.approx((2 / 3 * 3 + 4 / 3 * 2.807355) / 2, abs=1e-5)
    assert ngram_entropy("") == 0
