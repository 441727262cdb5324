"""Critique: hold against each result what its figures, its tool and a second reader give."""

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from dragoman.agent.desk import Desk
from dragoman.agent.judgement import measured, weaknesses
from dragoman.agent.slots import one_of
from dragoman.agent.state import AuditState
from dragoman.agent.structured import UnusableReply
from dragoman.agent.templates import TEMPLATES
from dragoman.core.claims import Concern, Hypothesis
from dragoman.core.records import ToolResult
from dragoman.prompts import render

_MOST = 2


def critique(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Write concerns for every claim that is about to be made."""
    if state["hypotheses"]:
        desk.phase("critique", "what speaks against these results")
    for hypothesis, _, result in desk.tested(state["hypotheses"]):
        confounds = _second_reader(desk, hypothesis, result)
        for index, prediction in enumerate(hypothesis.predictions, start=1):
            measurement = measured(prediction, result)
            if measurement is None or prediction.metric in TEMPLATES[hypothesis.template].raises:
                continue
            claim_id = f"{hypothesis.id}c{index}"
            for text in weaknesses(measurement):
                _raise(desk, claim_id, text, "rules", "weakens")
            for text in confounds:
                _raise(desk, claim_id, text, _author(desk), "note")
    return {}


def _raise(
    desk: Desk, claim_id: str, text: str, author: str, severity: Literal["note", "weakens"]
) -> None:
    concern = Concern(claim_id=claim_id, text=text, raised_by=author, severity=severity)
    desk.keep("concern", concern.content_id(), concern)


def _author(desk: Desk) -> str:
    return "rules" if desk.chat is None else desk.chat.identity.model


def _second_reader(desk: Desk, hypothesis: Hypothesis, result: ToolResult) -> list[str]:
    """Which of the template's known confounds bear on this result; all, without a chat model.

    The reader sees figures and the hypothesis, but no earlier findings: a blind critic.
    """
    options = TEMPLATES[hypothesis.template].confounds
    if desk.chat is None:
        return list(options)
    numbers = tuple(range(1, len(options) + 1))
    number: Any = one_of(numbers)
    listed: Any = Annotated[list[number], Field(min_length=1, max_length=_MOST)]
    reply_type: Any = create_model(
        "Concerns", __config__=ConfigDict(extra="forbid", strict=True), concerns=(listed, ...)
    )
    figures = [
        {
            "metric": each.metric,
            "value": round(each.value, 3),
            "ci95": [round(bound, 3) for bound in each.ci95],
            "control": round(each.baseline, 3),
            "n": each.n,
        }
        for each in result.measurements[:4]
    ]
    try:
        reply: Any = desk.ask(
            "critique",
            render(
                "critique",
                hypothesis=json.dumps(hypothesis.statement, ensure_ascii=False),
                figures=json.dumps(figures, ensure_ascii=False),
                options="\n".join(
                    f"{number}. {text}" for number, text in zip(numbers, options, strict=True)
                ),
            ),
            reply_type,
            max_tokens=60,
        )
    except UnusableReply as error:
        desk.notice(f"all known confounds are listed instead of a chosen few: {error}")
        return list(options)
    return [options[number - 1] for number in dict.fromkeys(reply.concerns)]
