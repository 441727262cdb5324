"""One streamed call of an OpenAI-compatible endpoint: whole, in time, and within bounds.

The client library retries nothing, follows no redirect and sees no compressed or endless body. All
that can go wrong on the wire ends as `RefusedCall` (free) or `BrokenReply` (perhaps paid for), in
one line without the key. The library runs in an event loop on a thread of its own, since a dripping
reply can be stopped in time only from outside the read.
"""

import asyncio
import json
import math
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from dragoman.agent.chat_errors import BrokenReply, RefusedCall
from dragoman.core.errors import ChatError
from dragoman.core.escaping import visible, well_formed
from dragoman.core.protocols import Cancelled, TokenProbability, stop_if
from dragoman.core.records import JsonObject

_CONNECT_SECONDS = 15.0
_POLL_SECONDS = 0.05
_LET_GO_SECONDS = 2.0
_BYTES_PER_TOKEN = 8192
_BYTES_AT_LEAST = 1 << 20
_DETAIL_CHARACTERS = 200
_KEY_PIECE = 8
_ENDINGS = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}

T = TypeVar("T")


class WireReply(NamedTuple):
    """A reply that has an end; token counts are None where the endpoint gave none."""

    text: str
    arguments: str | None
    """Of the first tool call, as the endpoint spelled them."""
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    first_tokens: tuple[TokenProbability, ...] = ()
    """The likeliest first tokens, where the endpoint tells them."""


