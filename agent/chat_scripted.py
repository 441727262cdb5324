"""A chat model that says what a test wrote down for it, through the protocol of the real ones."""

from collections.abc import Callable, Mapping, Sequence

from dragoman.core.protocols import Cancelled, ChatReply, ChatRequest, never, stop_if
from dragoman.core.records import ChatIdentity


class ScriptedChat:
    """Replays texts in order, or in order per purpose, and keeps the requests that it was sent.

    Tokens are counted as words, so that budgets can be tested against known figures.
    """

    def __init__(
        self, replies: Sequence[str] | Mapping[str, Sequence[str]], *, usd: float | None = 0.0
    ) -> None:
        """`replies`: texts for all calls, or texts by `ChatRequest.purpose`; `usd` per call."""
        self.requests: list[ChatRequest] = []
        self._replies = (
            {purpose: list(texts) for purpose, texts in replies.items()}
            if isinstance(replies, Mapping)
            else list(replies)
        )
        self._usd = usd

    @property
    def identity(self) -> ChatIdentity:
        """Kind 'scripted'."""
        return ChatIdentity(kind="scripted", model="script")

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        """The next text of the script; a script that has run out is a `RuntimeError`."""
        stop_if(cancelled)
        self.requests.append(request)
        text = self._next(request.purpose)
        if on_text is not None:
            for line in text.splitlines(keepends=True):
                on_text(line)
        return ChatReply(
            text=text,
            finish_reason="stop",
            prompt_tokens=sum(len(message.content.split()) for message in request.messages),
            completion_tokens=len(text.split()),
            usd=self._usd,
        )

    def close(self) -> None:
        """Nothing is held."""

    def _next(self, purpose: str) -> str:
        if isinstance(self._replies, list):
            texts = self._replies
        elif purpose in self._replies:
            texts = self._replies[purpose]
        else:
            known = ", ".join(self._replies) or "none"
            raise RuntimeError(f"the script has no replies for purpose {purpose!r} (has: {known})")
        if not texts:
            raise RuntimeError(
                f"the script ran out at call {len(self.requests)}, purpose {purpose!r}"
            )
        return texts.pop(0)
