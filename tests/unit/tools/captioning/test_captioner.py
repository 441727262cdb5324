"""Planted truth: known rules must be found; where there is no rule, nothing may be claimed."""

import numpy as np
import pytest

from dragoman.tools.captioning.captioner import BUILT_IN, Candidate, Captioner, readable
from dragoman.tools.captioning.predicates import (
    After,
    Kind,
    Predicate,
    Topic,
    Word,
    both,
    either,
    holds,
)
from dragoman.tools.captioning.reranking import TAU

RULES: dict[str, Predicate] = {
    "a literal word": Word(word="copper"),
    "a token class": Kind(name="numbers"),
    "a topic": Topic(name="months"),
    "either of two words": either(Word(word="saddle"), Word(word="vinegar")),
    "what follows a word": After(of=Word(word="of")),
    "a class in a place": both(
        Kind(name="capitalised words"), Kind(name="the first sixteen tokens of the text")
    ),
}


def _by_length(captions):
    return [-2.0 * len(caption.split()) for caption in captions]


def _captioner(table, activations, n_requested, seed=0):
    return Captioner(table, activations, n_requested, seed=seed, priors=_by_length)


def _planted_activations(table, seed=0):
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 0.3, (table.n, len(RULES) + 8)).astype(np.float32)
    for unit, rule in enumerate(RULES.values()):
        noise[holds(rule, table), unit] += 4
    return noise


@pytest.fixture(scope="module")
def captioned(planted):
    captioner = _captioner(planted, _planted_activations(planted), len(RULES))
    chosen = [captioner.choose(unit, captioner.propose(unit), TAU) for unit in range(len(RULES))]
    return captioner, chosen


@pytest.mark.parametrize("unit", range(len(RULES)), ids=list(RULES))
def test_planted_rules_are_recovered_by_their_predictions(captioned, planted, unit):
    captioner, chosen = captioned
    predicates = [each.candidate.predicate for each in chosen]
    truth = captioner.said(captioner.held_out, list(RULES.values())[unit])
    said = captioner.said(captioner.held_out, predicates[unit])
    recovered = (said[truth].mean() + (~said[~truth]).mean()) / 2
    assert recovered >= 0.9, chosen[unit].candidate.caption
    score = captioner.score(unit, predicates)
    assert score.beats_floor
    assert score.detection.balanced_accuracy > 0.8
    assert 0.4 < score.floor_mean < 0.6


def test_captions_of_planted_rules_read_as_they_should(captioned):
    _, chosen = captioned
    captions = [each.candidate.caption for each in chosen]
    assert captions[0] == 'the word "copper"'
    assert captions[3] == 'the words "saddle" or "vinegar"'
    assert {each.candidate.proposer for each in chosen} == {BUILT_IN}


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_activations_get_no_caption(planted, seed):
    activations = _planted_activations(planted, seed)
    shuffled = np.random.default_rng(seed).permuted(activations, axis=0)
    captioner = _captioner(planted, shuffled, len(RULES), seed)
    chosen = [captioner.choose(unit, captioner.propose(unit), TAU) for unit in range(len(RULES))]
    predicates = [each and each.candidate.predicate for each in chosen]
    scores = [captioner.score(unit, predicates) for unit in range(len(RULES))]
    # The search's own price turns most of them down before any judge is asked.
    assert sum(each is None for each in chosen) >= 3
    assert not any(score.beats_floor for score in scores if score is not None)


def test_same_seed_same_captions_and_scores(planted, captioned):
    captioner, chosen = captioned
    again = _captioner(planted, _planted_activations(planted), len(RULES))
    assert again.propose(3) == captioner.propose(3)
    predicates = [each.candidate.predicate for each in chosen]
    assert again.score(3, predicates) == captioner.score(3, predicates)


def test_the_judge_sees_no_document_that_the_captioner_saw(captioned):
    captioner, _ = captioned
    seen = set(captioner.fit.table.document) | set(captioner.validation.table.document)
    assert not seen & set(captioner.held_out.table.document)
    assert not set(captioner.fit.table.document) & set(captioner.validation.table.document)
    assert {each.document for each, _ in captioner.exemplars(0)} <= seen


def test_active_and_silent_contexts_come_one_a_document(captioned):
    captioner, _ = captioned
    sample = captioner.samples[0]
    contexts = captioner.held_out.contexts
    for rows in (sample.active, sample.silent, sample.hard):
        assert len(set(contexts.document[rows])) == len(rows)
    active = contexts.any_in(captioner.active(captioner.held_out, 0))
    assert active[sample.active].all()
    assert not active[sample.silent].any()
    assert not active[sample.hard].any()


