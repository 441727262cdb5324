"""Whatever an endpoint does, the call ends in time, in one line, and without the key."""

import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dragoman.agent.budget import prompt_tokens_max
from dragoman.agent.chat_errors import BrokenReply, RefusedCall
from dragoman.agent.chat_openai import ATTEMPTS, OpenAIChat
from dragoman.core.errors import ChatError, ImagesRefused, Interrupted
from dragoman.core.protocols import ChatImage, ChatMessage, ChatReply, ChatRequest
from dragoman.core.settings import Settings

KEY = "sk-canary-0123456789abcdef"
REQUEST = ChatRequest(
    purpose="plan", messages=(ChatMessage(role="user", content="hello"),), max_tokens=16
)
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}
ASKING_JSON = REQUEST.model_copy(update={"json_schema": SCHEMA})
EVENTS = "Content-Type: text/event-stream\r\nConnection: close\r\n"


class Sent(dict[str, Any]):
    """The JSON body of a request that arrived."""


Handler = Callable[[socket.socket, Sent], None]


class Endpoint:
    """A raw loopback server: one handler writes bytes as it likes, one connection at a time."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.handler: Handler = lambda connection, sent: None
        self.received: list[Sent] = []
        self.heads: list[str] = []
        self.gone = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                (length,) = (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                while len(body) < length:
                    body += connection.recv(65536)
                self.heads.append(head.decode())
                self.received.append(Sent(json.loads(body)))
                try:
                    self.handler(connection, self.received[-1])
                except OSError:
                    self.gone.set()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def chat(endpoint: Endpoint, tmp_path: Path) -> Iterator[OpenAIChat]:
    opened = OpenAIChat(settings(endpoint.url, tmp_path), first_pause_seconds=0.01)
    yield opened
    opened.close()


def settings(url: str, home: Path, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "home": home,
            "chat_model": "test-model",
            "chat_timeout_seconds": 5.0,
            "OPENAI_API_KEY": SecretStr(KEY),
            "OPENAI_BASE_URL": url,
            **more,
        }
    )


def chunk(content: str | None = None, ending: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": ending}
    return {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}


USAGE = {"id": "1", "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}


def stream(*chunks: Any, head: str = EVENTS) -> Handler:
    lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in chunks]
    return raw(f"HTTP/1.1 200 OK\r\n{head}\r\n" + "".join(lines))


def said(text: str) -> Handler:
    return stream(chunk(text), chunk(ending="stop"), USAGE, "[DONE]")


def raw(answer: str | bytes) -> Handler:
    data = answer.encode() if isinstance(answer, str) else answer
    return lambda connection, sent: connection.sendall(data)


def status(code: int, body: Any, head: str = "") -> Handler:
    text = body if isinstance(body, str) else json.dumps(body)
    return raw(
        f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nConnection: close\r\n{head}"
        f"Content-Length: {len(text.encode())}\r\n\r\n{text}"
    )


def fault(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "code": code, "param": param}}


def in_turn(*handlers: Handler) -> Handler:
    left = list(handlers)

    def handle(connection: socket.socket, sent: Sent) -> None:
        left.pop(0)(connection, sent)

    return handle


def test_a_reply_is_streamed_counted_and_priced(endpoint: Endpoint, tmp_path: Path) -> None:
    prices = {"usd_per_million_prompt_tokens": 1e6, "usd_per_million_completion_tokens": 2e6}
    chat = OpenAIChat(settings(endpoint.url, tmp_path, **prices))
    endpoint.handler = stream(chunk("Par"), chunk("is"), chunk(ending="stop"), USAGE, "[DONE]")
    pieces: list[str] = []
    reply = chat.complete(REQUEST, on_text=pieces.append)
    assert pieces == ["Par", "is"]
    assert reply == ChatReply(
        text="Paris", finish_reason="stop", prompt_tokens=11, completion_tokens=3, usd=17.0
    )
    (sent,) = endpoint.received
    assert sent["model"] == "test-model"
    assert sent["max_tokens"] == 16
    assert sent["messages"] == [{"role": "user", "content": "hello"}]
    assert f"Bearer {KEY}" in endpoint.heads[0]
    assert KEY not in chat.identity.model_dump_json()
    assert chat.identity.endpoint == endpoint.url.split("/")[2]
    chat.close()
    chat.close()


def test_tokens_that_nobody_counted_are_charged_at_their_bound(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    endpoint.handler = stream(chunk("hi"), chunk(ending="stop"), "[DONE]")
    reply = chat.complete(REQUEST)
    assert (reply.prompt_tokens, reply.completion_tokens) == (5 + 64, 16)
    assert reply.usd is None, "the price of this endpoint is not known"


def test_a_surrogate_in_a_reply_is_normalised(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = said("a\ud800b")
    assert chat.complete(REQUEST).text == "a\ufffdb"
    hostile = (ChatMessage(role="user", content="\ud800"),)
    chat.complete(REQUEST.model_copy(update={"messages": hostile}))
    assert endpoint.received[1]["messages"][0]["content"] == "\ufffd"


ECHO = f"Incorrect API key provided: {KEY}. Masked: {KEY[:12]}"
ONE_REQUEST: list[tuple[str, Handler, type[ChatError], str]] = [
    ("401 that repeats the key", status(401, fault(ECHO)), RefusedCall, "OPENAI_API_KEY"),
    ("400 that repeats the key", status(400, fault(ECHO)), RefusedCall, "status 400"),
    ("403", status(403, "no"), RefusedCall, "OPENAI_API_KEY"),
    ("404", status(404, fault("no such model")), RefusedCall, "no such model; check DRAGOMAN_CHAT"),
    ("quota", status(429, fault("m", "insufficient_quota")), RefusedCall, "quota is used up"),
    ("too long", status(400, fault("m", "context_length_exceeded")), RefusedCall, "too long"),
    ("redirect", status(307, "", "Location: http://127.0.0.1:1/v1\r\n"), RefusedCall, "redirects"),
    ("retry in an hour", status(429, fault("m"), "Retry-After: 3600\r\n"), RefusedCall, "later"),
    ("html", raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>"), BrokenReply, "/v1"),
    ("nothing", raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), BrokenReply, "nothing inst"),
    ("an error with status 200", status(200, fault("oops")), BrokenReply, "application/json"),
    ("a document", status(200, {"choices": [{"message": {}}]}), BrokenReply, "application/json"),
    ("choices null", stream({"choices": None}, "[DONE]"), BrokenReply, "finish reason"),
    ("bad json", stream("{"), BrokenReply, "JSONDecodeError"),
    ("a list", stream([1]), BrokenReply, "cannot be used"),
    ("text is a number", stream({"choices": [{"delta": {"content": 3}}]}), BrokenReply, "string"),
    ("choices a number", stream({"choices": 3}), BrokenReply, "cannot be used"),
    ("no utf-8", raw(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\ndata: ".encode() + b'"\xff\xfe"\n\n'),
     BrokenReply, "cannot be used"),
    ("deep", stream("[" * 100_000), BrokenReply, "cannot be used"),
    ("no ending", stream(chunk("half"), "[DONE]"), BrokenReply, "without a finish reason"),
    ("cut off", raw(f"HTTP/1.1 200 OK\r\n{EVENTS}Content-Length: 999\r\n\r\ndata: {{}}\n\n"),
     BrokenReply, "broke off"),
    ("error in the stream", stream(chunk("a"), fault("overloaded")), BrokenReply, "overloaded"),
    ("filtered", stream(chunk("a", "content_filter")), BrokenReply, "content_filter"),
    ("hung up", raw(""), BrokenReply, "broke off"),
    ("no http", raw("SSH-2.0-OpenSSH\r\n"), BrokenReply, "broke off"),
    ("gzip", raw(f"HTTP/1.1 200 OK\r\n{EVENTS}Content-Encoding: gzip\r\n\r\n".encode()
                 + zlib.compress(bytes(1 << 20))), BrokenReply, "compressed"),
    ("endless", raw(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n" + (":" + "x" * 998 + "\n") * 2400),
     BrokenReply, "more than"),
    ("terminal codes", status(400, fault("\x1b]52;c;x\x07\r\nok")), RefusedCall, r"\\x1b"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [case[1:] for case in ONE_REQUEST],
    ids=[case[0] for case in ONE_REQUEST],
)
def test_a_fault_is_one_line_after_one_request(
    endpoint: Endpoint, chat: OpenAIChat, handler: Handler, kind: type[ChatError], message: str
) -> None:
    endpoint.handler = handler
    with pytest.raises(kind, match=message) as caught:
        chat.complete(REQUEST)
    assert type(caught.value) is kind
    assert len(endpoint.received) == 1
    text = str(caught.value)
    assert text.isprintable()
    assert not any(KEY[start : start + 8] in text for start in range(len(KEY) - 7))


@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 529])
def test_a_passing_fault_is_tried_again(endpoint: Endpoint, chat: OpenAIChat, code: int) -> None:
    endpoint.handler = in_turn(status(code, fault("busy")), status(code, "<html>"), said("ok"))
    assert chat.complete(REQUEST).text == "ok"
    assert len(endpoint.received) == 3


def test_a_lasting_fault_ends(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = status(503, fault("busy"))
    with pytest.raises(RefusedCall, match="503: busy; try again later"):
        chat.complete(REQUEST)
    assert len(endpoint.received) == ATTEMPTS <= 5


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    chat = OpenAIChat(settings(f"http://127.0.0.1:{port}/v1", tmp_path), first_pause_seconds=0.01)
    with pytest.raises(RefusedCall, match=f"127.0.0.1:{port} cannot be reached"):
        chat.complete(REQUEST)
    chat.close()


def dripping(connection: socket.socket, sent: Sent) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode())
    while True:
        connection.sendall(f"data: {json.dumps(chunk('x'))}\n\n".encode())
        time.sleep(0.05)


def pinging(connection: socket.socket, sent: Sent) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode())
    while True:
        connection.sendall(b": ping\n\n")
        time.sleep(0.05)


def dripping_head(connection: socket.socket, sent: Sent) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: y\r\n")
        time.sleep(0.05)


def silent(connection: socket.socket, sent: Sent) -> None:
    connection.settimeout(20)
    if not connection.recv(1):
        raise OSError("the client has gone")


SLOW = [dripping, pinging, dripping_head, silent]


@pytest.mark.parametrize("handler", SLOW)
def test_the_deadline_holds_for_the_whole_call(
    endpoint: Endpoint, tmp_path: Path, handler: Handler
) -> None:
    endpoint.handler = handler
    chat = OpenAIChat(settings(endpoint.url, tmp_path, chat_timeout_seconds=0.5))
    began = time.monotonic()
    with pytest.raises(BrokenReply, match="DRAGOMAN_CHAT_TIMEOUT_SECONDS"):
        chat.complete(REQUEST)
    assert time.monotonic() - began < 2.5
    assert endpoint.gone.wait(2), "the connection was closed"
    chat.close()


class Stop:
    """A person who asks to stop a moment after a request has arrived."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked_at = float("inf")

    def handle(self, connection: socket.socket, sent: Sent) -> None:
        self.asked_at = time.monotonic() + 0.2
        self.handler(connection, sent)

    def cancelled(self) -> bool:
        return time.monotonic() >= self.asked_at


