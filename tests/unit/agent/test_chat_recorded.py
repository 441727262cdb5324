"""Each call is paid once: reserved before it is sent, settled after, replayed ever after."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dragoman.agent.budget import Budget, Budgets
from dragoman.agent.chat_errors import BrokenReply, RefusedCall
from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.ledger import Ledger, Spent
from dragoman.agent.recorded_chat import RecordedChat
from dragoman.core.errors import DragomanError, Interrupted, LimitReached
from dragoman.core.events import ChatFinished, RunEvent
from dragoman.core.protocols import Cancelled, ChatMessage, ChatReply, ChatRequest, never


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite3") as opened:
        yield opened


def request(text: str) -> ChatRequest:
    return ChatRequest(
        purpose="plan", messages=(ChatMessage(role="user", content=text),), max_tokens=10
    )


def recorded(
    chat: ScriptedChat, ledger: Ledger, budgets: Budgets | None = None, audit: str = "a"
) -> tuple[RecordedChat, list[RunEvent]]:
    events: list[RunEvent] = []
    budget = Budget(budgets or Budgets(), ledger, audit)
    return RecordedChat(chat, ledger, audit, budget, events.append), events


def test_a_resumed_audit_replays_and_pays_nothing_again(ledger: Ledger) -> None:
    script = ScriptedChat(["one", "two", "again"])
    chat, _ = recorded(script, ledger)
    texts = [chat.complete(request(text)).text for text in ("x", "y", "x")]
    assert texts == ["one", "two", "again"], "the same request twice is two calls"
    spent = ledger.spent("a")
    assert spent.calls == 3

    chat, events = recorded(ScriptedChat([]), ledger)
    heard: list[str] = []
    replayed = [chat.complete(request(text), on_text=heard.append).text for text in ("x", "y", "x")]
    assert replayed == heard == texts
    assert all(isinstance(event, ChatFinished) and event.replayed for event in events)
    assert ledger.spent("a") == spent

    other = ScriptedChat(["fresh"])
    assert recorded(other, ledger, audit="b")[0].complete(request("x")).text == "fresh"


class Failing(ScriptedChat):
    """Raises its errors in order, then speaks."""

    def __init__(self, errors: list[DragomanError], replies: list[str]) -> None:
        super().__init__(replies)
        self.errors = errors
        self.calls = 0

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return super().complete(request, on_text=on_text, cancelled=cancelled)


def test_a_refused_call_costs_nothing(ledger: Ledger) -> None:
    chat, events = recorded(Failing([RefusedCall("401")], []), ledger)
    with pytest.raises(RefusedCall):
        chat.complete(request("x"))
    assert ledger.spent("a") == Spent()
    assert events == []


def test_a_broken_reply_is_charged_and_asked_for_once_more(ledger: Ledger) -> None:
    failing = Failing([BrokenReply("cut", temporary=True)], ["whole"])
    chat, events = recorded(failing, ledger)
    assert chat.complete(request("x")).text == "whole"
    spent = ledger.spent("a")
    assert (spent.calls, spent.in_doubt) == (2, 1)
    assert [event.kind for event in events] == ["notice", "chat_finished"]


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([BrokenReply("cut", temporary=True), BrokenReply("cut", temporary=True)], 2),
        ([BrokenReply("filtered")], 1),
        ([Interrupted("stop")], 1),
    ],
)
def test_what_stays_in_doubt_stays_charged(
    ledger: Ledger, errors: list[DragomanError], calls: int
) -> None:
    failing = Failing(errors, ["never"])
    chat, _ = recorded(failing, ledger)
    with pytest.raises(DragomanError):
        chat.complete(request("x"))
    assert failing.calls == calls
    assert ledger.spent("a").in_doubt == calls

    chat, _ = recorded(ScriptedChat(["after the resume"]), ledger)
    assert chat.complete(request("x")).text == "after the resume"
    assert ledger.spent("a").calls == calls + 1


def test_no_request_follows_a_limit(ledger: Ledger) -> None:
    script = ScriptedChat(["reply"] * 50)
    chat, _ = recorded(script, ledger, Budgets(tokens=200))
    with suppress(LimitReached):
        for number in range(50):
            chat.complete(request(f"question {number:02}"))
    sent = len(script.requests)
    assert 0 < sent < 50
    spent = ledger.spent("a")
    assert spent.tokens <= 200
    with pytest.raises(LimitReached):
        chat.complete(request("question 99"))
    assert len(script.requests) == sent
    assert ledger.spent("a") == spent


def test_the_second_attempt_needs_a_budget_of_its_own(ledger: Ledger) -> None:
    failing = Failing([BrokenReply("cut", temporary=True)], ["whole"])
    chat, _ = recorded(failing, ledger, Budgets(tokens=120))
    with pytest.raises(LimitReached):
        chat.complete(request("x"))
    assert failing.calls == 1


def test_surrogates_in_a_request_are_normalised_before_it_is_named_and_sent(
    ledger: Ledger,
) -> None:
    script = ScriptedChat(["ok"])
    recorded(script, ledger)[0].complete(request("a\ud800b"))
    assert script.requests[0].messages[0].content == "a\ufffdb"
    assert recorded(ScriptedChat([]), ledger)[0].complete(request("a\ud800b")).text == "ok"


def test_cancelled_before_anything_is_reserved(ledger: Ledger) -> None:
    chat, _ = recorded(ScriptedChat(["x"]), ledger)
    with pytest.raises(Interrupted):
        chat.complete(request("x"), cancelled=lambda: True)
    assert ledger.spent("a") == Spent()
