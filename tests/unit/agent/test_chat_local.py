"""The local server starts, answers by schema, and is gone when we are gone."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from dragoman.agent.chat_errors import RefusedCall
from dragoman.agent.chat_local import LocalChat
from dragoman.agent.structured import ask
from dragoman.core.errors import ChatError, Interrupted, UserError
from dragoman.core.protocols import ChatMessage, ChatRequest

QUESTION = ChatRequest(
    purpose="answer",
    messages=(ChatMessage(role="user", content="What is the capital of France? One word."),),
    max_tokens=8,
)


def running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A killed child of ours stays in the table until it is waited for.
    return re.search(r"State:\s+Z", Path(f"/proc/{process_id}/status").read_text()) is None


def ends(process_id: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not running(process_id):
            return True
        time.sleep(0.05)
    return False


def test_missing_weights_are_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        LocalChat(tmp_path / "no.gguf")


def test_weights_that_are_none_end_in_one_line_and_leave_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    notices: list[str] = []
    chat = LocalChat(broken, 1, notice=notices.append)
    with pytest.raises(ChatError, match=r"did not start .*weights verify") as caught:
        chat.complete(QUESTION)
    assert str(caught.value).isprintable()
    assert chat.process_id is None
    assert notices == ["loading the local chat model broken"]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    chat.close()


@pytest.fixture
def stuck(tmp_path: Path) -> LocalChat:
    """A chat model whose weights take for ever to read."""
    file = tmp_path / "stuck.gguf"
    file.write_bytes(b"GGUF")
    chat = LocalChat(file, 1, start_seconds=2.0)
    file.unlink()
    os.mkfifo(file)
    return chat


def test_loading_has_a_time_limit(stuck: LocalChat) -> None:
    with pytest.raises(ChatError, match="did not start in 2 s"):
        stuck.complete(QUESTION)
    assert stuck.process_id is None


def test_loading_can_be_cancelled(stuck: LocalChat) -> None:
    seen: list[int] = []

    def cancelled() -> bool:
        if stuck.process_id is not None:
            seen.append(stuck.process_id)
        return len(seen) > 5

    began = time.monotonic()
    with pytest.raises(Interrupted):
        stuck.complete(QUESTION, cancelled=cancelled)
    assert time.monotonic() - began < 1.5
    assert not running(seen[0])


STUCK_PARENT = """
import os, sys, time
from pathlib import Path
from dragoman.agent.chat_local import LocalChat
from dragoman.core.protocols import ChatMessage, ChatRequest
file = Path(sys.argv[1])
file.write_bytes(b"GGUF")
chat = LocalChat(file, 1)
file.unlink()
os.mkfifo(file)
def cancelled():
    print(chat.process_id, flush=True)
    time.sleep(0.1)
    return False
message = ChatMessage(role="user", content="Say yes.")
chat.complete(ChatRequest(purpose="answer", messages=(message,)), cancelled=cancelled)
"""


def test_it_is_gone_with_its_parent_even_while_it_loads(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK_PARENT, str(tmp_path / "stuck.gguf")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline() for _ in range(15)]
        server = int(lines[-1])
        assert running(server)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        assert ends(server, 3)


class Capital(BaseModel):
    city: Literal["Berlin", "Paris", "Rome"]


@pytest.fixture(scope="module")
def weights_file(weights_home: Path) -> Path:
    folder = weights_home / "weights" / "qwen2.5-coder-1.5b"
    return folder / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


@pytest.fixture(scope="module")
def chat(weights_file: Path) -> Iterator[LocalChat]:
    opened = LocalChat(weights_file)
    yield opened
    opened.close()


@pytest.mark.slow
def test_it_answers_streams_and_counts(chat: LocalChat, capfd: pytest.CaptureFixture[str]) -> None:
    pieces: list[str] = []
    reply = chat.complete(QUESTION, on_text=pieces.append)
    assert "Paris" in reply.text
    assert "".join(pieces) == reply.text
    assert reply.finish_reason == "stop"
    assert 10 < reply.prompt_tokens < 60
    assert 1 <= reply.completion_tokens <= 8
    assert reply.usd == 0.0
    captured = capfd.readouterr()
    assert captured.out + captured.err == "", "llama.cpp's log does not reach the terminal"


@pytest.mark.slow
def test_it_answers_by_schema(chat: LocalChat) -> None:
    assert ask(chat, QUESTION.model_copy(update={"max_tokens": 32}), Capital).city == "Paris"


@pytest.mark.slow
def test_a_conversation_that_is_too_long_is_refused_for_free(chat: LocalChat) -> None:
    long = QUESTION.model_copy(
        update={"messages": (ChatMessage(role="user", content="word " * 6000),)}
    )
    with pytest.raises(RefusedCall, match="too long for this model"):
        chat.complete(long)


@pytest.mark.slow
def test_cancelling_lets_go_within_a_second(chat: LocalChat) -> None:
    asked = threading.Event()
    threading.Timer(1.0, asked.set).start()
    story = QUESTION.model_copy(
        update={
            "messages": (ChatMessage(role="user", content="Count from 1 to 500 in words."),),
            "max_tokens": 2000,
        }
    )
    began = time.monotonic()
    with pytest.raises(Interrupted):
        chat.complete(story, cancelled=asked.is_set)
    assert time.monotonic() - began < 2.5
    assert "Paris" in chat.complete(QUESTION).text, "and it still answers"


@pytest.mark.slow
def test_the_key_guards_it_and_is_no_argument(chat: LocalChat) -> None:
    chat.complete(QUESTION)
    assert chat._chat is not None
    key = chat._chat._wire._key
    process = Path(f"/proc/{chat.process_id}")
    assert key not in (process / "cmdline").read_text()
    assert key not in (process / "environ").read_text()
    chat._chat._wire._key = "another"
    try:
        with pytest.raises(RefusedCall, match="401"):
            chat.complete(QUESTION)
    finally:
        chat._chat._wire._key = key


@pytest.mark.slow
def test_a_server_that_died_is_started_again(weights_file: Path) -> None:
    notices: list[str] = []
    chat = LocalChat(weights_file, notice=notices.append)
    chat.complete(QUESTION)
    first = chat.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert ends(first, 5)
    assert "Paris" in chat.complete(QUESTION).text
    assert chat.process_id != first
    assert any("ended by itself" in notice for notice in notices)
    last = chat.process_id
    assert last is not None
    chat.close()
    assert not running(last)
    chat.close()


PARENT = """
import signal, sys, time
from pathlib import Path
from dragoman.agent.chat_local import LocalChat
from dragoman.core.protocols import ChatMessage, ChatRequest
# Whoever runs the tests in the background hands down that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
chat = LocalChat(Path(sys.argv[1]))
message = ChatMessage(role="user", content="Say yes.")
chat.complete(ChatRequest(purpose="answer", messages=(message,), max_tokens=2))
print(chat.process_id, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_gone_when_its_parent_is_gone(weights_file: Path, with_signal: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(weights_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert running(server)
        os.kill(parent.pid, with_signal)
        parent.wait(10)
        assert ends(server, 3)
