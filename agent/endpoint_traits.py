"""What an endpoint turned out to support: found out once, remembered per endpoint and model."""

import json
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, Record

Structured: TypeAlias = Literal["schema", "tools", "prompt"]
"""How a JSON reply is asked for: `response_format`, a native tool call, or words alone."""

_NEXT: dict[Structured, Structured] = {"schema": "tools", "tools": "prompt"}
_SPARE = ("stream_options", "seed", "temperature", "logprobs")
"""Parameters that a call can do without."""


class Traits(Record):
    """The way in which to talk to one model at one endpoint."""

    structured: Structured = "schema"
    proven: bool = False
    """A JSON reply has come back in this way."""
    tokens_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    left_out: tuple[str, ...] = ()
    """Parameters that the endpoint does not take."""

    def after_refusal(self, detail: str, *, structured: bool) -> "Traits | None":
        """What to try after a 400 that says `detail`; None when nothing is left to try."""
        for name in _SPARE:
            if name in detail and name not in self.left_out:
                return self.model_copy(update={"left_out": (*self.left_out, name)})
        if "max_tokens" in detail and self.tokens_parameter == "max_tokens":
            return self.model_copy(update={"tokens_parameter": "max_completion_tokens"})
        return self.weaker() if structured and not self.proven else None

    def weaker(self) -> "Traits | None":
        """The next way of asking for JSON, which more endpoints understand."""
        following = _NEXT.get(self.structured)
        return following and self.model_copy(update={"structured": following})


class TraitsFile:
    """A JSON file of traits by endpoint and model; a cache, so a damaged one is as good as none."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist."""
        self._path = path

    def load(self, name: str) -> Traits:
        """What is known under `name`."""
        try:
            return Traits.model_validate_json(json.dumps(self._all()[name]))
        except (KeyError, ValidationError):
            return Traits()

    def save(self, name: str, traits: Traits) -> None:
        """Remember `traits`, beside those of other endpoints."""
        known = {**self._all(), name: traits.model_dump(mode="json")}
        write_atomic(self._path, json.dumps(known, indent=2, sort_keys=True) + "\n")

    def _all(self) -> JsonObject:
        try:
            known = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