@pytest.mark.parametrize("handler", SLOW)
def test_cancelling_closes_the_stream(
    endpoint: Endpoint, chat: OpenAIChat, handler: Handler
) -> None:
    stop = Stop(handler)
    endpoint.handler = stop.handle
    with pytest.raises(Interrupted):
        chat.complete(REQUEST, cancelled=stop.cancelled)
    assert time.monotonic() - stop.asked_at < 1.0
    assert endpoint.gone.wait(2), "the connection was closed"


def test_cancelling_between_attempts(endpoint: Endpoint, tmp_path: Path) -> None:
    stop = Stop(status(503, "busy", "Retry-After: 4\r\n"))
    endpoint.handler = stop.handle
    chat = OpenAIChat(settings(endpoint.url, tmp_path))
    with pytest.raises(Interrupted):
        chat.complete(REQUEST, cancelled=stop.cancelled)
    assert time.monotonic() - stop.asked_at < 1.0
    assert len(endpoint.received) == 1
    chat.close()


def test_an_exception_of_the_listener_is_its_own_and_ends_the_call(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    endpoint.handler = dripping

    def explode(piece: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        chat.complete(REQUEST, on_text=explode)
    assert endpoint.gone.wait(2)


def uses(sent: Sent) -> str:
    if "response_format" in sent:
        return "schema"
    return "tools" if "tools" in sent else "prompt"


def only(supported: str, answer: Handler) -> Handler:
    """An endpoint that refuses every other way of asking for JSON."""
    refusal = status(400, fault("response_format or tools are not supported"))
    return lambda connection, sent: (answer if uses(sent) == supported else refusal)(
        connection, sent
    )


TOOL_CALL = stream(
    chunk(tool_calls=[{"index": 0, "id": "1", "function": {"name": "reply", "arguments": '{"x"'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}], ending="tool_calls"),
    USAGE,
    "[DONE]",
)


@pytest.mark.parametrize(
    ("supported", "answer", "requests"),
    [("schema", said('{"x": 1}'), 1), ("tools", TOOL_CALL, 2), ("prompt", said('{"x": 1}'), 3)],
)
def test_how_to_ask_for_json_is_found_out_once(
    endpoint: Endpoint, tmp_path: Path, supported: str, answer: Handler, requests: int
) -> None:
    endpoint.handler = only(supported, answer)
    for _ in range(2):  # the second time in a new process, as it were
        chat = OpenAIChat(settings(endpoint.url, tmp_path))
        assert chat.complete(ASKING_JSON).text == '{"x": 1}'
        chat.close()
    assert [uses(sent) for sent in endpoint.received][requests - 1 :] == [supported] * 2
    assert len(endpoint.received) == requests + 1
    other = OpenAIChat(settings(endpoint.url, tmp_path, chat_model="other"))
    other.complete(ASKING_JSON)
    other.close()
    assert uses(endpoint.received[requests + 1]) == "schema", "each model is asked for itself"


def test_what_is_sent_to_ask_for_json(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = only("prompt", said("{}"))
    chat.complete(ASKING_JSON)
    by_schema, by_tools, by_prompt = endpoint.received
    assert by_schema["response_format"]["json_schema"] == {
        "name": "reply",
        "schema": SCHEMA,
        "strict": True,
    }
    assert by_tools["tools"][0]["function"]["parameters"] == SCHEMA
    assert by_tools["tool_choice"]["function"]["name"] == "reply"
    assert '"required":["x"]' in by_prompt["messages"][-1]["content"]


def test_an_endpoint_that_ignores_the_schema_is_asked_otherwise_next_time(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    endpoint.handler = said("Sure! Here is x.")
    assert chat.complete(ASKING_JSON).text == "Sure! Here is x."
    endpoint.handler = TOOL_CALL
    reply = chat.complete(ASKING_JSON)
    assert (reply.text, reply.finish_reason) == ('{"x": 1}', "tool_calls")
    assert [uses(sent) for sent in endpoint.received] == ["schema", "tools"]


def test_a_proven_way_is_kept_when_one_reply_is_bad(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = in_turn(said('{"x": 1}'), said("oops"), said('{"x": 2}'))
    for _ in range(3):
        chat.complete(ASKING_JSON)
    assert [uses(sent) for sent in endpoint.received] == ["schema"] * 3


def test_parameters_that_an_endpoint_does_not_take_are_left_out(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    def picky(connection: socket.socket, sent: Sent) -> None:
        for name in ("max_tokens", "temperature", "stream_options"):
            if name in sent:
                message = f"Unsupported parameter: '{name}' is not supported with this model"
                return status(400, fault(message, "unsupported_parameter", name))(connection, sent)
        return said("fine")(connection, sent)

    endpoint.handler = picky
    assert chat.complete(REQUEST).text == "fine"
    assert len(endpoint.received) == 4
    assert chat.complete(REQUEST).text == "fine"
    assert len(endpoint.received) == 5
    assert endpoint.received[-1]["max_completion_tokens"] == 16
    assert endpoint.received[-1]["seed"] == 0


def test_a_damaged_memory_of_endpoints_is_as_good_as_none(
    endpoint: Endpoint, chat: OpenAIChat, tmp_path: Path
) -> None:
    remembered = tmp_path / "cache" / "endpoints.json"
    remembered.parent.mkdir()
    for content in ("{", "[]", '{"x": 1}', "\x00"):
        remembered.write_text(content)
        endpoint.handler = said('{"x": 1}')
        assert chat.complete(ASKING_JSON).text == '{"x": 1}'
    assert KEY not in remembered.read_text()


PICTURE = ChatImage(media_type="image/png", base64="iVBORw0KGgo=")
SHOWING = ChatRequest(
    purpose="caption",
    messages=(
        ChatMessage(role="system", content="look"),
        ChatMessage(role="user", content="what is this?", images=(PICTURE, PICTURE)),
    ),
)


def test_pictures_go_out_as_parts_after_the_text(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = said("a dog")
    assert chat.complete(SHOWING).text == "a dog"
    first, second = endpoint.received[0]["messages"]
    assert first["content"] == "look"
    text, *pictures = second["content"]
    assert text == {"type": "text", "text": "what is this?"}
    url = {"url": "data:image/png;base64,iVBORw0KGgo="}
    assert pictures == [{"type": "image_url", "image_url": url}] * 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "Invalid content type. image_url is only supported by certain models."),
        (422, "messages.1.content must be a string"),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
    ],
)
def test_a_model_that_takes_no_pictures_is_told_apart(
    endpoint: Endpoint, chat: OpenAIChat, code: int, message: str
) -> None:
    endpoint.handler = status(code, fault(message))
    with pytest.raises(ImagesRefused, match="refused the call"):
        chat.complete(SHOWING)
    with pytest.raises(ChatError) as error:
        chat.complete(REQUEST)
    assert not isinstance(error.value, ImagesRefused)


def test_another_refusal_of_pictures_stays_what_it_is(endpoint: Endpoint, chat: OpenAIChat) -> None:
    endpoint.handler = status(401, fault("no such key for image models"))
    with pytest.raises(RefusedCall, match="check OPENAI_API_KEY") as error:
        chat.complete(SHOWING)
    assert not isinstance(error.value, ImagesRefused)


def test_a_budget_counts_pictures() -> None:
    text = SHOWING.model_copy(
        update={
            "messages": tuple(ChatMessage(role=m.role, content=m.content) for m in SHOWING.messages)
        }
    )
    assert prompt_tokens_max(SHOWING) == prompt_tokens_max(text) + 2 * 26_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "set OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": SecretStr("  ")}, "set OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "localhost:8000"}, "looks like https"),
        ({"OPENAI_BASE_URL": "ftp://x"}, "looks like https"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ChatError, match=message):
        OpenAIChat(Settings.model_validate(values))


ASKING_TOKENS = REQUEST.model_copy(update={"first_tokens": 3, "max_tokens": 1})


def test_the_likeliest_first_tokens_come_with_the_reply(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    told: list[dict[str, Any]] = [
        {"token": "yes", "logprob": -0.5, "bytes": None},
        {"token": "no", "logprob": -1.0, "bytes": None},
        {"token": "never", "logprob": None, "bytes": None},
    ]
    first = chunk("yes")
    first["choices"][0]["logprobs"] = {"content": [{**told[0], "top_logprobs": told}]}
    second = chunk(" indeed")
    second["choices"][0]["logprobs"] = {"content": [{**told[1], "top_logprobs": told[1:]}]}
    endpoint.handler = stream(first, second, chunk(ending="length"))
    reply = chat.complete(ASKING_TOKENS)
    assert {each.token: each.probability for each in reply.first_tokens} == {
        "yes": pytest.approx(0.6065, abs=1e-4),
        "no": pytest.approx(0.3679, abs=1e-4),
    }
    assert endpoint.received[0]["logprobs"] is True
    assert endpoint.received[0]["top_logprobs"] == 3


@pytest.mark.parametrize("logprobs", [None, {}, {"content": []}, {"content": None}, 7])
def test_an_endpoint_may_tell_no_probabilities(
    endpoint: Endpoint, chat: OpenAIChat, logprobs: Any
) -> None:
    told = chunk("yes")
    told["choices"][0]["logprobs"] = logprobs
    endpoint.handler = stream(told, chunk(ending="length"))
    reply = chat.complete(ASKING_TOKENS)
    assert (reply.text, reply.first_tokens) == ("yes", ())
    plain = chat.complete(REQUEST)
    assert plain.first_tokens == ()
    assert "logprobs" not in endpoint.received[1]


def test_an_endpoint_that_refuses_to_tell_probabilities_is_asked_without(
    endpoint: Endpoint, chat: OpenAIChat
) -> None:
    refusal = status(400, fault("unsupported", param="logprobs"))

    def picky(connection: socket.socket, sent: Sent) -> None:
        (refusal if "logprobs" in sent else said("yes"))(connection, sent)

    endpoint.handler = picky
    assert chat.complete(ASKING_TOKENS).text == "yes"
    assert "top_logprobs" not in endpoint.received[-1]
