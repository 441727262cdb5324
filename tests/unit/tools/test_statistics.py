"""Intervals and tests against their published properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.tools import statistics


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_estimate_and_stays_in_range(pair: tuple[int, int]) -> None:
    successes, n = pair
    low, high = statistics.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_wilson_matches_a_worked_example() -> None:
    assert statistics.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = statistics.bootstrap(generator.normal(1.0, 1.0, 40), seed, resamples=500)
        covered += low <= 1.0 <= high
    assert 175 <= covered <= 199


def test_bootstrap_repeats_with_its_seed() -> None:
    assert statistics.bootstrap([1, 2, 5], 3) == statistics.bootstrap([1, 2, 5], 3)


def test_permutation_p_is_uniform_under_the_null_and_small_otherwise() -> None:
    generator = np.random.default_rng(1)
    nulls = [
        statistics.permutation_p(
            generator.normal(0, 1, 12).tolist(),
            generator.normal(0, 1, 12).tolist(),
            seed,
            permutations=200,
        )
        for seed in range(100)
    ]
    assert 0.35 < float(np.mean(nulls)) < 0.65
    assert statistics.permutation_p([5.0] * 8, [0.0] * 8, 0) < 0.001


def test_benjamini_hochberg_matches_the_published_example() -> None:
    # Benjamini & Hochberg (1995), section 3.2: fifteen p-values, four rejections at .05.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p_values += [0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert statistics.benjamini_hochberg(p_values) == [True] * 4 + [False] * 11


def test_nothing_measured_is_an_error_and_no_number() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        statistics.proportion("m", 0, 0, baseline_successes=0, baseline_n=1, control="c")
    with pytest.raises(ValueError, match="empty sample"):
        statistics.bootstrap([], 0)
