"""Plan: choose types of hypothesis for the question at hand, each with its rivals."""

import json
import re
from typing import Any

from dragoman.agent.desk import Desk
from dragoman.agent.planner import Brief, choose, invented
from dragoman.agent.router import Choice, route
from dragoman.agent.state import AuditState
from dragoman.agent.structured import UnusableReply
from dragoman.agent.template import Template
from dragoman.agent.templates import TEMPLATES
from dragoman.core.claims import Hypothesis, RecalledFinding
from dragoman.core.records import JsonObject, Record
from dragoman.core.report import NegativeResult

PROTOCOL = "fixed protocol"
_RECALLED = 3
_PLACE = re.compile(r"q(\d+)r(\d+)h")


class _Recalled(Record):
    question: str
    findings: tuple[RecalledFinding, ...]


def plan(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Write down this round's hypotheses; one that was tested before is not tested again."""
    question = desk.specification.questions[state["question"]]
    desk.phase("plan", question)
    earlier = _earlier(desk, state)
    choices, author = _choices(desk, state, question, earlier)
    known = {_key(each.template, each.slots) for each in earlier}
    ids = []
    for index, choice in enumerate(choices, start=1):
        key = _key(choice.template.name, choice.slots)
        if key in known:
            desk.deviate(
                f"test {choice.template.name} for {question!r}",
                "not tested again",
                "the same hypothesis was tested before in this audit",
            )
            continue
        known.add(key)
        name = f"q{state['question'] + 1}r{state['round'] + 1}h{index}"
        desk.keep("hypothesis", name, make_hypothesis(choice, desk, name, author))
        ids.append(name)
    if not ids and state["round"] == 0:
        desk.miss(
            NegativeResult(kind="not searched", text=f"no hypothesis was tested for: {question}")
        )
    return {"hypotheses": ids}


def allowed(desk: Desk) -> dict[str, Template]:
    """The templates whose tool the specification allows and that suits the kind of subject."""
    tools, kind = desk.specification.tools, desk.scene.kind
    return {
        name: template
        for name, template in TEMPLATES.items()
        if (not tools or template.tool in tools) and kind in desk.bench.tool(template.tool).subjects
    }


def _choices(
    desk: Desk, state: AuditState, question: str, earlier: list[Hypothesis]
) -> tuple[list[Choice], str]:
    templates = allowed(desk)
    prior = _recall(desk, question)
    if not templates:
        return [], PROTOCOL
    if desk.chat is None:
        return route(question, desk.scene, templates), PROTOCOL
    brief = Brief(
        question=question,
        scene=desk.scene,
        templates=templates,
        # A small model takes an earlier answer for a hint at the test: measured on the local one,
        # which then asked about a relation where the question was about neurons.
        prior=() if desk.chat.identity.kind == "local" else prior,
        done=[{"template": each.template, "slots": each.slots} for each in earlier],
        least=0 if state["round"] else 1,
        most=2 if desk.specification.quick else 3,
        seed=desk.specification.seed + state["round"],
    )
    try:
        choices = choose(desk.chat, brief, on_text=desk.stream, cancelled=desk.cancelled)
    except UnusableReply as error:
        desk.notice(f"the fixed protocol plans instead: {error}")
        desk.deviate("the chat model plans", "the fixed protocol planned", str(error))
        return route(question, desk.scene, templates), PROTOCOL
    kept = []
    for choice in choices:
        name = invented(choice, question)
        if name is None:
            kept.append(choice)
        else:
            desk.deviate(
                f"test {choice.template.name}, as the chat model chose",
                "left out",
                f"it filled in {name!r}, which the question does not name",
            )
    if choices and not kept:
        desk.notice(
            "the fixed protocol plans instead: the chat model named what nobody asked about"
        )
        return route(question, desk.scene, templates), PROTOCOL
    return kept, desk.chat.identity.model


def make_hypothesis(choice: Choice, desk: Desk, name: str, author: str) -> Hypothesis:
    """The typed hypothesis of a choice, with the arguments of its test."""
    template = choice.template
    arguments = template.arguments(choice.slots, desk.scene)
    # A seeded draw of neurons belongs to what is asked: it is a slot from now on.
    slots: JsonObject = {
        key: arguments.get(key, value) if key == "neurons" else value
        for key, value in choice.slots.items()
    }
    return Hypothesis(
        id=name,
        template=template.name,
        slots=slots,
        statement=template.statement.format(**{key: _said(slots[key]) for key in slots}),
        predictions=template.predictions(arguments),
        refuted_by=template.refuted_by,
        rivals=template.rivals,
        tool=template.tool,
        arguments=arguments,
        controls=template.controls,
        proposed_by=author,
    )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _key(template: str, slots: JsonObject) -> str:
    return json.dumps([template, slots], sort_keys=True)


def _earlier(desk: Desk, state: AuditState) -> list[Hypothesis]:
    """Hypotheses of earlier rounds: a resumed run must plan without what came later."""
    now = (state["question"] + 1, state["round"] + 1)
    return [
        each
        for each in desk.hypotheses()
        if (place := _PLACE.match(each.id)) and (int(place[1]), int(place[2])) < now
    ]


def _recall(desk: Desk, question: str) -> tuple[RecalledFinding, ...]:
    """Earlier findings, as leads; kept, so that a resumed audit plans from the same ones."""
    for each in desk.kept("recalled", _Recalled):
        if each.question == question:
            return each.findings
    memory = desk.bench.memory
    found = (
        []
        if memory is None
        else memory.search(question, subject_digest=desk.scene.subject.digest, k=_RECALLED)
    )
    # What this audit found itself is no earlier finding.
    recalled = tuple(each for each in found if each.finding.audit_id != desk.audit_id)
    desk.keep("recalled", question, _Recalled(question=question, findings=recalled))
    if recalled:
        same = sum(each.standing == "prior, unverified" for each in recalled)
        desk.phase(
            "recall", f"{len(recalled)} earlier findings, unverified; {same} of this subject"
        )
    return recalled
