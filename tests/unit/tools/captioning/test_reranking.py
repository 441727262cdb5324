import math

import numpy as np
import pytest
import torch

from dragoman.tools.captioning.reranking import (
    Evidence,
    Ranked,
    best,
    cut,
    log_likelihood,
    log_priors,
)

FIT_SAID = np.array([True] * 4 + [False] * 6)
FIT_TRUTH = np.array([True, True, True, False] + [True] + [False] * 5)


def test_likelihood_uses_the_two_rates_of_the_fit():
    said = np.array([True, True, False])
    truth = np.array([True, False, False])
    marked, unmarked = 3.5 / 5, 1.5 / 7
    expected = math.log(marked) + math.log(1 - marked) + math.log(1 - unmarked)
    assert log_likelihood(Evidence(FIT_SAID, FIT_TRUTH, said, truth)) == pytest.approx(expected)


def test_likelihood_prefers_the_caption_that_predicts():
    truth = np.array([True] * 5 + [False] * 20)
    right, wrong = truth.copy(), ~truth
    assert log_likelihood(Evidence(truth, truth, right, truth)) > log_likelihood(
        Evidence(truth, truth, wrong, truth)
    )


def test_tau_takes_away_what_a_caption_owes_to_being_common():
    likelihoods, priors = [-20.0, -12.0], [-5.0, -14.0]
    assert best(likelihoods, priors.__getitem__, tau=0.0) == (0, Ranked(-20.0, -5.0))
    assert best(likelihoods, priors.__getitem__, tau=0.2) == (1, Ranked(-12.0, -14.0))
    assert Ranked(-20.0, -5.0).score(1.0) == -20.0


def test_prior_is_the_probability_of_the_captions_own_words(make_tiny):
    subject = make_tiny()
    captions = ["a dog", "the capital of Japan", "A"]
    beginning = "The highlighted parts of the text are"
    for caption, found in zip(captions, log_priors(subject, captions), strict=True):
        ids = subject.token_ids(f"{beginning} {caption}.")
        n_given = len(subject.token_ids(beginning))
        with torch.no_grad():
            logits = subject.all_logits(subject.batch([f"{beginning} {caption}."]))[0]
        table = logits.log_softmax(-1)
        expected = sum(float(table[at - 1, ids[at]]) for at in range(n_given, len(ids)))
        assert found == pytest.approx(expected, abs=1e-3)
    assert log_priors(subject, []) == []


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.95, 1.0])
def test_the_pruned_choice_is_the_choice_among_all(tau):
    generator = np.random.default_rng(0)
    for _ in range(50):
        likelihoods = generator.normal(-50, 5, 12).round(1).tolist()
        priors = (-generator.exponential(20, 12)).tolist()
        scores = [Ranked(*pair).score(tau) for pair in zip(likelihoods, priors, strict=True)]
        asked: list[int] = []

        def prior(row, priors=priors, asked=asked):
            asked.append(row)
            return priors[row]

        assert best(likelihoods, prior, tau)[0] == int(np.argmax(scores))
        if tau == 0.95:
            assert len(asked) < 8


def test_a_judges_yes_begins_where_it_is_most_accurate():
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    assert cut(scores, np.array([True, True, False, True, False, False])) in {0.8, 0.3}
    assert cut(scores, np.array([True, True, False, False, False, True])) == 0.8
    assert cut(scores, np.array([True, False, False, False, False, False])) == 0.9
