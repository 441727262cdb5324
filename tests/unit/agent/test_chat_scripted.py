"""The script is replayed as written, and running out is loud."""

import pytest

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.core.errors import DragomanError, Interrupted
from dragoman.core.protocols import ChatMessage, ChatModel, ChatRequest


def request(purpose: str) -> ChatRequest:
    return ChatRequest(purpose=purpose, messages=(ChatMessage(role="user", content="two words"),))


def test_replies_in_order_and_requests_are_kept() -> None:
    chat: ChatModel = ScriptedChat(["first", "second line\nthird"])
    pieces: list[str] = []
    assert chat.complete(request("plan")).text == "first"
    reply = chat.complete(request("plan"), on_text=pieces.append)
    assert "".join(pieces) == reply.text == "second line\nthird"
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 3)
    assert isinstance(chat, ScriptedChat)
    assert [sent.purpose for sent in chat.requests] == ["plan", "plan"]


def test_replies_by_purpose() -> None:
    chat = ScriptedChat({"plan": ["a", "b"], "critique": ["c"]})
    texts = [chat.complete(request(purpose)).text for purpose in ("plan", "critique", "plan")]
    assert texts == ["a", "c", "b"]


@pytest.mark.parametrize("replies", [[], {"plan": []}, {"critique": ["x"]}])
def test_running_out_is_not_mistaken_for_a_chat_fault(
    replies: list[str] | dict[str, list[str]],
) -> None:
    with pytest.raises(RuntimeError, match="plan") as caught:
        ScriptedChat(replies).complete(request("plan"))
    assert not isinstance(caught.value, DragomanError)


def test_cancelled_before_the_call() -> None:
    chat = ScriptedChat(["never"])
    with pytest.raises(Interrupted):
        chat.complete(request("plan"), cancelled=lambda: True)
    assert chat.requests == []
