"""Structured replies: a schema goes out with the request, and only what fits it comes back.

The schema is written in the subset that OpenAI's strict mode and llama.cpp's grammars share: no
references, every object closed, every property required. Since an endpoint may ignore all of
that, the reply is validated as strictly as if no schema had been sent.
"""

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from dragoman.core.errors import ChatError
from dragoman.core.escaping import visible, well_formed
from dragoman.core.protocols import (
    Cancelled,
    ChatMessage,
    ChatModel,
    ChatReply,
    ChatRequest,
    never,
)
from dragoman.core.records import JsonObject
from dragoman.prompts import render

REPAIRS = 3
_QUOTED_CHARACTERS = 2000
"""So much of a bad reply is shown back to its author."""
_COMPLAINT_CHARACTERS = 600
_DROPPED = frozenset({"$defs", "default", "title", "discriminator", "examples"})

Reply = TypeVar("Reply", bound=BaseModel)


class UnusableReply(ChatError):
    """The chat model answered, but never with what was asked for; a fixed choice can stand in."""


class _BadReply(ValueError):
    """Why one reply could not be used, in words for its author."""


def ask(
    chat: ChatModel,
    request: ChatRequest,
    reply_type: type[Reply],
    *,
    on_text: Callable[[str], None] | None = None,
    cancelled: Cancelled = never,
    repairs: int = REPAIRS,
) -> Reply:
    """A validated `reply_type`, after at most `repairs` corrections.

    Raises:
        UnusableReply: no reply fitted; the message names the last complaint.
        ChatError, LimitReached, Interrupted: as `chat.complete` does.
    """
    first = request.model_copy(update={"json_schema": json_schema(reply_type)})
    request, complaint = first, ""
    for turn in range(1, repairs + 2):
        reply = chat.complete(request, on_text=on_text, cancelled=cancelled)
        try:
            return parse(reply, reply_type)
        except _BadReply as error:
            complaint = str(error)
        request = _repaired(first, reply, complaint, turn)
    raise UnusableReply(
        f"the chat model gave no usable reply to {request.purpose!r} in {repairs + 1} tries "
        f"({visible(complaint, one_line=True)}); try another chat model, or --chat none"
    )


def parse(reply: ChatReply, reply_type: type[Reply]) -> Reply:
    """The reply as a `reply_type`, or a `_BadReply` that says what is wrong with it."""
    if reply.finish_reason == "length":
        raise _BadReply("it was cut off before its end; be shorter")
    text = without_fence(reply.text)
    try:
        # pydantic takes NaN and 1e999 for numbers; the standard parser can be told not to.
        json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        return reply_type.model_validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise _BadReply(_complaints(error)) from None
    except RecursionError:
        raise _BadReply("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _BadReply(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:  # non-finite numbers, integers of thousands of digits
        raise _BadReply(str(error)[:_COMPLAINT_CHARACTERS]) from None


def json_schema(reply_type: type[BaseModel]) -> JsonObject:
    """The JSON schema of `reply_type` in the shared subset; bounds and enumerations stay."""
    schema = reply_type.model_json_schema()
    plain = _subset(schema, schema.get("$defs", {}), ())
    if not isinstance(plain, dict):
        raise TypeError(f"{reply_type.__name__} has no object schema")
    return plain


def without_fence(text: str) -> str:
    """`text` without the Markdown fence in which many models wrap JSON."""
    stripped = text.strip()
    if not (stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped):
        return stripped
    return stripped[stripped.index("\n") : -3].strip()


def is_json_object(text: str) -> bool:
    """Whether a reply is a JSON object, whatever it holds."""
    try:
        return isinstance(json.loads(without_fence(text)), dict)
    except (ValueError, RecursionError):
        return False


def _subset(node: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> JsonValue:
    if isinstance(node, list):
        return [_subset(item, definitions, inside) for item in node]
    if not isinstance(node, dict):
        plain: JsonValue = node
        return plain
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        if name in inside:
            raise TypeError(f"{name} contains itself; a reply's schema must have an end")
        # What stands beside a reference (a description) stays, the definition fills the rest.
        node = {**definitions[name], **{key: node[key] for key in node if key != "$ref"}}
        inside = (*inside, name)
    result: JsonObject = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {
                name: _subset(field, definitions, inside) for name, field in value.items()
            }
        elif key == "const":
            result["enum"] = [value]
        elif key == "oneOf":
            result["anyOf"] = _subset(value, definitions, inside)
        elif key not in _DROPPED:
            result[key] = _subset(value, definitions, inside)
    if "properties" in node:
        result["additionalProperties"] = False
        result["required"] = list(node["properties"])
    return result


def _repaired(first: ChatRequest, reply: ChatReply, complaint: str, turn: int) -> ChatRequest:
    """The first request with the last bad reply and what is wrong with it."""
    bad = well_formed(reply.text)[:_QUOTED_CHARACTERS] or "(empty)"
    correction = render("repair_reply", complaint=well_formed(complaint))
    return first.model_copy(
        update={
            "messages": (
                *first.messages,
                ChatMessage(role="assistant", content=bad),
                ChatMessage(role="user", content=correction),
            ),
            # Greedy decoding would repeat a mistake that it has made twice.
            "temperature": first.temperature if turn == 1 else max(first.temperature, 0.3),
            "seed": first.seed + turn,
        }
    )


def _complaints(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in problem["loc"]) or "the reply"
        given = ascii(problem["input"])
        shown = f", not {given}" if len(given) <= 60 and problem["type"] != "missing" else ""
        lines.append(f"{place}: {problem['msg']}{shown}")
    return "; ".join(lines)[:_COMPLAINT_CHARACTERS]


def _no_constant(name: str) -> float:
    raise _BadReply(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _BadReply(f"the number {digits[:40]} is too large")
    return number
