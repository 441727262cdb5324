import numpy as np
import pytest

from dragoman.tools.captioning.judges import (
    EmbeddingJudge,
    LikelihoodJudge,
    Separation,
    separation,
    threshold_between,
)


def test_auroc_counts_pairs_and_ties_by_half():
    found = separation(np.array([3.0, 2.0]), np.array([1.0, 2.0, 5.0]))
    assert found.auroc == pytest.approx((1 + 1 + 0 + 1 + 0.5 + 0) / 6)
    assert (found.n_active, found.n_silent) == (2, 3)


def test_what_could_not_be_judged_loses_and_is_counted():
    found = separation(np.array([3.0, np.nan]), np.array([1.0, np.nan]))
    assert found.auroc == 0.25
    assert found.n_failed == 2


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_interval_of_an_auroc_holds_its_level(truth):
    generator = np.random.default_rng(0)
    shift = {0.5: 0.0, 0.8: 1.1902}[truth]
    covered = 0
    for _ in range(600):
        found = separation(generator.normal(shift, 1, 20), generator.normal(0, 1, 20))
        low, high = found.interval()
        covered += low <= truth <= high
    assert 0.92 <= covered / 600 <= 0.99


def test_a_perfect_auroc_still_has_an_interval():
    low, high = Separation(1.0, 12, 12).interval()
    assert 0.7 < low < 0.95
    assert high == pytest.approx(1.0)


def test_the_threshold_is_the_best_one_on_known_scores():
    limit = threshold_between(np.array([0.5, 0.6, 0.9]), np.array([0.1, 0.2, 0.3]))
    assert 0.3 < limit < 0.5
    assert threshold_between(np.array([1.0]), np.array([1.0])) != 1.0


def _letters(texts):
    """Stands in for the sentence embedder: a text's counts of a and b."""
    rows = np.array([[text.count("a"), text.count("b")] for text in texts], float) + 1e-6
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_embedding_judge_scores_by_the_cosine():
    scores = EmbeddingJudge(_letters).scores("aaa", ["aab", "bbb", "aab"])
    assert scores == pytest.approx([2 / 5**0.5, 0, 2 / 5**0.5], abs=1e-5)


def test_the_likelihood_judge_is_the_difference_of_two_losses(tiny_subject):
    judge = LikelihoodJudge(tiny_subject)
    texts = ["The capital of France is Paris.", "A dog"]
    told = judge.scores("a dog", texts)
    alone = [judge.scores("a dog", [text])[0] for text in texts]
    assert told == pytest.approx(alone, abs=1e-4)
    assert np.abs(told).max() > 0
    neutral = judge.scores("various unrelated passages", texts)
    assert neutral == pytest.approx([0.0, 0.0], abs=1e-5)


@pytest.mark.weights
def test_the_real_subject_finds_a_described_passage_likelier(smollm2):
    judge = LikelihoodJudge(smollm2)
    texts = [
        "The striker scored twice before half-time and the goalkeeper was injured.",
        "Add two cups of flour, stir in the butter and bake for forty minutes.",
    ]
    football, cooking = (judge.scores(caption, texts) for caption in ("football", "cooking"))
    assert football[0] > football[1]
    assert cooking[1] > cooking[0]
