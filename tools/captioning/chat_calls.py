"""Calls of a chat model: counted, and what came of them kept in files named by content."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dragoman.core.files import write_atomic
from dragoman.core.protocols import ChatModel, ChatReply, ChatRequest
from dragoman.core.records import JsonObject, Record, content_id
from dragoman.tools.context import ToolContext

_Kept = TypeVar("_Kept", bound=Record)


class CountedChat:
    """A chat model, how often it was called, and how often the cache answered in its place."""

    def __init__(self, context: ToolContext, chat: ChatModel) -> None:
        self._context, self._chat = context, chat
        self.n_calls = 0
        self.n_cached = 0

    def complete(self, request: ChatRequest) -> ChatReply:
        """One reply, counted whatever it says; raises `ChatError` or `Interrupted`."""
        self.n_calls += 1
        return self._chat.complete(request, cancelled=self._context.cancelled)

    def kept(self, request: ChatRequest, kind: type[_Kept]) -> _Kept | None:
        """What was kept of the same request to the same model; a damaged file is none."""
        try:
            known = kind.model_validate_json(self._path(request).read_bytes())
        except (OSError, ValidationError):
            return None
        self.n_cached += 1
        return known

    def fresh(self, request: ChatRequest, kind: type[_Kept]) -> _Kept | None:
        """The reply as the record that was asked for, and kept; None where it does not fit."""
        try:
            reply = kind.model_validate_json(self.complete(request).text)
        except ValidationError:
            return None
        self.keep(request, reply)
        return reply

    def keep(self, request: ChatRequest, what: Record) -> None:
        """Keep what came of a request; only what is whole should be, the rest is asked again."""
        write_atomic(self._path(request), what.model_dump_json())

    def cost(self, n_units: int) -> JsonObject:
        """`chat_cost` of the calls so far."""
        return chat_cost(self.n_calls, self.n_cached, n_units)

    def _path(self, request: ChatRequest) -> Path:
        name = content_id([self._chat.identity.model, request.content_id()])
        return self._context.cache / "chat" / f"{name}.json"


def chat_cost(n_calls: int, n_cached: int, n_units: int) -> JsonObject:
    """What a tool's output says of its calls of the chat model, for captions as for scores.

    `n_calls` were made, `n_cached` more were answered from the cache.
    """
    return {
        "chat_calls": n_calls,
        "chat_calls_per_unit": round(n_calls / max(n_units, 1), 4),
        "chat_replies_from_cache": n_cached,
    }
