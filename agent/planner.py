"""The planner: a chat model chooses types of hypothesis and fills their slots.

Two small steps, since a small model chooses well from a list and fills one form at a time. Its
reply can only name what the catalogue has and the subject's sizes allow. It is shown what the fixed
protocol would choose, and is free to choose otherwise: a small model is better at keeping or
rejecting a proposal than at making one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from dragoman.agent.router import Choice, fill, route
from dragoman.agent.slots import Scene, described, one_of
from dragoman.agent.structured import ask
from dragoman.agent.template import Template
from dragoman.core.claims import RecalledFinding
from dragoman.core.protocols import Cancelled, ChatMessage, ChatModel, ChatRequest, never
from dragoman.core.records import JsonObject, canonical_json
from dragoman.prompts import render

_QUOTED_SLOTS = frozenset({"entity", "new_object", "prompt", "concept"})
"""Slots whose text can only come from the question."""


@dataclass(frozen=True)
class Brief:
    """All that a planner is told."""

    question: str
    scene: Scene
    templates: Mapping[str, Template]
    prior: Sequence[RecalledFinding] = ()
    done: Sequence[JsonObject] = ()
    """Tests of earlier rounds: template and slots."""
    least: int = 1
    """0 lets the planner say that enough is known."""
    most: int = 2
    seed: int = 0


def choose(
    chat: ChatModel,
    brief: Brief,
    *,
    on_text: Callable[[str], None] | None = None,
    cancelled: Cancelled = never,
) -> list[Choice]:
    """The chat model's choices, most direct first; `UnusableReply` if it gives none that fit."""
    talk = _introduction(brief)
    name: Any = one_of(tuple(brief.templates))
    listed: Any = Annotated[list[name], Field(min_length=brief.least, max_length=brief.most)]
    reply_type: Any = create_model(
        "Templates",
        __config__=ConfigDict(extra="forbid", strict=True),
        templates=(listed, ...),
    )
    talk.append(_said("user", _question(brief.question, brief, brief.prior, brief.done)))
    chosen: Any = ask(
        chat,
        _request("plan", talk, brief.seed),
        reply_type,
        on_text=on_text,
        cancelled=cancelled,
    )
    # The forms go on with the same conversation: what was read once need not be read again.
    talk.append(_said("assistant", chosen.model_dump_json()))
    choices = []
    for each in dict.fromkeys(chosen.templates):
        template = brief.templates[each]
        form = template.slots(brief.scene)
        asked = _said("user", _form(brief.question, template, form, brief.scene))
        filled = ask(
            chat,
            _request("fill", [*talk, asked], brief.seed),
            form,
            on_text=on_text,
            cancelled=cancelled,
        )
        choices.append(Choice(template, filled.model_dump(mode="json")))
    return choices


def invented(choice: Choice, question: str) -> str | None:
    """A name that the chat model filled in and that the question does not hold; None if none.

    A small model copies the worked example where a question names no entity; an experiment on that
    would answer something that nobody asked.
    """
    asked = question.casefold()
    for slot in sorted(_QUOTED_SLOTS & set(choice.slots)):
        value = str(choice.slots[slot])
        if value.strip().casefold() not in asked:
            return value
    return None


def _introduction(brief: Brief) -> list[ChatMessage]:
    """What stays the same from question to question: the tests, and one worked example of each."""
    subject = brief.scene.subject
    system = render(
        "plan_system",
        templates="\n".join(f"- {name}: {each.asks}" for name, each in brief.templates.items()),
        subject=(
            f"{subject.name}: layers 0 to {subject.n_layers - 1}, "
            f"neurons 0 to {subject.d_mlp - 1} in each layer"
        ),
        relations=", ".join(brief.scene.relations),
    )
    talk = [_said("system", system)]
    for name, template in brief.templates.items():
        question, slots = template.example
        talk.append(_said("user", _question(question, brief, (), ())))
        talk.append(_said("assistant", canonical_json({"templates": [name]})))
        form = template.slots(brief.scene)
        if _fits(slots, form):
            talk.append(_said("user", _form(question, template, form, brief.scene)))
            talk.append(_said("assistant", canonical_json(slots)))
    return talk


def _question(
    question: str, brief: Brief, prior: Sequence[RecalledFinding], done: Sequence[JsonObject]
) -> str:
    # In later rounds the fixed protocol would only repeat itself.
    proposed = [] if done else route(question, brief.scene, brief.templates)
    return render(
        "plan_question",
        question=_quoted(question),
        prior=_quoted([_told(each) for each in prior]),
        done=_quoted(done),
        suggested=_quoted([each.template.name for each in proposed]),
    )


def _form(question: str, template: Template, form: type[BaseModel], scene: Scene) -> str:
    return render(
        "plan_slots",
        template=template.name,
        slots=described(form),
        suggested=_quoted(fill(template.name, question, scene)),
    )


def _fits(slots: JsonObject, form: type[BaseModel]) -> bool:
    """Whether an example can be given: an audit may be about other relations, or fewer layers."""
    try:
        form.model_validate_json(canonical_json(slots))
    except ValidationError:
        return False
    return True


def _said(role: Literal["system", "user", "assistant"], content: str) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def _request(purpose: str, messages: Sequence[ChatMessage], seed: int) -> ChatRequest:
    return ChatRequest(purpose=purpose, messages=tuple(messages), max_tokens=160, seed=seed)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _told(recalled: RecalledFinding) -> JsonObject:
    return {
        "finding": recalled.finding.text,
        "status": recalled.finding.status,
        "standing": recalled.standing,
    }
