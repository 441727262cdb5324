"""Captions from the chat model: one short call a unit, its reply checked, its failures counted."""

import json
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, ValidationError

from dragoman.core.escaping import visible
from dragoman.core.protocols import ChatMessage, ChatModel, ChatRequest
from dragoman.core.records import Record
from dragoman.prompts import render
from dragoman.tools.context import ToolContext

_MAX_TOKENS = 64


class ChatCaptions(Record):
    """What the chat model is asked to reply."""

    captions: Annotated[
        tuple[Annotated[str, Field(min_length=3, max_length=90)], ...],
        Field(min_length=1, max_length=2),
    ]


def ask(
    context: ToolContext,
    chat: ChatModel,
    exemplars: Sequence[tuple[str, str, str]],
    silent: str,
    suggestions: Sequence[str],
) -> tuple[str, ...]:
    """Captions for (before, token, after) contexts; empty when the reply was no such JSON.

    The texts come from the subject or from a corpus: they are escaped, and stand in the prompt as
    JSON strings. A chat model that cannot be reached raises `ChatError` as everywhere.
    """
    marked = [f"{before}«{token}»{after}" for before, token, after in exemplars]
    request = ChatRequest(
        purpose="caption",
        messages=(
            ChatMessage(
                role="user",
                content=render(
                    "caption",
                    n_texts=str(len(marked)),
                    texts=_json_lines(marked),
                    silent=_json_lines([silent]),
                    suggestions=json.dumps(list(suggestions), ensure_ascii=False),
                ),
            ),
        ),
        json_schema=ChatCaptions.model_json_schema(),
        max_tokens=_MAX_TOKENS,
        seed=context.seed,
    )
    reply = chat.complete(request, cancelled=context.cancelled)
    try:
        captions = ChatCaptions.model_validate_json(reply.text).captions
    except ValidationError:
        return ()
    return tuple(dict.fromkeys(visible(caption.strip(), one_line=True) for caption in captions))


def _json_lines(texts: Sequence[str]) -> str:
    return "\n".join(json.dumps(visible(text, one_line=True), ensure_ascii=False) for text in texts)
