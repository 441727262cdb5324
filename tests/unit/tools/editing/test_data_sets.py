"""The two data sets of ours: enough of everything, and nothing that contradicts itself."""

from collections import Counter

import numpy as np
import pytest
import torch

from dragoman.tools.editing.biographies import load_occupations, write_biographies
from dragoman.tools.editing.detection.editors import DirectionEditor
from dragoman.tools.editing.editors.catalogue import make_editor
from dragoman.tools.editing.entailment import (
    Pair,
    Shifts,
    correlation,
    implied_pairs,
    measure_entailment,
    property_log_probs,
)
from dragoman.tools.editing.properties import load_properties
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.subjects.planted import Planted


def test_properties_are_enough_and_each_stands_once() -> None:
    data = load_properties()
    entities = [sample.subject for sample in data.relation.samples]
    assert len(set(entities)) == len(entities) >= 40
    assert sum(len(each.implied) for each in data.implications.values()) >= 120
    assert {sample.object for sample in data.relation.samples} == set(data.implications)
    for each in data.implications.values():
        implied = [one.text for one in each.implied]
        assert len(set(implied)) == len(implied)
        assert len(set(each.unrelated)) == len(each.unrelated) >= 5
    every = {one.text for each in data.implications.values() for one in each.implied}
    assert not every & {text for each in data.implications.values() for text in each.unrelated}


def test_what_both_kinds_imply_is_not_asked_for() -> None:
    data = load_properties()
    record = EditRecord(entity="The salmon", old_object="fish", new_object="bird")
    pairs = implied_pairs(data, [record])
    texts = {pair.text: pair.implication for pair in pairs}
    assert texts["has feathers"] == 1.0
    assert texts["can fly"] == 0.75
    assert "lays eggs" not in texts
    assert sum(value == 0.0 for value in texts.values()) == 5
    third = {pair.text for pair in implied_pairs(data, [record], of_another_kind=True)}
    assert "has feathers" not in third
    assert "has fins" not in third


def test_the_shift_of_no_edit_is_nothing_and_a_property_is_read_token_by_token(
    planted: Planted,
) -> None:
    subject = planted.subject
    words = planted.truth.linear.samples
    record = EditRecord(
        entity=words[0].subject, old_object=words[0].object, new_object=words[1].object
    )
    text = f"{words[2].subject} {words[3].subject}"
    nothing = torch.zeros(1, subject.d_model)
    (found,) = property_log_probs(subject, [record], [Pair(0, text, 1.0)], 2, nothing)
    ids = subject.continuation_ids(text)
    told, expected = record.entity, 0.0
    for token in ids:
        expected += float(subject.log_probs([told])[0, token])
        told += subject.token_text(token)
    assert found == pytest.approx(expected, abs=1e-3)


def test_entailment_is_found_where_it_is_and_not_under_a_random_direction() -> None:
    pairs = tuple(Pair(at // 10, f"p{at}", float(at % 2)) for at in range(60))
    generator = np.random.default_rng(0)
    shift = np.array([pair.implication for pair in pairs]) + generator.normal(0, 0.1, 60)
    shifts = Shifts(pairs, tuple(f"e{p.record}" for p in pairs), shift, generator.normal(0, 1, 60))
    measured, _ = measure_entailment(shifts, shifts, 0)
    assert measured[0].value > 0.9
    assert abs(measured[0].baseline) < 0.5
    assert measured[1].value == pytest.approx(1.0, abs=0.1)
    assert correlation(np.ones(3), np.arange(3.0)) == 0.0


def test_biographies_tell_the_occupation_without_naming_it() -> None:
    data = load_occupations()
    texts = write_biographies(data, data.names, slice(0, 4), 7, 0)
    assert len({one.text for one in texts}) > 0.9 * len(texts)
    for one in texts:
        assert one.occupation not in one.text.lower()
        assert one.text.count(one.person.name) == 1
        assert "{" not in one.text
        told = one.told
        assert one.text[told.start : told.end]
        assert told.entity_end == told.start
    counts = Counter((one.occupation, one.person.gender) for one in texts)
    for occupation in data.occupations:
        assert counts[(occupation.name, "woman")] == counts[(occupation.name, "man")]


def test_texts_of_two_uses_share_no_cue() -> None:
    data = load_occupations()
    for occupation in data.occupations:
        assert len(set(occupation.cues)) == 8
        assert not set(occupation.cues[:4]) & set(occupation.cues[4:])


def test_an_untrained_editor_writes_the_centred_contrast(planted: Planted) -> None:
    samples = planted.truth.linear.samples
    editor = DirectionEditor(
        make_editor("linear", planted.subject.d_model, 0),
        2,
        planted.truth.linear.prompt_templates_zs[0],
        frozenset(),
    )
    other = next(each.object for each in samples if each.object != samples[0].object)
    record = EditRecord(entity=samples[0].subject, old_object=samples[0].object, new_object=other)
    back = EditRecord(entity=record.entity, old_object=other, new_object=record.old_object)
    there, again = editor.directions(planted.subject, [record, back])
    assert torch.allclose(there, -again, atol=1e-5)
    assert there.norm() > 0
