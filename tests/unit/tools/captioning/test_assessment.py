"""Scores on planted units: true captions score high, false ones at the floor, hard ones between."""

import numpy as np
import pytest

from dragoman.tools.captioning.assessment import Assessor, judges_for
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.hearing import Said
from dragoman.tools.captioning.neighbours import Neighbours
from dragoman.tools.captioning.predicates import Kind, Predicate, Topic, Word, either, holds
from dragoman.tools.context import ToolContext

RULES: list[Predicate] = [
    Word(word="copper"),
    Kind(name="numbers"),
    either(Word(word="saddle"), Word(word="vinegar")),
    Topic(name="months"),
]
N_DECOYS = 8


class Quotes:
    """A judge of free text that looks for the caption's last word in the text."""

    name = "quotes"

    def scores(self, caption, texts):
        word = caption.split()[-1]
        return np.array([text.count(word) for text in texts], float)


@pytest.fixture(scope="module")
def captioner(planted):
    values = np.random.default_rng(0).normal(0, 0.3, (planted.n, len(RULES) + N_DECOYS))
    for unit, rule in enumerate(RULES):
        values[holds(rule, planted), unit] += 4
    return Captioner(
        planted, values.astype(np.float32), len(RULES), seed=0, priors=lambda c: [-9.0] * len(c)
    )


@pytest.fixture
def context(tiny_subject, tmp_path):
    return ToolContext(tiny_subject, 0, tmp_path, tmp_path, tmp_path)


def _assess(context, captioner, said, unit=0, judges=None, neighbours=None):
    rest = [Said(f"r{row}", rule) for row, rule in enumerate(RULES)]
    rest[unit] = said
    assessor = Assessor(
        context,
        captioner,
        rest,
        effort="quick",
        judges=[Quotes()] if judges is None else judges,
        neighbours=neighbours,
    )
    return assessor.assess(unit, f"1.{unit}")


def _by_metric(assessment):
    return {each.metric: each for each in (*assessment.measurements, *assessment.controls)}


def test_a_true_caption_beats_the_floor_of_every_score(context, captioner):
    assessment = _assess(context, captioner, Said("the word copper", RULES[0]))
    assert assessment.holds
    scores = _by_metric(assessment)
    assert set(scores) >= {
        "detection",
        "fuzzing",
        "simulation",
        "explained_variance",
        "quotes",
        "detection_hard",
        "fuzzing_hard",
    }
    for metric in ("detection", "fuzzing", "simulation", "quotes"):
        measurement = scores[metric]
        assert measurement.value > 0.9, metric
        assert measurement.ci95[0] > measurement.baseline, metric
        assert measurement.scope == "unit 1.0"
        assert measurement.n_failed == 0
        assert measurement.baseline_ci95 is not None
    assert abs(scores["detection"].baseline - 0.5) < 0.06
    assert abs(scores["simulation"].baseline) < 0.1
    assert assessment.output["detection"]["value"] == pytest.approx(
        scores["detection"].value, abs=1e-3
    )


def test_a_false_caption_scores_at_the_floor(context, captioner):
    assessment = _assess(context, captioner, Said("the word saddle", Word(word="saddle")))
    assert not assessment.holds
    for metric, measurement in _by_metric(assessment).items():
        if metric in {"detection", "fuzzing", "quotes"}:
            assert abs(measurement.value - 0.5) < 0.15, metric
    assert abs(_by_metric(assessment)["simulation"].value) < 0.15


def test_hard_negatives_tell_a_caption_from_one_that_fits_the_neighbour_too(
    context, captioner, planted
):
    near = np.random.default_rng(2).normal(0, 0.3, (planted.n, 1)).astype(np.float32)
    near[holds(Kind(name="numbers"), planted)] += 4
    neighbours = Neighbours(near, ((0,), (), (), ()))
    broad = either(RULES[0], RULES[1])
    exact, vague = (
        _by_metric(_assess(context, captioner, Said("c", rule), neighbours=neighbours))
        for rule in (RULES[0], broad)
    )
    assert exact["detection_hard"].value > 0.9
    assert vague["detection_hard"].value < 0.6
    assert exact["fuzzing_hard"].value > 0.9
    assert vague["fuzzing_hard"].value < 0.6
    assert vague["detection"].value > vague["detection_hard"].value + 0.1


def test_frequent_tokens_tell_by_their_number(context, planted):
    """A unit that fires on a share of a frequent class: more of them, more likely active."""
    generator = np.random.default_rng(1)
    frequent = Kind(name="punctuation")
    values = generator.normal(0, 0.1, (planted.n, 9))
    values[holds(frequent, planted) & (generator.random(planted.n) < 0.08), 0] += 4
    captioner = Captioner(
        planted, values.astype(np.float32), 1, seed=0, priors=lambda c: [-9.0] * len(c)
    )
    assessor = Assessor(context, captioner, [Said("c", frequent)], effort="quick", judges=())
    detection = _by_metric(assessor.assess(0, "1.0"))["detection"]
    said = captioner.said(captioner.held_out, frequent)
    sample = captioner.samples[0]
    anywhere = (said[sample.active].mean() + (~said[sample.silent]).mean()) / 2
    assert detection.value > anywhere + 0.03
    assert detection.ci95[0] > detection.baseline


def test_free_words_are_judged_by_a_judge_of_free_text(context, captioner):
    rest = [Said("all about copper", None), Said("all about of", None), None, None]
    assessor = Assessor(context, captioner, rest, effort="quick", judges=[Quotes()])
    scores = _by_metric(assessor.assess(0, "1.0"))
    assert set(scores) <= {"detection", "detection_hard", "detection_lookalike", "quotes"}
    assert scores["detection"].value > 0.9
    assert scores["detection"].ci95[0] > scores["detection"].baseline
    assert scores["quotes"].value > 0.9


def test_without_a_judge_free_words_fail_and_are_counted(context, captioner):
    rest = [Said("some quality of copper", None), None, None, None]
    assessment = Assessor(context, captioner, rest, effort="quick", judges=[]).assess(0, "1.0")
    assert assessment is not None
    detection = _by_metric(assessment)["detection"]
    assert detection.value == 0.0
    assert detection.n_failed == detection.n > 0
    assert not assessment.holds


def test_no_caption_no_assessment(context, captioner):
    assessor = Assessor(context, captioner, [None] * 4, effort="quick", judges=[])
    assert assessor.assess(0, "1.0") is None


def test_scores_are_the_same_every_time(context, captioner):
    said = Said("the word copper", RULES[0])
    assert _assess(context, captioner, said) == _assess(context, captioner, said)


def test_the_subject_judges_where_there_is_no_embedder(context):
    assert [judge.name for judge in judges_for(context, "quick")] == ["likelihood"]
