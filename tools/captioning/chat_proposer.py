"""Captions from the chat model: several units a call, replies checked, cached and counted."""

import json
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from dragoman.core.escaping import visible
from dragoman.core.protocols import ChatMessage, ChatModel, ChatRequest
from dragoman.core.records import JsonObject, Record
from dragoman.prompts import render
from dragoman.tools.captioning.chat_calls import CountedChat
from dragoman.tools.context import ToolContext

UNITS_A_CALL = 4
_TOKENS_A_UNIT = 56


class Question(NamedTuple):
    """What the chat model is told of one unit."""

    marked: Sequence[str]
    """Texts whose active tokens are marked, with their strengths."""
    silent: str
    suggestions: Sequence[str]
    """The search's best captions."""


class Answers(NamedTuple):
    """Captions for each question, and what they cost."""

    captions: list[tuple[str, ...]]
    """Empty for a unit of which the reply said nothing that fits."""
    n_calls: int = 0
    """Calls of the chat model, cached replies not counted."""
    n_cached: int = 0

    @property
    def replies_per_unit(self) -> float:
        """Replies that a unit took, cached ones counted: the same in a run that was stopped."""
        return round((self.n_calls + self.n_cached) / max(len(self.captions), 1), 4)

    @property
    def n_failed(self) -> int:
        """Units without any caption."""
        return sum(not captions for captions in self.captions)


class _Described(Record):
    captions: Annotated[
        tuple[Annotated[str, Field(min_length=3, max_length=90)], ...],
        Field(min_length=1, max_length=2),
    ]


class ChatCaptions(Record):
    """What the chat model is asked to reply: one entry a neuron, in order."""

    neurons: tuple[_Described, ...]

    @classmethod
    def schema_for(cls, n: int) -> JsonObject:
        """The JSON schema for `n` neurons."""
        schema = cls.model_json_schema()
        schema["properties"]["neurons"] |= {"minItems": n, "maxItems": n}
        return schema


def ask(context: ToolContext, chat: ChatModel, questions: Sequence[Question]) -> Answers:
    """Captions for the units asked about, `UNITS_A_CALL` in a call.

    The texts come from the subject or from a corpus: they are escaped, and stand in the prompt as
    JSON strings. A chat model that cannot be reached raises `ChatError` as everywhere.
    """
    captions: list[tuple[str, ...]] = []
    calls = CountedChat(context, chat)
    for start in range(0, len(questions), UNITS_A_CALL):
        batch = questions[start : start + UNITS_A_CALL]
        context.step(start, len(questions), "asking the chat model for captions")
        request = _request(batch, context.seed)
        reply = calls.kept(request, ChatCaptions)
        if reply is None:
            reply = calls.fresh(request, ChatCaptions)
        captions += cleaned(reply, len(batch))
    return Answers(captions, calls.n_calls, calls.n_cached)


def _request(batch: Sequence[Question], seed: int) -> ChatRequest:
    neurons = "\n".join(
        f"Neuron {number}\n{_json_lines(question.marked)}\n"
        f"It is silent in: {_json_lines([question.silent])}\n"
        f"A search found: {json.dumps(list(question.suggestions), ensure_ascii=False)}"
        for number, question in enumerate(batch, start=1)
    )
    return ChatRequest(
        purpose="caption",
        messages=(
            ChatMessage(
                role="user",
                content=render("caption", n_neurons=str(len(batch)), neurons=neurons),
            ),
        ),
        json_schema=ChatCaptions.schema_for(len(batch)),
        max_tokens=_TOKENS_A_UNIT * len(batch) + 16,
        seed=seed,
    )


def cleaned(reply: ChatCaptions | None, n: int) -> list[tuple[str, ...]]:
    """Captions of `n` units, escaped, each once; empty for units of which the reply says none."""
    captions: list[tuple[str, ...]] = []
    for entry in (reply.neurons if reply is not None else ())[:n]:
        shown = (visible(caption.strip(), one_line=True) for caption in entry.captions)
        captions.append(tuple(dict.fromkeys(shown)))
    return captions + [()] * (n - len(captions))


def _json_lines(texts: Sequence[str]) -> str:
    return "\n".join(json.dumps(visible(text, one_line=True), ensure_ascii=False) for text in texts)