class Wire:
    """A connection to one endpoint; used by one call at a time."""

    def __init__(self, base_url: str, key: str, *, trust_environment: bool = True) -> None:
        """`trust_environment`: whether proxies named in the environment are used."""
        self._key = key
        self._base_url = base_url
        self._trust_environment = trust_environment
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.host = urlsplit(base_url).netloc.rpartition("@")[2]
        """Host and port."""

    def send(
        self,
        body: JsonObject,
        *,
        seconds: float,
        on_text: Callable[[str], None] | None,
        cancelled: Cancelled,
    ) -> WireReply:
        """One chat completion, streamed to `on_text`, in `seconds` altogether.

        Raises:
            RefusedCall: the endpoint cannot be reached or turned the call down.
            BrokenReply: no whole reply, or one that is no chat completion.
            Interrupted: `cancelled()` came true; the stream is closed by then.
        """
        pieces: queue.SimpleQueue[str] = queue.SimpleQueue()
        call = self._start(self._receive(body, pieces.put, seconds))
        try:
            while not (call.done() and pieces.empty()):
                stop_if(cancelled)
                try:
                    piece = pieces.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if on_text is not None:
                    on_text(piece)
        finally:
            if not call.done():
                call.cancel()
                wait([call], timeout=_LET_GO_SECONDS)
        return call.result()

    def close(self) -> None:
        """End the thread and its connections; safe to call twice."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_LET_GO_SECONDS)
        self._loop = self._thread = None

    def _start(self, call: Coroutine[Any, Any, T]) -> "Future[T]":
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run, args=(self._loop,), name="chat", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    async def _receive(
        self, body: JsonObject, emit: Callable[[str], None], seconds: float
    ) -> WireReply:
        wanted = body.get("max_tokens", body.get("max_completion_tokens"))
        most = _BYTES_AT_LEAST + _BYTES_PER_TOKEN * (wanted if isinstance(wanted, int) else 0)
        reading = _Reading()
        try:
            async with asyncio.timeout(seconds), self._client(reading, most) as client:
                create: Any = client.chat.completions.create
                async with await create(stream=True, **body) as stream:
                    async for chunk in stream:
                        _take(chunk, reading, emit)
        except ChatError:
            raise
        except TimeoutError:
            raise BrokenReply(
                f"{self.host} gave no whole reply in {seconds:.0f} s; raise "
                "DRAGOMAN_CHAT_TIMEOUT_SECONDS or ask for less"
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIError as error:
            raise self._lost(error) from None
        # What the client library and its parsers let through, each seen with a broken endpoint.
        except (
            openai.OpenAIError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            ValueError,
            AttributeError,
            TypeError,
            AssertionError,
            RecursionError,
        ) as error:
            raise self._nonsense(reading, f"{type(error).__name__}: {error}") from None
        if reading.ending is None:
            raise self._nonsense(reading, "the stream ended without a finish reason")
        if reading.ending not in _ENDINGS:
            raise BrokenReply(
                f"{self.host} ended its reply with {self._shown(reading.ending)!r}; "
                "put the question in other words, or use another chat model"
            )
        return WireReply(
            text=well_formed("".join(reading.text)),
            arguments=well_formed("".join(reading.arguments)) if reading.arguments else None,
            finish_reason=_ENDINGS[reading.ending],
            prompt_tokens=reading.prompt_tokens,
            completion_tokens=reading.completion_tokens,
            first_tokens=reading.first_tokens or (),
        )

    def _client(self, reading: "_Reading", most_bytes: int) -> openai.AsyncOpenAI:
        async def inspect(response: httpx2.Response) -> None:
            reading.content_type = response.headers.get("content-type", "")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BrokenReply(f"{self.host} sent a compressed reply, which is not accepted")
            if isinstance(response.stream, httpx2.AsyncByteStream):
                response.stream = _Bounded(response.stream, most_bytes, self.host)

        http = httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=self._trust_environment,
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            event_hooks={"response": [inspect]},
        )
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )

    def _refusal(self, error: openai.APIStatusError) -> RefusedCall:
        status, detail = error.status_code, self._shown(_message(error))
        known = f"{error.code} {error.type} {detail}".lower()
        temporary, retry_after = False, None
        if status in (401, 403):
            # Its words are left out: some endpoints repeat the key in them.
            detail, advice = "", "it does not accept the key; check OPENAI_API_KEY"
        elif 300 <= status < 400:
            detail, advice = "", "it redirects elsewhere; set OPENAI_BASE_URL to the final address"
        elif status == 404:
            advice = "check DRAGOMAN_CHAT_MODEL and OPENAI_BASE_URL"
        elif "insufficient_quota" in known:
            advice = "the quota is used up; check plan and billing"
        elif _is_too_long(known):
            advice = "the conversation is too long for this model; use one with a larger context"
        elif status in (408, 409, 429) or status >= 500:
            temporary, retry_after = True, _seconds(error.response.headers.get("retry-after"))
            advice = "try again later, then resume"
        else:
            advice = "check DRAGOMAN_CHAT_MODEL and what the endpoint supports"
        said = f": {detail}" if detail else ""
        return RefusedCall(
            f"{self.host} refused the call with status {status}{said}; {advice}",
            status=status,
            detail="too long" if _is_too_long(known) else f"{error.param or ''} {detail}".strip(),
            temporary=temporary,
            retry_after_seconds=retry_after,
        )

    def _lost(self, error: openai.APIError) -> ChatError:
        cause = error.__cause__
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            return RefusedCall(
                f"{self.host} cannot be reached ({self._shown(str(cause)) or 'time-out'}); check "
                "OPENAI_BASE_URL and the network",
                temporary=True,
            )
        if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
            return RefusedCall(
                f"{self.host}: {self._shown(str(cause))}; check OPENAI_BASE_URL and OPENAI_API_KEY"
            )
        if cause is not None:
            return BrokenReply(
                f"the connection to {self.host} broke off ({type(cause).__name__}); try again",
                temporary=True,
            )
        return BrokenReply(
            f"{self.host} ended its reply with an error: {self._shown(_message(error))}; try again",
            temporary=True,
        )

    def _nonsense(self, reading: "_Reading", why: str) -> BrokenReply:
        if not reading.content_type.startswith("text/event-stream"):
            kind = self._shown(reading.content_type) or "nothing"
            return BrokenReply(
                f"{self.host} answered with {kind} instead of a stream of chat text; check "
                "OPENAI_BASE_URL (it usually ends in /v1)"
            )
        return BrokenReply(
            f"{self.host} sent a reply that cannot be used ({self._shown(why)}); try again, or "
            "use another endpoint",
            temporary=True,
        )

    def _shown(self, foreign: str) -> str:
        """Foreign text on one line: short, without control characters and without the key."""
        for start in range(max(1, len(self._key) - _KEY_PIECE + 1)):
            foreign = foreign.replace(self._key[start : start + _KEY_PIECE], "…")
        return visible(well_formed(foreign)[:_DETAIL_CHARACTERS], one_line=True)


class _Reading:
    """What has arrived of a reply."""

    def __init__(self) -> None:
        self.content_type = ""
        self.text: list[str] = []
        self.arguments: list[str] = []
        self.ending: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.first_tokens: tuple[TokenProbability, ...] | None = None


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends in an error when it is longer than any honest reply."""

    def __init__(self, stream: httpx2.AsyncByteStream, most_bytes: int, host: str) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._host = host

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for part in self._stream:
            seen += len(part)
            if seen > self._most_bytes:
                raise BrokenReply(
                    f"{self._host} sent more than {self._most_bytes} bytes for one reply; "
                    "use another endpoint"
                )
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _take(chunk: Any, reading: _Reading, emit: Callable[[str], None]) -> None:
    """Add one chunk; the client library has not checked it, so any part may be anything."""
    if (usage := getattr(chunk, "usage", None)) is not None:
        reading.prompt_tokens = _count(getattr(usage, "prompt_tokens", None))
        reading.completion_tokens = _count(getattr(usage, "completion_tokens", None))
    for choice in getattr(chunk, "choices", None) or []:
        if (ending := getattr(choice, "finish_reason", None)) is not None:
            reading.ending = str(ending)
        if reading.first_tokens is None:
            reading.first_tokens = _likeliest(getattr(choice, "logprobs", None))
        delta = getattr(choice, "delta", None)
        if content := getattr(delta, "content", None):
            if not isinstance(content, str):
                raise TypeError("its text is no string")
            reading.text.append(content)
            emit(well_formed(content))
        for call in getattr(delta, "tool_calls", None) or []:
            if getattr(call, "index", 0) in (0, None):
                reading.arguments.append(_spelled(call.function.arguments))


def _likeliest(logprobs: Any) -> tuple[TokenProbability, ...] | None:
    """The alternatives to the first token; None in a chunk without any."""
    tokens = getattr(logprobs, "content", None)
    if not isinstance(tokens, list) or not tokens:
        return None
    found = []
    for each in getattr(tokens[0], "top_logprobs", None) or []:
        token, value = getattr(each, "token", None), getattr(each, "logprob", None)
        # Some endpoints send null or positive values for tokens of probability nought or one.
        if isinstance(token, str) and isinstance(value, int | float) and value <= 1e-3:
            probability = min(1.0, math.exp(value))
            found.append(TokenProbability(token=well_formed(token), probability=probability))
    return tuple(found)


def _spelled(arguments: Any) -> str:
    if isinstance(arguments, dict):  # some endpoints send the object itself
        return json.dumps(arguments)
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    raise TypeError("its tool arguments are no string")


def _count(number: Any) -> int | None:
    is_count = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    return number if is_count else None


def _message(error: openai.APIError) -> str:
    if isinstance(error.body, dict) and isinstance(error.body.get("message"), str):
        return str(error.body["message"])
    return "" if "<" in error.message else error.message


def _is_too_long(known: str) -> bool:
    return "context_length" in known or "context length" in known or "context size" in known


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
