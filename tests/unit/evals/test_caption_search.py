import numpy as np
import pytest

from dragoman.evals import caption_search
from dragoman.evals.caption_search import Asked, Caption, Rates, choose, rates, render
from dragoman.tools.captioning.search import Nearness
from dragoman.tools.captioning.vocabulary import topics

MADE = [Caption("words about art", "art", "named"), Caption("the word", "space", "listed")]


def _asked(topic, *similarity):
    values = np.array(similarity)
    return Asked(topic, topic, Nearness(values, np.zeros(2), values * 10))


def test_captions_and_concepts_of_a_topic_share_no_literal_word():
    made, concepts = caption_search.captions(0)
    assert set(concepts) == set(topics())
    for topic, (name, *words) in concepts.items():
        assert name == topic
        listed = [each.text for each in made if each.topic == topic and each.kind == "listed"]
        assert not any(f'"{word}"' in text for word in words for text in listed)
    assert {each.kind for each in made} == {"named", "listed", "class"}
    assert all(each.topic == "" for each in made if each.kind == "class")


def test_right_and_wrong_finds_are_counted_apart():
    questions = [_asked("art", 0.6, 0.5), _asked("space", 0.1, 0.3)]
    found = rates(MADE, questions, 0.4, 2.0)
    assert found == Rates({"named": (1, 1), "listed": (0, 1)}, (1, 2))
    assert (found.recall, found.false_rate) == (0.5, 0.5)
    assert rates(MADE, questions, 0.2, 4.0).recall == 0.5


def test_the_loosest_thresholds_that_let_nothing_wrong_through_are_chosen():
    questions = [_asked("art", 0.6, 0.24), _asked("space", 0.1, 0.31)]
    similarity, deviations = choose(MADE, questions)
    chosen = rates(MADE, questions, similarity, deviations)
    assert (chosen.recall, chosen.false_rate) == (1.0, 0.0)


def test_the_page_states_rates_with_their_intervals():
    page = render([("in use", 0.4, 2.0, Rates({"named": (9, 10), "listed": (1, 2)}, (0, 50)))], 3)
    assert "| in use | 0.40 | 2 | 0.900 [0.596, 0.982] of 10 |" in page
    assert "0.000 [0.000, 0.071] of 50" in page


@pytest.mark.slow
@pytest.mark.weights
def test_the_thresholds_in_use_are_those_that_are_chosen(weights_home, monkeypatch, capsys):
    monkeypatch.setenv("DRAGOMAN_WEIGHTS", str(weights_home / "weights"))
    assert caption_search.main([]) == 0
    assert "in use" in capsys.readouterr().out
