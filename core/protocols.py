"""What the layers ask of each other: a subject, a chat model, a store of findings."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

from dragoman.core.claims import Finding, RecalledFinding
from dragoman.core.errors import Interrupted
from dragoman.core.records import ChatIdentity, JsonObject, Record, SubjectIdentity

Progress: TypeAlias = Callable[[int, int, str], None]
"""`progress(done, total, text)`; total 0 means unknown."""

Cancelled: TypeAlias = Callable[[], bool]


def never() -> bool:
    """A `Cancelled` for callers that cannot be interrupted."""
    return False


def silent(done: int, total: int, text: str) -> None:
    """A `Progress` for callers that show none."""


def stop_if(cancelled: Cancelled) -> None:
    """Raise `Interrupted` once the person has asked to stop."""
    if cancelled():
        raise Interrupted("stopped on request; what was finished is kept")


class TokenProbability(Record):
    """A next token and its probability."""

    token: str
    probability: float


class SubjectModel(Protocol):
    """The network under examination, as far as it can be spoken of without tensors."""

    @property
    def identity(self) -> SubjectIdentity:
        """Digest, architecture and sizes."""
        ...

    def next_tokens(self, prompts: Sequence[str], k: int) -> list[list[TokenProbability]]:
        """The `k` most probable next tokens after each prompt, most probable first."""
        ...

    def continue_text(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Only the new text after each prompt; greedy at temperature 0."""
        ...


class ChatImage(Record):
    """A picture that is shown to a chat model that can see."""

    media_type: Literal["image/png", "image/jpeg"]
    base64: str
    """The file's bytes, in base64."""


class ChatMessage(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[ChatImage, ...] = ()
    """Shown after the text; at most 1024 pixels a side."""


class ChatRequest(Record):
    """One call of a chat model. Its content id names it in the ledger."""

    purpose: str
    """Which step asks: 'plan', 'critique', 'narrative', 'caption', 'answer'."""
    messages: tuple[ChatMessage, ...]
    json_schema: JsonObject | None = None
    """The reply must be JSON of this schema; None asks for plain text."""
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    first_tokens: int = 0
    """How many of the likeliest first tokens of the reply are wanted, with their probabilities."""


class ChatReply(Record):
    """What came back, complete: a reply without an end is never accepted."""

    text: str
    finish_reason: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    completion_tokens: int
    first_tokens: tuple[TokenProbability, ...] = ()
    """The likeliest first tokens, where they were asked for and the endpoint gives them."""
    usd: float | None = None
    """None where the price is not known; 0.0 for a local model."""


class ChatModel(Protocol):
    """A language model that plans, criticises and writes."""

    @property
    def identity(self) -> ChatIdentity:
        """Which model, through what; never a key."""
        ...

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        """One reply, streamed to `on_text`; raises `ChatError` or `Interrupted`."""
        ...

    def close(self) -> None:
        """Let go of processes and connections; safe to call twice."""
        ...


class FindingStore(Protocol):
    """Memory: findings by meaning."""

    def add(self, findings: Sequence[Finding]) -> None:
        """Store findings; one that is there already (same id) is left as it is."""
        ...

    def search(
        self, text: str, *, subject_digest: str | None = None, k: int = 5
    ) -> list[RecalledFinding]:
        """The nearest findings, best first; standing is judged against `subject_digest`."""
        ...
