"""Relations of entities alone: what is planted is proposed, what is not is not."""

import json

import pytest

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.core.errors import ToolError
from dragoman.tools.circuits.finding import GENERAL
from dragoman.tools.circuits.proposing import Candidate, candidates, propose
from dragoman.tools.circuits.suggesting import suggest_templates
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.planted import plant


def quiet(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def planted():
    return plant()


def test_the_planted_relation_is_proposed_with_the_pairs_that_the_subject_holds(planted):
    truth = planted.truth
    entities = [sample.subject for sample in truth.linear.samples]
    objects = {sample.subject: sample.object for sample in truth.linear.samples}
    template = truth.linear.prompt_templates[0]
    tried = [*(Candidate(each, "general") for each in GENERAL), Candidate(template, "yours")]
    found = propose(planted.subject, entities, tried, 0, quiet)
    best = found[0]
    assert (best.template, best.source) == (template, "yours")
    assert best.consistent.value == 1.0
    assert best.consistent.baseline < 0.3
    assert best.consistent.n == 26  # 60 entities, 8 helpers, half of the rest
    assert len(best.pairs) == 52
    # The planted subject does not end its lines: its first word is the object.
    assert all(objects[pair.subject] == pair.object.split()[0] for pair in best.pairs)


def test_nothing_is_proposed_where_answers_do_not_hold(planted):
    entities = [sample.subject for sample in planted.truth.absent.samples]
    tried = [Candidate(each, "yours") for each in planted.truth.absent.prompt_templates]
    assert propose(planted.subject, entities, tried, 0, quiet) == []


def test_a_template_that_draws_one_answer_from_everybody_is_not_proposed(planted):
    truth = planted.truth
    # The same pairs as examples, all with one object: consistent, and by chance as well.
    constant = tuple(Sample(subject=f"x{i}", object="Oslo") for i in range(8))
    entities = [sample.subject for sample in truth.linear.samples]
    tried = [Candidate("{} ->", "yours", constant)]
    assert propose(planted.subject, entities, tried, 0, quiet) == []


def test_saying_the_entity_again_is_no_relation(planted, monkeypatch):
    truth = planted.truth
    entities = [sample.subject for sample in truth.linear.samples]
    template = truth.linear.prompt_templates[0]
    subject = planted.subject

    def echo(texts, max_new_tokens):
        lines = [text.split("\n")[-1] for text in texts]
        return [f" {next(one for one in entities if one in line)}\n" for line in lines]

    monkeypatch.setattr(subject, "continue_text", echo)
    assert propose(subject, entities, [Candidate(template, "yours")], 0, quiet) == []


def test_candidates_keep_who_they_are_from_and_each_template_once():
    found = candidates(["{} lives in", "{} is"], ["The capital of {} is", "{} lives in"])
    by_template = {each.template: each for each in found}
    assert len(by_template) == len(found)
    assert by_template["{} lives in"].source == "yours"
    assert by_template["{} is"].source == "yours"
    assert by_template["The adverb form of {} is"].source == "adj_adverb"
    assert len(by_template["The adverb form of {} is"].samples) > 24
    assert by_template["{} ->"].source == "general"


def test_too_few_entities_and_templates_without_a_hole_are_refused(planted):
    with pytest.raises(ToolError, match="2 different entities; at least 16"):
        propose(planted.subject, ["a", "b", "a"], [Candidate("{} is", "yours")], 0, quiet)
    names = [str(number) for number in range(20)]
    with pytest.raises(ToolError, match="exactly one"):
        propose(planted.subject, names, [Candidate("is", "yours")], 0, quiet)


def test_suggestions_are_checked_and_shown_entities_are_escaped():
    templates = [
        "The mascot of {} is the",
        "The {} of {} is",
        "{}",
        "{} is old.",
        "The sea near {}",
        "What is the capital of {}?",
        "{}?",
    ]
    chat = ScriptedChat([json.dumps({"templates": templates})])
    found = suggest_templates(chat, ["Pe\x1b[31mru", "Chile"], 0)
    # A question is as good once it asks for its answer.
    assert found == ["The mascot of {} is the", "What is the capital of {}? Answer:"]
    asked = chat.requests[0].messages[0].content
    assert "\x1b" not in asked
    assert '"Chile"' in asked


@pytest.mark.parametrize("reply", ["I would say: The capital of {} is", '{"templates": []}', "[]"])
def test_a_reply_of_no_use_suggests_nothing(reply):
    pairs = [Sample(subject="Peru", object="Lima")]
    chat = ScriptedChat([reply])
    assert suggest_templates(chat, pairs, 0) == []
    assert '["Peru", "Lima"]' in chat.requests[0].messages[0].content
