"""Questions with the tool and arguments that ought to be chosen, and how a choice is scored.

The data and its meaning stand in `evals/data/`. A score is all or nothing; what a planner would
reach that draws its template by lot is computed, not simulated.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from math import comb
from typing import Literal, TypeAlias

from pydantic import JsonValue

from dragoman.agent.slots import Scene
from dragoman.agent.template import Template
from dragoman.core.records import JsonObject, Record

Split: TypeAlias = Literal["test", "development"]

_ARTICLES = ("the ", "an ", "a ")


class Acceptable(Record):
    """One right answer to a question."""

    tool: str
    arguments: JsonObject
    """What the call must have; None: the argument must be absent or None."""
    mentions: tuple[str, ...] = ()
    """Words that must occur in the text of the call's arguments."""


class Question(Record):
    """What a person asks, and every answer that is right."""

    id: str
    question: str
    acceptable: tuple[Acceptable, ...]


class Call(Record):
    """A tool call as a planner would have it made."""

    tool: str
    arguments: JsonObject


class Chance(Record):
    """Expected fraction right of a planner that draws among the templates by lot."""

    tool: float
    tool_among_tools: float
    """The same where the tool is drawn and not the template."""
    arguments: float
    """Template and relation drawn by lot; text and numbers are never hit."""
    either: float
    """Two different templates drawn, one of them with an acceptable tool."""


def read_questions(split: Split) -> tuple[Question, ...]:
    """The questions of one split, in the file's order."""
    text = resources.files(__package__).joinpath("data/questions.json").read_text("utf-8")
    return tuple(Question.model_validate(each) for each in json.loads(text)[split])


def tool_accepted(question: Question, call: Call) -> bool:
    """Whether the call's tool is one of the acceptable ones."""
    return any(call.tool == each.tool for each in question.acceptable)


def call_accepted(question: Question, call: Call) -> bool:
    """Whether tool, required arguments and mentions are those of one acceptable answer."""
    spoken = json.dumps(call.arguments, ensure_ascii=False).casefold()
    return any(
        call.tool == each.tool
        and all(_same(call.arguments.get(name), value) for name, value in each.arguments.items())
        and all(word.casefold() in spoken for word in each.mentions)
        for each in question.acceptable
    )


def chance(
    questions: Sequence[Question], templates: Mapping[str, Template], scene: Scene
) -> Chance:
    """What drawing by lot would reach on these questions, averaged over them."""
    tools = [template.tool for template in templates.values()]
    distinct = set(tools)
    n, n_questions = len(tools), len(questions)
    right = [{each.tool for each in question.acceptable} & distinct for question in questions]
    hits = [sum(tool in wanted for tool in tools) for wanted in right]
    return Chance(
        tool=sum(hits) / n / n_questions,
        tool_among_tools=sum(len(wanted) for wanted in right) / len(distinct) / n_questions,
        arguments=sum(_drawn_call(each, templates, scene) for each in questions) / n_questions,
        either=1 - sum(comb(n - hit, 2) for hit in hits) / comb(n, 2) / n_questions,
    )


def _drawn_call(question: Question, templates: Mapping[str, Template], scene: Scene) -> float:
    """Probability that a drawn template with a drawn relation is an acceptable call."""
    total = 0.0
    for template in templates.values():
        slots = set(template.slots(scene).model_fields)
        for each in question.acceptable:
            needed = {name for name, value in each.arguments.items() if value is not None}
            absent = set(each.arguments) - needed
            if template.tool != each.tool or each.mentions or absent & slots:
                continue
            if needed <= {"relation"}:
                total += 1 / len(scene.relations) if needed else 1.0
    return total / len(templates)


def _same(given: JsonValue, wanted: JsonValue) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return _plain(given) == _plain(wanted)
    # True == 1 in Python, and not in JSON.
    return type(given) is type(wanted) and given == wanted


def _plain(text: str) -> str:
    plain = text.strip().casefold()
    for article in _ARTICLES:
        plain = plain.removeprefix(article)
    return plain
