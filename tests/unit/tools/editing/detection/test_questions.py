"""What is asked, and between which answers."""

import numpy as np

from dragoman.tools.editing.detection.decoder import errs
from dragoman.tools.editing.detection.questions import Range, ask_contextual, ask_prior
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.relations import Sample

TEMPLATE = "The capital of {} is"
AMONG = Range((7, 8, 9), (("Paris",), ("Rome", "Romford"), ("Oslo",)))


def test_objects_that_begin_alike_are_one_answer() -> None:
    assert AMONG.answer("Romford") == AMONG.answer("Rome") == 1
    assert AMONG.spoken_of(AMONG.spoken(1)) == 1


def test_the_subjects_own_memory_chooses_among_all() -> None:
    asked = ask_prior(TEMPLATE, [Sample(subject="France", object="Paris")], AMONG)
    (prompt,) = asked.prompts
    assert prompt.text[: prompt.entity_end].endswith("France")
    assert asked.claims.candidates.all()
    answers = np.array([[-1.0, -2.0, -3.0]])
    assert not errs(answers, asked.claims)[0]
    assert errs(-answers, asked.claims)[0]


def test_a_context_sets_its_object_against_the_entitys_own() -> None:
    records = [
        EditRecord(entity="France", old_object="Paris", new_object="Rome"),
        EditRecord(entity="Norway", old_object="Oslo", new_object="Paris"),
    ]
    asked = ask_contextual(TEMPLATE, records, AMONG, 0)
    stated, denied, elsewhere = (prompt.text for prompt in asked.prompts[:3])
    assert stated == "The capital of France is Rome. The capital of France is"
    assert "wrongly believe" in denied
    assert elsewhere == "The capital of Norway is Rome. The capital of France is"
    for prompt in asked.prompts[:3]:
        # Read where the question names the entity, not where the context does.
        assert prompt.text[prompt.entity_end :] == " is"
    assert asked.groups[:3] == ("France",) * 3
    assert asked.claims.claimed[0] == 1
    assert asked.claims.candidates[0].tolist() == [True, True, False]
