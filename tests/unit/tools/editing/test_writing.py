"""Texts of all methods: the same random numbers, and the scores that come of them."""

import pytest
import torch

from dragoman.tools.editing.directions import EDITED, NO_EDIT, REPLACED
from dragoman.tools.editing.methods import Method
from dragoman.tools.editing.records import EditRecord, ask
from dragoman.tools.editing.text_metrics import OTHER_ENTITY, measure_texts, score_texts
from dragoman.tools.editing.writing import Opening, Written, openings_about, write
from dragoman.tools.subjects.language import LanguageSubject

OPENINGS = [
    Opening(0, ask("The capital of {} is", "France")),
    Opening(1, ask("{} is an", "A dog")),
]


def test_a_zero_direction_writes_the_unedited_text(any_tiny: LanguageSubject) -> None:
    # The entity ends the prompt, so that even a tiny subject feels the direction at once.
    openings = [Opening(0, ask("We saw {}", "France")), Opening(1, ask("It is {}", "A dog"))]
    zero = torch.zeros(2, any_tiny.d_model)
    large = 30 * torch.randn(2, any_tiny.d_model, generator=torch.Generator().manual_seed(0))
    methods = [Method(EDITED, zero), Method(NO_EDIT), Method("large", large)]
    written = write(any_tiny, openings, 1, methods, 12, seed=3)
    for one in written:
        assert one.texts[EDITED] == one.texts[NO_EDIT]
    assert any(one.texts["large"] != one.texts[NO_EDIT] for one in written)
    again = write(any_tiny, openings, 1, methods, 12, seed=3)
    assert again == written
    other = write(any_tiny, openings, 1, methods, 12, seed=4)
    assert [one.texts[NO_EDIT] for one in other] != [one.texts[NO_EDIT] for one in written]


def test_drawn_tokens_are_among_the_most_probable(tiny_subject: LanguageSubject) -> None:
    text = "The capital of France is"
    allowed = {token.token for token in tiny_subject.next_tokens([text], 5)[0]}
    streams = list(range(40))
    drawn = tiny_subject.generate([text] * 40, 1, temperature=1.0, top_k=5, streams=streams)
    assert set(drawn) <= allowed
    assert len(set(drawn)) > 1
    shared = tiny_subject.generate([text] * 40, 1, temperature=1.0, top_k=5, streams=[0] * 40)
    assert len(set(shared)) == 1


def test_streams_draw_each_token_with_its_probability(tiny_subject: LanguageSubject) -> None:
    text, n = "The capital of France is", 3000
    likeliest = tiny_subject.next_tokens([text], 5)[0]
    total = sum(token.probability for token in likeliest)
    drawn = tiny_subject.generate([text] * n, 1, temperature=1.0, top_k=5, streams=list(range(n)))
    for token in likeliest:
        share = token.probability / total
        assert drawn.count(token.token) / n == pytest.approx(share, abs=0.04)


def test_scores_of_texts() -> None:
    answers = [
        Written(OPENINGS[0], {EDITED: "Rome Rome Rome Rome", NO_EDIT: "Paris on the Seine"}),
        Written(OPENINGS[1], {EDITED: "a b c d", NO_EDIT: "a b c d"}),
    ]
    references = [Written(one.opening, {REPLACED: "Rome on the Tiber"}) for one in answers]
    about = [
        Written(OPENINGS[0], {EDITED: "a country of wine", NO_EDIT: "a country of wine"}),
        Written(OPENINGS[1], {EDITED: "something else", NO_EDIT: "an animal that barks"}),
    ]
    scores = score_texts(answers, references, about)
    assert scores.essence[EDITED] == [pytest.approx(1.0), 0.0]
    assert scores.essence[NO_EDIT] == [pytest.approx(1.0)] * 2
    assert scores.apart == [0.0, 0.0]
    assert scores.fluency[EDITED][0] < scores.fluency[NO_EDIT][0]
    assert scores.consistency[EDITED][0] > 0
    measured = {(one.metric, one.scope): one for one in measure_texts(scores, n_tokens=4, seed=0)}
    essence = measured["essence", ""]
    assert essence.value == pytest.approx(0.5)
    assert (essence.baseline, essence.control) == (0.0, OTHER_ENTITY)
    assert measured["fluency", ""].baseline == pytest.approx(sum(scores.fluency[NO_EDIT]) / 2)


def test_texts_about_entities_take_each_entity_once() -> None:
    records = [
        EditRecord(entity=entity, old_object="a", new_object=new)
        for entity, new in (("x", "b"), ("y", "b"), ("x", "c"))
    ]
    openings = openings_about(records, 5)
    assert [one.record for one in openings] == [0, 1]
    assert openings[1].prompt.text.endswith("\n\ny is")
