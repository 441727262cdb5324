import numpy as np
import pytest

from dragoman.tools.captioning.contexts import Contexts, Sample, contexts_of, nearby
from dragoman.tools.captioning.fuzzing import Marked, fuzz, mark, marked_text, shares
from dragoman.tools.captioning.tokens import token_table

CONTEXTS = Contexts(np.arange(0, 80, 8), np.arange(10))
ACTIVE = np.zeros(80, bool)
ACTIVE[[1, 2, 9, 17, 25, 26, 33, 41]] = True
NEIGHBOUR = np.zeros(80, bool)
NEIGHBOUR[[49, 50, 57, 65, 73]] = True
SAMPLE = Sample(np.arange(6), np.arange(6, 10), np.array([], int))


@pytest.fixture
def marking():
    return mark(CONTEXTS, ACTIVE, SAMPLE, neighbours=NEIGHBOUR, nearby=np.arange(6, 10), seed=0)


def _score(column, right, wrong):
    detection = fuzz(column, right, wrong)
    assert detection is not None
    return detection


def test_right_markings_are_the_active_tokens_and_wrong_ones_are_as_many_silent_tokens(marking):
    assert [marked.context for marked in marking.right] == list(range(6))
    for right, wrong in zip(marking.right, marking.wrong, strict=True):
        assert ACTIVE[right.tokens].all()
        assert not ACTIVE[wrong.tokens].any()
        assert right.context == wrong.context
        assert len(right.tokens) == len(wrong.tokens)
        assert set(wrong.tokens // 8) == {wrong.context}


def test_hard_markings_are_where_neighbours_are_active(marking):
    assert [marked.context for marked in marking.hard] == [6, 7, 8, 9]
    assert all(NEIGHBOUR[marked.tokens].all() for marked in marking.hard)


def test_the_true_rule_scores_one_and_its_opposite_nought(marking):
    assert _score(ACTIVE, marking.right, marking.wrong).balanced_accuracy == 1.0
    assert _score(~ACTIVE, marking.right, marking.wrong).balanced_accuracy == 0.0


def test_a_rule_of_the_neighbours_fails_on_hard_markings_alone(marking):
    hard = (*marking.hard, marking.hard[0])
    both = ACTIVE | NEIGHBOUR
    assert _score(both, marking.right, marking.wrong).balanced_accuracy == 1.0
    assert _score(both, marking.right, hard).balanced_accuracy == 0.5


def test_saying_yes_to_every_token_is_worth_chance(marking):
    assert _score(np.ones(80, bool), marking.right, marking.wrong).balanced_accuracy == 0.5


def test_what_cannot_be_checked_is_counted_as_failed(marking):
    detection = _score(None, marking.right, marking.wrong)
    assert detection.n_failed == 12
    assert detection.balanced_accuracy == 0.0


def test_few_markings_are_not_scored(marking):
    assert fuzz(ACTIVE, marking.right[:4], marking.wrong) is None


def test_a_marking_is_accepted_by_the_share_of_its_tokens():
    markings = [Marked(0, np.array([1, 2, 3])), Marked(0, np.array([3, 4]))]
    assert shares(ACTIVE, markings) == pytest.approx([2 / 3, 0.0])


def test_hard_contexts_hold_an_active_neighbour_and_a_silent_unit():
    neighbours = np.stack([NEIGHBOUR * 2.0, ACTIVE * 2.0], axis=1)
    rows = nearby(CONTEXTS, ACTIVE * 2.0, 1.0, neighbours, np.array([1.0, 1.0]), seed=0)
    assert rows.tolist() == [6, 7, 8, 9]
    one_document = CONTEXTS._replace(document=np.zeros(10, int))
    assert len(nearby(one_document, ACTIVE * 2.0, 1.0, neighbours, np.ones(2), seed=0)) == 1


def test_marked_tokens_stand_between_guillemets(word_tokenizer):
    table = token_table(["copper of saddle vinegar", "of 42 copper"], word_tokenizer)
    contexts = contexts_of(table)
    texts = [
        marked_text(table, contexts, Marked(0, np.array([0, 2, 3]))),
        marked_text(table, contexts, Marked(1, np.array([5]))),
    ]
    assert [text.replace(" ", "") for text in texts] == [
        "«copper»of«saddlevinegar»",
        "of«42»copper",
    ]
