"""What a run emits while it goes: ledger, terminal and evals read the same events."""

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dragoman.core.claims import Claim
from dragoman.core.records import JsonObject, Record, ToolResult


class AuditStarted(Record):
    """The run has an identity; everything after it can be resumed under it."""

    kind: Literal["audit_started"] = "audit_started"
    audit_id: str
    subject: str
    chat: str
    resumed: bool


class PhaseStarted(Record):
    """A step of the graph begins: plan, preregister, run, controls, critique, …"""

    kind: Literal["phase_started"] = "phase_started"
    phase: str
    text: str


class ChatText(Record):
    """A piece of text as the chat model writes it."""

    kind: Literal["chat_text"] = "chat_text"
    text: str


class ChatFinished(Record):
    """A chat call ended, with what it took."""

    kind: Literal["chat_finished"] = "chat_finished"
    purpose: str
    prompt_tokens: int
    completion_tokens: int
    replayed: bool


class ToolStarted(Record):
    """An experiment begins."""

    kind: Literal["tool_started"] = "tool_started"
    experiment_id: str
    tool: str
    arguments: JsonObject


class ToolProgress(Record):
    """How far a running experiment is; `total` 0 means unknown."""

    kind: Literal["tool_progress"] = "tool_progress"
    experiment_id: str
    done: int
    total: int
    text: str


class ToolFinished(Record):
    """An experiment ended; `replayed` when its result came from the ledger."""

    kind: Literal["tool_finished"] = "tool_finished"
    result: ToolResult
    seconds: float
    replayed: bool


class ClaimMade(Record):
    """A verdict was reached."""

    kind: Literal["claim_made"] = "claim_made"
    claim: Claim
    rendered: str


class Notice(Record):
    """Something the person should know that is no result: a fallback, a skipped step."""

    kind: Literal["notice"] = "notice"
    text: str


class AuditFinished(Record):
    """The report exists."""

    kind: Literal["audit_finished"] = "audit_finished"
    audit_id: str
    outcome: str
    reason: str
    report_path: str


RunEvent: TypeAlias = Annotated[
    AuditStarted
    | PhaseStarted
    | ChatText
    | ChatFinished
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | ClaimMade
    | Notice
    | AuditFinished,
    Field(discriminator="kind"),
]

EventSink: TypeAlias = Callable[[RunEvent], None]


def ignore(event: RunEvent) -> None:
    """An event sink for callers that want none."""