def test_a_right_free_text_caption_wins_over_a_wrong_one(captioned):
    captioner, _ = captioned
    candidates, unreadable = readable(
        ["words about food", "mysterious vibes", "names of months"], "a chat model"
    )
    assert unreadable == 1
    chosen = captioner.choose(2, candidates, TAU)
    assert chosen.candidate.caption == "names of months"
    assert chosen.candidate.proposer == "a chat model"


class _Knows:
    """A judge of free text that knows which texts go with one caption."""

    def __init__(self, caption, words):
        self.caption, self.words = caption, words

    def scores(self, caption, texts):
        if caption != self.caption:
            return np.zeros(len(texts))
        return np.array([sum(word in text for word in self.words) for text in texts], float)


def test_free_words_compete_through_a_judge_and_only_through_one(planted):
    activations = _planted_activations(planted)
    judge = _Knows("what shines", ["copper"])
    with_judge = Captioner(planted, activations, len(RULES), seed=0, priors=_by_length, judge=judge)
    candidates, unreadable = readable(["what shines", "mysterious vibes"], "a chat model")
    assert unreadable == 2
    chosen = with_judge.choose(0, candidates, TAU)
    assert chosen is not None
    assert chosen.candidate.caption == "what shines"
    assert chosen.candidate.predicate is None
    assert chosen.senses == ()
    assert _captioner(planted, activations, len(RULES)).choose(0, candidates, TAU) is None


def _letters(texts):
    """Vectors by first letter: an embedder that finds words alike which begin alike."""
    vectors = np.zeros((len(texts), 128))
    vectors[range(len(texts)), [ord(text[0]) % 128 for text in texts]] = 1
    return vectors


def test_two_senses_have_a_caption_a_share_and_a_score_each(planted):
    activations = _planted_activations(planted)
    captioner = Captioner(
        planted, activations, len(RULES), seed=0, priors=_by_length, vectors=_letters
    )
    chosen = captioner.choose(3, captioner.propose(3), TAU)
    assert chosen is not None
    assert {sense.caption for sense in chosen.senses} == {'the word "saddle"', 'the word "vinegar"'}
    shares = [sense.share for sense in chosen.senses]
    assert shares == sorted(shares, reverse=True)
    assert 0.7 < sum(shares) <= 1
    for sense in chosen.senses:
        # Noise above the threshold counts against every sense.
        assert sense.score is not None
        assert sense.score.beats_floor
        assert sense.score.detection.balanced_accuracy > 0.7
        assert sense.score.detection.n_active < len(captioner.samples[3].active)
        # The floor is this sense on the other units, not chance.
        assert len(sense.score.floor) == activations.shape[1] - 1
    plain = captioner.choose(0, captioner.propose(0), TAU)
    assert plain is not None
    (only,) = plain.senses
    assert only.caption == 'the word "copper"'


def test_a_sense_that_was_a_chance_of_the_first_texts_does_not_hold(planted):
    copper, saddle = Word(word="copper"), Word(word="saddle")
    activations = _planted_activations(planted)
    # Documents of the last two fifths are held out.
    early = planted.document < 0.6 * (planted.document.max() + 1)
    late = holds(Word(word="vinegar"), planted) & ~early
    activations[:, 0] = holds(copper, planted) | (holds(saddle, planted) & early) | late
    captioner = Captioner(
        planted, activations, len(RULES), seed=0, priors=_by_length, vectors=_letters
    )
    both_said = Candidate("copper or saddle", either(copper, saddle), "a person", (copper, saddle))
    chosen = captioner.choose(0, [both_said], TAU)
    assert chosen is not None
    held = {sense.caption: sense.score and sense.score.beats_floor for sense in chosen.senses}
    assert held['the word "copper"'] is True
    assert held['the word "saddle"'] is False


def test_a_unit_that_is_mostly_zero_is_active_wherever_it_is_not(planted):
    rule = holds(Kind(name="commas"), planted)
    assert 0.02 < rule.mean() < 0.1
    captioner = _captioner(planted, rule[:, None].astype(np.float32), 1)
    active = captioner.active(captioner.held_out, 0)
    assert np.array_equal(active, holds(Kind(name="commas"), captioner.held_out.table))


def test_a_unit_never_above_zero_is_dead_and_proposes_nothing(planted):
    activations = _planted_activations(planted)
    activations[:, 0] = -np.abs(activations[:, 0])
    captioner = _captioner(planted, activations, 2)
    assert captioner.dead(0)
    assert not captioner.dead(1)
    assert captioner.propose(0) == []
    assert captioner.choose(0, [], TAU) is None
    assert captioner.score(0, [None, None]) is None
