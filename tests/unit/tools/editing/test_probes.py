"""Neighbour prompts ask about the neighbour and edit the edited entity, wherever it stands."""

from collections.abc import Callable

import pytest

from dragoman.tools.editing.knowledge import Knowledge, probe_knowledge
from dragoman.tools.editing.probes import (
    NEIGHBOUR_KINDS,
    edit_probes,
    neighbour_probes,
)
from dragoman.tools.editing.records import EditRecord, swap_objects
from dragoman.tools.relations import Relation
from dragoman.tools.subjects.planted import Planted


@pytest.fixture
def knowledge(planted: Planted, linear: Relation) -> Knowledge:
    return probe_knowledge(planted.subject, linear, max_facts=24, max_templates=3, seed=0)


@pytest.fixture
def records(knowledge: Knowledge) -> list[EditRecord]:
    return swap_objects(
        knowledge.facts[:5], knowledge.objects, knowledge.first_tokens, 0, per_entity=2
    )


def test_the_edited_entity_is_edited_and_the_neighbour_is_asked(
    knowledge: Knowledge, records: list[EditRecord]
) -> None:
    facts = {fact.subject: fact.object for fact in knowledge.facts}
    probes = neighbour_probes(records, knowledge, knowledge.token, knowledge.facts, 3, 0)
    for kind in NEIGHBOUR_KINDS:
        assert len(probes[kind]) == 3 * len(records)
        for probe, at_neighbour in zip(probes[kind], probes["at_neighbour"], strict=True):
            record = records[probe.record]
            assert probe.prompt.text[: probe.prompt.entity_end].endswith(record.entity)
            assert probe.group == record.entity
            neighbour = next(
                name
                for name in facts
                if at_neighbour.prompt.text[: at_neighbour.prompt.entity_end].endswith(name)
            )
            assert neighbour != record.entity
            assert facts[neighbour] == probe.old_object != record.new_object
            assert neighbour in probe.prompt.text
            after_edit = probe.prompt.text[probe.prompt.entity_end :]
            assert (neighbour in after_edit) == (kind != "after")


def test_a_neighbour_never_has_the_new_object(
    knowledge: Knowledge, records: list[EditRecord]
) -> None:
    everyone = neighbour_probes(records, knowledge, knowledge.token, knowledge.facts, 99, 0)
    for probe in everyone["mentioned"]:
        assert knowledge.token(probe.old_object) != knowledge.token(
            records[probe.record].new_object
        )


def test_only_prompts_under_which_the_fact_is_known(
    planted: Planted, linear: Relation, records: list[EditRecord], knowledge: Knowledge
) -> None:
    template = knowledge.rewrite
    lost = records[0].entity
    doubtful = Knowledge(
        knowledge.facts,
        knowledge.templates,
        {**knowledge.known, template: knowledge.known[template] - {lost}},
        knowledge.top1,
        knowledge.first_tokens,
    )
    asked = {probe.group for probe in edit_probes(records, doubtful, [template])}
    assert asked == {record.entity for record in records} - {lost}
    every = edit_probes(records, doubtful, [template], known_only=False, by_prompt=True)
    assert len(every) == len(records)
    assert every[0].group == every[0].prompt.text


def test_a_fact_is_known_when_its_object_leads_the_range(
    planted: Planted, linear: Relation, make_tiny: Callable[..., object]
) -> None:
    known = probe_knowledge(planted.subject, linear, max_facts=60, max_templates=2, seed=0)
    assert len(known.known) == 2
    assert known.known[known.rewrite] == {fact.subject for fact in linear.samples}
    absent = planted.truth.absent
    unknown = probe_knowledge(planted.subject, absent, max_facts=60, max_templates=1, seed=0)
    assert len(unknown.known[unknown.rewrite]) < 0.3 * len(absent.samples)


def test_a_sample_of_facts_keeps_the_entities_it_is_told_to(
    planted: Planted, linear: Relation
) -> None:
    wanted = linear.samples[-1].subject
    for seed in range(3):
        known = probe_knowledge(
            planted.subject, linear, max_facts=8, max_templates=1, seed=seed, keep=[wanted]
        )
        assert len(known.facts) == 8
        assert wanted in {fact.subject for fact in known.facts}
