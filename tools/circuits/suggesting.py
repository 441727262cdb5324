"""Templates that a chat model suggests for some entities or pairs: checked, never trusted.

A suggestion is only one more candidate; whether the subject answers through it is measured as for
every other.
"""

import json
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, ValidationError

from dragoman.core.escaping import visible
from dragoman.core.protocols import Cancelled, ChatMessage, ChatModel, ChatRequest, never
from dragoman.core.records import Record
from dragoman.prompts import render
from dragoman.tools.relations import Sample

SUGGESTIONS = 8
_SHOWN = 12
"""Entities or pairs that the chat model is shown."""
_LONGEST = 120


class _Reply(Record):
    templates: Annotated[tuple[str, ...], Field(min_length=1, max_length=SUGGESTIONS)]


def suggest_templates(
    chat: ChatModel,
    shown: Sequence[str] | Sequence[Sample],
    seed: int,
    cancelled: Cancelled = never,
) -> list[str]:
    """At most `SUGGESTIONS` templates with one `{}` each, ready to be followed by an object.

    Empty where the reply is of no use. A chat model that cannot be reached raises `ChatError`.
    """
    lines = "\n".join(json.dumps(_line(each), ensure_ascii=False) for each in shown[:_SHOWN])
    content = render("suggest_templates", n=str(SUGGESTIONS), shown=lines)
    request = ChatRequest(
        purpose="template",
        messages=(ChatMessage(role="user", content=content),),
        json_schema=_Reply.model_json_schema(),
        max_tokens=32 * SUGGESTIONS,
        seed=seed,
    )
    reply = chat.complete(request, cancelled=cancelled).text
    try:
        templates = _Reply.model_validate_json(reply).templates
    except ValidationError:
        return []
    cleaned = (_ready(visible(each, one_line=True).strip()) for each in templates)
    return list(dict.fromkeys(each for each in cleaned if _is_usable(each)))


def _line(each: str | Sample) -> str | list[str]:
    texts = [each] if isinstance(each, str) else [each.subject, each.object]
    safe = [visible(text, one_line=True) for text in texts]
    return safe[0] if len(safe) == 1 else safe


def _ready(template: str) -> str:
    # Small chat models ask, whatever they are told: a question too can be followed by its answer.
    return f"{template} Answer:" if template.endswith("?") else template


def _is_usable(template: str) -> bool:
    # It has to end right before the object: neither with the name nor with a full stop.
    words = template.replace("{}", "").removesuffix("Answer:").strip(" .?!:")
    ends = template.endswith((".", "!", "{}"))
    return template.count("{}") == 1 and bool(words) and len(template) <= _LONGEST and not ends
