import numpy as np
import pytest

from dragoman.tools.captioning.contexts import contexts_of
from dragoman.tools.captioning.predicates import Kind, Word, either, holds
from dragoman.tools.captioning.simulation import calibrated, simulate

COPPER, NUMBERS = Word(word="copper"), Kind(name="numbers")


@pytest.fixture(scope="module")
def activations(planted):
    values = np.random.default_rng(0).normal(0, 0.1, planted.n)
    values[holds(COPPER, planted)] += 6
    values[holds(NUMBERS, planted)] += 2
    return values


def test_levels_are_the_mean_activations_of_the_alternatives(planted, activations):
    levels = calibrated(either(NUMBERS, COPPER), planted, activations)
    assert levels.alternatives == (COPPER, NUMBERS)
    assert levels.values == pytest.approx((6, 2), rel=0.05)
    assert levels.elsewhere < 0.1
    predicted = levels.predicted(planted)
    assert set(predicted[holds(COPPER, planted)]) == {levels.values[0]}


def test_a_true_caption_explains_its_unit_and_a_false_one_does_not(planted, activations):
    contexts = contexts_of(planted)
    rows = np.arange(0, 300)
    true = calibrated(either(NUMBERS, COPPER), planted, activations).predicted(planted)
    false = calibrated(Word(word="saddle"), planted, activations).predicted(planted)
    good, bad = (simulate(each, activations, contexts, rows) for each in (true, false))
    assert good.correlation > 0.95
    assert good.explained_variance > 0.9
    assert abs(bad.correlation) < 0.2
    assert bad.explained_variance < 0.1
    (low, high), (explained_low, explained_high) = good.intervals(0)
    assert low <= good.correlation <= high
    assert explained_low <= good.explained_variance <= explained_high


def test_scores_are_those_of_the_concatenated_tokens(planted, activations):
    contexts = contexts_of(planted)
    rows = np.array([3, 7, 11])
    expected = calibrated(COPPER, planted, activations).predicted(planted)
    simulation = simulate(expected, activations, contexts, rows)
    ends = np.append(contexts.starts[1:], planted.n)
    chosen = np.concatenate([np.arange(contexts.starts[row], ends[row]) for row in rows])
    true = np.maximum(activations[chosen], 0)
    if expected[chosen].std() > 0:
        reference = np.corrcoef(expected[chosen], true)[0, 1]
        assert simulation.correlation == pytest.approx(reference)
    reference = 1 - ((expected[chosen] - true) ** 2).mean() / true.var()
    assert simulation.explained_variance == pytest.approx(reference)


def test_a_constant_prediction_correlates_with_nothing(planted, activations):
    simulation = simulate(np.ones(planted.n), activations, contexts_of(planted), np.arange(9))
    assert simulation.correlation == 0.0
