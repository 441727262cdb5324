"""Chat through an OpenAI-compatible endpoint.

A call that was refused for free (no connection, 429, 5xx) is tried again, with growing pauses and
within the call's total time. What may have cost something is never repeated here.
"""

import time
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

import tenacity
from pydantic import JsonValue

from dragoman.agent.budget import FREE, Price, price_of, prompt_tokens_max
from dragoman.agent.chat_errors import BlindModel, RefusedCall
from dragoman.agent.chat_wire import Wire, WireReply
from dragoman.agent.endpoint_traits import Traits, TraitsFile
from dragoman.agent.structured import is_json_object
from dragoman.core.errors import ChatError
from dragoman.core.escaping import well_formed
from dragoman.core.protocols import (
    Cancelled,
    ChatMessage,
    ChatReply,
    ChatRequest,
    never,
    stop_if,
)
from dragoman.core.records import ChatIdentity, JsonObject, canonical_json
from dragoman.core.settings import Settings
from dragoman.prompts import render

OPENAI_URL = "https://api.openai.com/v1"
ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_REPLY_TOOL = "reply"


class EndpointChat:
    """A chat model behind a `Wire`; what the endpoint supports is found out by asking."""

    def __init__(
        self,
        wire: Wire,
        identity: ChatIdentity,
        traits_file: TraitsFile | None,
        *,
        timeout_seconds: float,
        price: Price | None = FREE,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        """`timeout_seconds`: for a whole call, pauses and further attempts included.

        Without a `traits_file` the endpoint is known to take JSON schemas, as llama.cpp does.
        """
        self.identity = identity
        self._wire = wire
        self._traits = traits_file
        self._name = f"{wire.host} {identity.model}"
        self._timeout_seconds = timeout_seconds
        self._price = price
        self._first_pause_seconds = first_pause_seconds

    def complete(
        self,
        request: ChatRequest,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancelled = never,
    ) -> ChatReply:
        """One whole reply; raises `RefusedCall`, `BlindModel`, `BrokenReply` or `Interrupted`."""
        shows = any(message.images for message in request.messages)
        if shows and self.identity.kind == "local":
            raise BlindModel(f"{self.identity.model} reads text only; use a chat model that sees")
        deadline = time.monotonic() + self._timeout_seconds
        known = Traits(proven=True) if self._traits is None else self._traits.load(self._name)
        try:
            reply, traits = self._negotiated(request, known, deadline, on_text, cancelled)
        except RefusedCall as error:
            if shows and _is_about_images(error):
                raise BlindModel(str(error), status=error.status, detail=error.detail) from None
            raise
        text = reply.text if reply.arguments is None else reply.arguments
        if (
            request.json_schema is not None
            and not traits.proven
            and reply.finish_reason != "length"
        ):
            traits = _judged(traits, text)
        if self._traits is not None and traits != known:
            self._traits.save(self._name, traits)
        return self._finished(request, reply, text)

    def close(self) -> None:
        """Close the wire; safe to call twice."""
        self._wire.close()

    def _negotiated(
        self,
        request: ChatRequest,
        traits: Traits,
        deadline: float,
        on_text: Callable[[str], None] | None,
        cancelled: Cancelled,
    ) -> tuple[WireReply, Traits]:
        """A reply, and the traits under which the endpoint gave it."""
        structured = request.json_schema is not None
        while True:
            body = self._body(request, traits)
            try:
                return self._attempts(body, deadline, on_text, cancelled), traits
            except RefusedCall as error:
                if error.status not in (400, 422) or error.detail == "too long":
                    raise
                other = traits.after_refusal(error.detail, structured=structured)
                if other is None:
                    raise
                traits = other

    def _attempts(
        self,
        body: JsonObject,
        deadline: float,
        on_text: Callable[[str], None] | None,
        cancelled: Cancelled,
    ) -> WireReply:
        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.retry_after_seconds if isinstance(error, RefusedCall) else None
            usual = self._first_pause_seconds * 2 ** (state.attempt_number - 1)
            return min(usual, _LONGEST_PAUSE_SECONDS) if asked is None else asked

        def sleep(seconds: float) -> None:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                stop_if(cancelled)
                time.sleep(min(left, 0.1))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, RefusedCall) and error.temporary
            ),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(ATTEMPTS),
                tenacity.stop_before_delay(max(0.0, deadline - time.monotonic())),
            ),
            wait=pause,
            sleep=sleep,
            reraise=True,
        )
        return retrying(
            lambda: self._wire.send(
                body,
                seconds=max(0.1, deadline - time.monotonic()),
                on_text=on_text,
                cancelled=cancelled,
            )
        )

    def _body(self, request: ChatRequest, traits: Traits) -> JsonObject:
        messages: list[JsonValue] = [
            {"role": message.role, "content": _content(message)} for message in request.messages
        ]
        body: JsonObject = {
            "model": self.identity.model,
            "messages": messages,
            traits.tokens_parameter: request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream_options": {"include_usage": True},
        }
        if request.first_tokens and "logprobs" not in traits.left_out:
            body |= {"logprobs": True, "top_logprobs": request.first_tokens}
        schema = request.json_schema
        if schema is not None and traits.structured == "schema":
            named: JsonObject = {"name": _REPLY_TOOL, "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif schema is not None and traits.structured == "tools":
            body["tools"] = [
                {"type": "function", "function": {"name": _REPLY_TOOL, "parameters": schema}}
            ]
            body["tool_choice"] = {"type": "function", "function": {"name": _REPLY_TOOL}}
        elif schema is not None:
            instruction = render("reply_as_json", schema=canonical_json(schema))
            messages.append({"role": "user", "content": instruction})
        for name in traits.left_out:
            body.pop(name, None)
        return body

    def _finished(self, request: ChatRequest, reply: WireReply, text: str) -> ChatReply:
        # An endpoint that counts nothing is charged as much as it can have taken.
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        if prompt is None:
            prompt = prompt_tokens_max(request)
        if completion is None:
            completion = request.max_tokens
        endings: dict[str, Literal["stop", "length", "tool_calls"]] = {
            "length": "length",
            "tool_calls": "tool_calls",
        }
        return ChatReply(
            text=text,
            finish_reason=endings.get(reply.finish_reason, "stop"),
            prompt_tokens=prompt,
            completion_tokens=completion,
            first_tokens=reply.first_tokens,
            usd=None if self._price is None else self._price.usd(prompt, completion),
        )


class OpenAIChat(EndpointChat):
    """The endpoint that the settings name."""

    def __init__(
        self, settings: Settings, *, first_pause_seconds: float = _FIRST_PAUSE_SECONDS
    ) -> None:
        """`ChatError` where key and address are both missing, or the address is none."""
        secret, address = settings.openai_api_key, settings.openai_base_url
        key = "" if secret is None else secret.get_secret_value().strip()
        if not key and not address:
            raise ChatError(
                "no chat endpoint is configured; set OPENAI_API_KEY, or OPENAI_BASE_URL for an "
                "endpoint without a key, and DRAGOMAN_CHAT_MODEL"
            )
        if address and not (
            urlsplit(address).scheme in ("http", "https") and urlsplit(address).hostname
        ):
            raise ChatError("OPENAI_BASE_URL is no address; it looks like https://host/v1")
        # The client library wants a key even for endpoints that take none.
        wire = Wire(address or OPENAI_URL, key or "no-key")
        identity = ChatIdentity(kind="openai", model=settings.chat_model, endpoint=wire.host)
        super().__init__(
            wire,
            identity,
            TraitsFile(settings.cache_folder / "endpoints.json"),
            timeout_seconds=settings.chat_timeout_seconds,
            price=price_of(identity, settings),
            first_pause_seconds=first_pause_seconds,
        )


def _content(message: ChatMessage) -> JsonValue:
    """Plain text, or text and pictures as the parts that vision endpoints read."""
    text = well_formed(message.content)
    if not message.images:
        return text
    pictures: list[JsonValue] = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:{image.media_type};base64,{image.base64}"},
        }
        for image in message.images
    ]
    return [{"type": "text", "text": text}, *pictures]


def _is_about_images(error: RefusedCall) -> bool:
    """A model that takes text alone says so with any status, in words of its own."""
    said = error.detail.lower()
    return any(word in said for word in ("image", "vision", "multimodal", "must be a string"))


def _judged(traits: Traits, text: str) -> Traits:
    """Proven when JSON came back; otherwise the next call asks in a weaker way."""
    if is_json_object(text):
        return traits.model_copy(update={"proven": True})
    return traits.weaker() or traits
