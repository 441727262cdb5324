"""The planning eval: its data, its scores, its table and its command."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.structured import REPAIRS
from dragoman.agent.templates import TEMPLATES
from dragoman.core.records import JsonObject
from dragoman.evals.planning import main, record, render
from dragoman.evals.planning_scores import PROTOCOL, evaluate, make_scene
from dragoman.evals.questions import (
    Acceptable,
    Call,
    Question,
    Split,
    call_accepted,
    chance,
    read_questions,
    tool_accepted,
)
from dragoman.tools.catalogue import TOOLS
from dragoman.tools.relations import load_relation

SPLITS: tuple[tuple[Split, int], ...] = (("test", 82), ("development", 32))


def ask_for(tool: str, arguments: JsonObject, *mentions: str, text: str = "?") -> Question:
    right = Acceptable(tool=tool, arguments=arguments, mentions=mentions)
    return Question(id="q", question=text, acceptable=(right,))


@pytest.mark.parametrize(("split", "n"), SPLITS)
def test_the_questions_name_real_tools_relations_and_facts(split: Split, n: int) -> None:
    questions = read_questions(split)
    assert len({each.id for each in questions}) == len(questions) == n
    subject = make_scene(0).subject
    for question in questions:
        assert question.acceptable
        for each in question.acceptable:
            assert set(each.arguments) <= set(TOOLS[each.tool].arguments.model_fields)
            known = each.arguments
            if known.get("relation") is not None:
                relation = load_relation(str(known["relation"]))
                if known.get("entity") is not None:
                    assert known["entity"] in [sample.subject for sample in relation.samples]
                    assert known["new_object"] in relation.objects
            layer = known.get("layer", 0)
            assert isinstance(layer, int)
            assert layer < subject.n_layers


def test_the_splits_share_nothing() -> None:
    test, development = read_questions("test"), read_questions("development")
    assert not {each.question for each in test} & {each.question for each in development}
    assert not {each.id for each in test} & {each.id for each in development}


def test_the_tools_are_balanced() -> None:
    tools = Counter(question.acceptable[0].tool for question in read_questions("test"))
    assert set(tools) == {template.tool for template in TEMPLATES.values()}
    assert max(tools.values()) - min(tools.values()) <= 1


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        ({"relation": "r", "effort": "quick"}, True),
        ({"relation": "r", "layer": None}, True),
        ({"relation": "R "}, True),
        ({"relation": "s"}, False),
        ({}, False),
        ({"relation": "r", "layer": 3}, False),
    ],
)
def test_required_arguments_must_be_equal_and_absent_ones_absent(
    arguments: JsonObject, accepted: bool
) -> None:
    question = ask_for("t", {"relation": "r", "layer": None})
    assert call_accepted(question, Call(tool="t", arguments=arguments)) is accepted
    assert not call_accepted(question, Call(tool="u", arguments=arguments))


@pytest.mark.parametrize(("given", "wanted"), [(1, True), (1.0, 1), ("1", 1), ([1, 2], [2, 1])])
def test_numbers_are_compared_by_type_and_order(given: Any, wanted: Any) -> None:
    question = ask_for("t", {"layer": wanted})
    assert not call_accepted(question, Call(tool="t", arguments={"layer": given}))
    assert call_accepted(question, Call(tool="t", arguments={"layer": wanted}))


def test_an_article_or_capital_letter_is_no_error() -> None:
    question = ask_for("t", {"entity": "The Eiffel Tower"})
    assert call_accepted(question, Call(tool="t", arguments={"entity": "eiffel tower"}))


def test_mentions_are_looked_for_in_the_text_of_the_arguments() -> None:
    question = ask_for("t", {}, "Nurse")
    assert call_accepted(question, Call(tool="t", arguments={"first": ["a nurse is"]}))
    assert not call_accepted(question, Call(tool="t", arguments={"first": ["a doctor is"]}))
    assert tool_accepted(question, Call(tool="t", arguments={}))


def test_chance_is_counted_over_templates() -> None:
    scene, n = make_scene(0), len(TEMPLATES)
    probe = chance([ask_for("probe_knowledge", {"relation": "noun_plural"})], TEMPLATES, scene)
    assert probe.tool == pytest.approx(1 / n)
    assert probe.tool_among_tools == pytest.approx(1 / 13)
    assert probe.arguments == pytest.approx(1 / n / len(scene.relations))
    assert probe.either == pytest.approx(2 / n)
    edit = chance(
        [ask_for("edit_representation", {"relation": "a", "entity": None})], TEMPLATES, scene
    )
    assert edit.tool == pytest.approx(2 / n)
    assert edit.arguments == pytest.approx(1 / n / len(scene.relations))
    neuron = chance([ask_for("caption_neurons", {"layer": 3})], TEMPLATES, scene)
    assert neuron.arguments == 0


def test_drawing_by_lot_reaches_the_computed_chance() -> None:
    import random

    questions, scene, draw = read_questions("test"), make_scene(0), random.Random(0)
    computed = chance(questions, TEMPLATES, scene)
    hits = either = 0
    repeats = 500
    for question in questions * repeats:
        one, two = draw.sample(list(TEMPLATES.values()), 2)
        calls = [Call(tool=each.tool, arguments={}) for each in (one, two)]
        hits += tool_accepted(question, calls[0])
        either += any(tool_accepted(question, call) for call in calls)
    assert hits / repeats / len(questions) == pytest.approx(computed.tool, abs=0.02)
    assert either / repeats / len(questions) == pytest.approx(computed.either, abs=0.02)


def test_a_chat_model_is_scored_by_its_first_choice_and_failures_count_as_wrong() -> None:
    knows = ask_for("probe_knowledge", {"relation": "noun_plural"}, text="plurals?")
    chat = ScriptedChat(
        [
            '{"templates": ["knows_relation"]}',
            '{"relation": "noun_plural"}',
            '{"templates": ["knows_relation"]}',
            '{"relation": "adj_adverb"}',
            '{"templates": ["unit_responds", "knows_relation"]}',
            '{"layer": 0, "neurons": []}',
            '{"relation": "noun_plural"}',
            *["no"] * (REPAIRS + 1),
        ]
    )
    outcome = evaluate(chat, [knows] * 4)
    tool, arguments, either = outcome.measurements
    assert (tool.value, arguments.value, either.value) == (0.5, 0.25, 0.75)
    assert [each.n for each in outcome.measurements] == [4, 4, 4]
    assert tool.n_failed == 1
    assert outcome.questions[3].failed is not None
    assert outcome.questions[3].choices == ()
    assert tool.ci95[0] < 0.5 < tool.ci95[1]


def test_the_fixed_protocol_beats_the_lot() -> None:
    outcome = evaluate(None, read_questions("test"))
    tool = outcome.measurements[0]
    assert tool.ci95[0] > tool.baseline
    assert outcome.planner == PROTOCOL
    assert evaluate(None, read_questions("test")) == outcome


def test_the_page_keeps_other_planners_rows_and_drops_other_questions(tmp_path: Path) -> None:
    questions = [ask_for("probe_knowledge", {}, text="a | b\u202e?")]
    replies = ['{"templates": ["knows_relation"]}', '{"relation": "noun_plural"}']
    record(evaluate(ScriptedChat(replies), questions), questions, tmp_path)
    page = record(evaluate(None, questions), questions, tmp_path).read_text()
    assert "| script |" in page
    assert f"| {PROTOCOL} |" in page
    assert "\u202e" not in page
    assert "a \\| b" in page
    others = [ask_for("probe_knowledge", {}).model_copy(update={"id": "other"})]
    assert "| script |" not in record(evaluate(None, others), others, tmp_path).read_text()


def test_figures_in_the_page_are_those_of_the_measurements() -> None:
    questions = read_questions("test")
    outcome = evaluate(None, questions)
    page = render([outcome], questions)
    for each in outcome.measurements:
        assert f"{each.value:.2f} ({each.ci95[0]:.2f} to {each.ci95[1]:.2f})" in page


def test_the_command_prints_one_object_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--chat", "none", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["planner"] == PROTOCOL
    assert len(printed["questions"]) == 82
    kept = json.loads((tmp_path / "planning.json").read_text())
    assert kept == [printed]


def test_the_development_split_is_not_for_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--chat", "none", "--split", "development", "--out", str(tmp_path)]) == 0
    assert "n = 32" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_trouble_is_one_line_and_a_documented_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--chat", "endpoint", "--out", str(tmp_path)]) == 4
    (tmp_path / "planning.json").write_text("{")
    assert main(["--chat", "none", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "is not a record of this eval" in told[-1]
