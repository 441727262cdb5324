"""A chat model whose every call is in the ledger: paid once, replayed ever after."""

from collections import Counter
from collections.abc import Callable

from dragoman.agent.budget import Budget
from dragoman.agent.chat_errors import BrokenReply, RefusedCall
from dragoman.agent.ledger import Ledger
from dragoman.core.escaping import well_formed
from dragoman.core.events import ChatFinished, EventSink, Notice, ignore
from dragoman.core.protocols import (
    Cancelled,
    ChatModel,
    ChatReply,
    ChatRequest,
    never,
    stop_if,
)
from dragoman.core.records import ChatIdentity, canonical_json


class RecordedChat:
    """Reserve, send, settle; a call that this audit has settled before is not sent again.

    A call is named by its request's content and by how often this session has asked the same.
    """

    def __init__(
        self,
        chat: ChatModel,
        ledger: Ledger,
        audit_id: str,
        budget: Budget,
        on_event: EventSink = ignore,
    ) -> None:
        """`on_event` hears of each finished call."""
        self._chat = chat
        self._ledger = ledger
        self._audit_id = audit_id
        self._budget = budget
        self._on_event = on_event
        self._asked: Counter[str] = Counter()

    @property
    def identity(self) -> ChatIdentity:
        """That of the chat model behind it."""
        return self._chat.identity

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        """The recorded reply, or a new one; raises `LimitReached` before a call too many."""
        stop_if(cancelled)
        request = _well_formed(request)
        name = request.content_id()
        call_id = f"{name}-{self._asked[name]}"
        self._asked[name] += 1
        reply = self._ledger.chat_reply(self._audit_id, call_id)
        replayed = reply is not None
        if reply is None:
            reply = self._pay(call_id, request, on_text, cancelled)
        elif on_text is not None:
            on_text(reply.text)
        self._on_event(
            ChatFinished(
                purpose=request.purpose,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                replayed=replayed,
            )
        )
        return reply

    def close(self) -> None:
        """Close the chat model behind it."""
        self._chat.close()

    def _pay(
        self,
        call_id: str,
        request: ChatRequest,
        on_text: Callable[[str], None] | None,
        cancelled: Cancelled,
    ) -> ChatReply:
        try:
            return self._attempt(call_id, request, on_text, cancelled)
        except BrokenReply as error:
            if not error.temporary:
                raise
            # Each attempt that may have to be paid for is reserved by itself.
            self._on_event(Notice(text=f"{error}; asking once more"))
            return self._attempt(call_id, request, on_text, cancelled)

    def _attempt(
        self,
        call_id: str,
        request: ChatRequest,
        on_text: Callable[[str], None] | None,
        cancelled: Cancelled,
    ) -> ChatReply:
        prompt, completion, usd = self._budget.call(request)
        self._ledger.chat_reserved(self._audit_id, call_id, request, prompt, completion, usd)
        try:
            reply = self._chat.complete(request, on_text=on_text, cancelled=cancelled)
        except RefusedCall as error:
            self._ledger.chat_released(self._audit_id, call_id, str(error))
            raise
        self._ledger.chat_settled(self._audit_id, call_id, reply)
        return reply


def _well_formed(request: ChatRequest) -> ChatRequest:
    text = canonical_json(request.model_dump(mode="json"))
    plain = well_formed(text)
    return request if plain == text else ChatRequest.model_validate_json(plain)
