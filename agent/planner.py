"""The planner: a chat model chooses types of hypothesis and fills their slots.

Two small steps, since a small model chooses well from a list and fills one form at a time. Its
reply can only name what the catalogue has and the subject's sizes allow.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, create_model

from dragoman.agent.router import Choice
from dragoman.agent.slots import Scene, one_of
from dragoman.agent.structured import ask
from dragoman.agent.templates import Template
from dragoman.core.claims import RecalledFinding
from dragoman.core.protocols import Cancelled, ChatMessage, ChatModel, ChatRequest, never
from dragoman.core.records import JsonObject
from dragoman.prompts import render


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
    subject = brief.scene.subject
    system = render(
        "plan_system",
        templates="\n".join(f"- {name}: {each.asks}" for name, each in brief.templates.items()),
        subject=(
            f"{subject.name}: layers 0 to {subject.n_layers - 1}, "
            f"neurons 0 to {subject.d_mlp - 1} in each layer"
        ),
    )
    name: Any = one_of(tuple(brief.templates))
    listed: Any = Annotated[list[name], Field(min_length=brief.least, max_length=brief.most)]
    reply_type: Any = create_model(
        "Templates",
        __config__=ConfigDict(extra="forbid", strict=True),
        templates=(listed, ...),
    )
    asked = render(
        "plan_question",
        question=_quoted(brief.question),
        prior=_quoted([_told(each) for each in brief.prior]),
        done=_quoted(brief.done),
    )
    chosen: Any = ask(
        chat,
        _request("plan", system, asked, brief.seed),
        reply_type,
        on_text=on_text,
        cancelled=cancelled,
    )
    choices = []
    for each in dict.fromkeys(chosen.templates):
        template = brief.templates[each]
        form = template.slots(brief.scene)
        asked = render(
            "plan_slots",
            question=_quoted(brief.question),
            template=template.name,
            slots=", ".join(form.model_fields),
            relations=", ".join(brief.scene.relations),
        )
        filled = ask(
            chat,
            _request("fill", system, asked, brief.seed),
            form,
            on_text=on_text,
            cancelled=cancelled,
        )
        choices.append(Choice(template, filled.model_dump(mode="json")))
    return choices


def _request(purpose: str, system: str, asked: str, seed: int) -> ChatRequest:
    return ChatRequest(
        purpose=purpose,
        messages=(
            ChatMessage(role="system", content=system),
            ChatMessage(role="user", content=asked),
        ),
        max_tokens=160,
        seed=seed,
    )


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _told(recalled: RecalledFinding) -> JsonObject:
    return {
        "finding": recalled.finding.text,
        "status": recalled.finding.status,
        "standing": recalled.standing,
    }
