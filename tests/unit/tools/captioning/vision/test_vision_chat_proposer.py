"""An endpoint that sees is shown masked exemplars; what it says is checked and counted."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from dragoman.agent.chat_openai import OpenAIChat
from dragoman.core.settings import Settings
from dragoman.tools.captioning.vision.bench import VisionBench, lay_out
from dragoman.tools.captioning.vision.chat_proposer import UNITS_A_CALL, ChatEye, proposers_of
from dragoman.tools.captioning.vision.describing import choose_all

from .conftest import COLOURS, Gallery

UNITS = range(5)


class Endpoint(HTTPServer):
    """An OpenAI-compatible loopback server: one reply to everything, or a refusal of pictures."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[dict[str, Any]] = []
        self.sees = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.received.append(asked)
        if not self.server.sees:
            self._send(400, "application/json", json.dumps({"error": {"message": "no images"}}))
            return
        pictures = [each for each in asked["messages"][-1]["content"] if each["type"] != "text"]
        neurons = [{"captions": ["objects in green", "a sense of wonder"]}] * len(pictures)
        delta = {"content": json.dumps({"neurons": neurons})}
        events = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        lines = [json.dumps({"id": "1", "object": "chat.completion.chunk", **e}) for e in events]
        body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        self._send(200, "text/event-stream", body)

    def _send(self, code: int, kind: str, body: str) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def chat(endpoint: Endpoint, tmp_path: Path) -> Iterator[OpenAIChat]:
    values = {
        "home": tmp_path,
        "chat_model": "test-eye",
        "OPENAI_API_KEY": SecretStr("k" * 20),
        "OPENAI_BASE_URL": endpoint.url,
    }
    opened = OpenAIChat(Settings.model_validate(values), first_pause_seconds=0.01)
    yield opened
    opened.close()


@pytest.fixture
def bench(gallery: Gallery) -> VisionBench:
    context = gallery.context(gallery.home)
    return lay_out(context, 0, UNITS, gallery.images, n_decoys=4, twin=False)


def test_exemplars_are_shown_and_captions_take_part(
    gallery: Gallery, bench: VisionBench, endpoint: Endpoint, chat: OpenAIChat, tmp_path: Path
) -> None:
    context = gallery.context(tmp_path)
    choices = choose_all(context, bench, proposers=[ChatEye(chat)])
    alive = sum(not bench.captioner.dead(unit) for unit in range(len(UNITS)))
    n_calls = -(-alive // UNITS_A_CALL)
    assert len(endpoint.received) == n_calls
    content = endpoint.received[0]["messages"][-1]["content"]
    assert "bright and outlined" in content[0]["text"]
    assert len(content) == 1 + UNITS_A_CALL
    head, _, data = content[1]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert max(picture.size) <= 1024
    assert choices.n_failed == alive  # each unit's second caption says nothing checkable
    assert choices.cost["test-eye"] == {
        "calls": n_calls,
        "from_cache": 0,
        "calls_per_unit": round(n_calls / alive, 4),
        "replies_per_unit": round(n_calls / alive, 4),
    }
    again = choose_all(context, bench, proposers=[ChatEye(chat)])
    assert len(endpoint.received) == n_calls
    assert again.replies_per_unit == choices.replies_per_unit == {"test-eye": n_calls / alive}
    green = choices.chosen[COLOURS.index("green")]
    assert green is not None
    assert "green" in green.candidate.caption


def test_replies_are_cached_by_content(
    gallery: Gallery, bench: VisionBench, endpoint: Endpoint, chat: OpenAIChat, tmp_path: Path
) -> None:
    context = gallery.context(tmp_path)
    first = ChatEye(chat).suggest(context, bench, [0, 1, 3])
    again = ChatEye(chat).suggest(context, bench, [0, 1, 3])
    assert len(endpoint.received) <= 1
    assert (again.n_calls, again.n_cached) == (0, 1)
    assert again.captions == first.captions
    assert first.captions[0] == ("objects in green", "a sense of wonder")


def test_a_model_that_cannot_see_is_asked_once(
    gallery: Gallery, bench: VisionBench, endpoint: Endpoint, chat: OpenAIChat, tmp_path: Path
) -> None:
    endpoint.sees = False
    units = [*UNITS, 0, 1, 2, 3, 4][:9]
    found = ChatEye(chat).suggest(gallery.context(tmp_path), bench, units[::-1])
    assert found.captions == [()] * 9
    assert (found.n_calls, found.n_failed) == (1, 9)


def test_the_chat_model_on_this_machine_is_not_asked(gallery: Gallery, tmp_path: Path) -> None:
    assert proposers_of(gallery.context(tmp_path)) == []
