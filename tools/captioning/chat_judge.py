"""A chat model as judge of captions: one text at a time, yes or no.

Small models say yes to everything when they judge many texts at once. Asked about one text, by how
much likelier "yes" is than "no" as the first word of the reply, even a small one tells texts apart;
its leaning to one of the answers is taken out by calibration: half of the texts that a caption is
tried on are active, so yes goes to the upper half. Where the endpoint tells no probabilities, a
reply of a fixed form is asked for and taken at its word.
"""

import json
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError

from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic
from dragoman.core.protocols import ChatMessage, ChatModel, ChatReply, ChatRequest
from dragoman.core.records import Record, content_id
from dragoman.prompts import render
from dragoman.tools.captioning.scoring import Detection
from dragoman.tools.context import ToolContext

Task: TypeAlias = Literal["judge_text", "judge_marks"]
"""The prompt: is the unit active in this text, or at these marked tokens?"""
_ALTERNATIVES = 10
_LEAST_MASS = 0.1
"""When yes and no together are less probable than this, the reply was about something else."""
_MAX_TOKENS = 16


class _Verdict(Record):
    answer: Literal["yes", "no"]


class _Judged(Record):
    """What the cache keeps of a judgement."""

    log_odds: float
    told: bool
    """The endpoint told probabilities; else the value is 1 for yes and -1 for no."""


class ChatJudge:
    """Log-odds of yes, in nats; replies are cached by content, calls are counted."""

    name = "chat"

    def __init__(self, context: ToolContext, chat: ChatModel) -> None:
        self._context, self._chat = context, chat
        self._tells = True
        self.n_calls = 0
        self.n_cached = 0

    def scores(self, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """How much likelier yes is than no, for each text; NaN where the reply was neither."""
        return self.ask("judge_text", caption, texts)

    def ask(self, task: Task, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """The same for either question; marked tokens of `texts` stand between « and »."""
        found = []
        for number, text in enumerate(texts):
            self._context.step(number, len(texts), "asking the chat model to judge a caption")
            judged = self._judged(task, caption, text)
            found.append(math.nan if judged is None else judged.log_odds)
        return np.array(found, dtype=np.float64)

    def _judged(self, task: Task, caption: str, text: str) -> _Judged | None:
        request = self._request(task, caption, text)
        name = content_id([self._chat.identity.model, request.content_id()])
        path = self._context.cache / "chat" / f"{name}.json"
        try:
            known = _Judged.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            judged = self._asked(request)
            if judged is not None:
                write_atomic(path, judged.model_dump_json())
            return judged
        self.n_cached += 1
        return known

    def _asked(self, request: ChatRequest) -> _Judged | None:
        if self._tells:
            reply = self._complete(
                request.model_copy(update={"max_tokens": 1, "first_tokens": _ALTERNATIVES})
            )
            if reply.first_tokens:
                return _weighed(reply)
            self._tells = False
        reply = self._complete(
            request.model_copy(update={"json_schema": _Verdict.model_json_schema()})
        )
        try:
            verdict = _Verdict.model_validate_json(reply.text)
        except ValidationError:
            return None
        return _Judged(log_odds=1.0 if verdict.answer == "yes" else -1.0, told=False)

    def _complete(self, request: ChatRequest) -> ChatReply:
        self.n_calls += 1
        return self._chat.complete(request, cancelled=self._context.cancelled)

    def _request(self, task: Task, caption: str, text: str) -> ChatRequest:
        # The caption comes first: what many requests begin with is read once by the chat model.
        content = render(
            task,
            caption=visible(caption, one_line=True),
            text=json.dumps(visible(text, one_line=True), ensure_ascii=False),
        )
        return ChatRequest(
            purpose="judge",
            messages=(ChatMessage(role="user", content=content),),
            max_tokens=_MAX_TOKENS,
            seed=self._context.seed,
        )


def decided(active: Float[ndarray, " active"], silent: Float[ndarray, " silent"]) -> Detection:
    """Yes to the upper half of the log-odds; replies without probabilities keep their own zero.

    As many active as silent texts must have been asked about; what failed counts as wrong.
    """
    known = np.concatenate([active, silent])
    known = known[~np.isnan(known)]
    told = bool(len(known)) and not np.isin(known, (-1.0, 1.0)).all()
    limit = float(np.median(known)) if told else 0.0
    return Detection(
        hits=int((active > limit).sum()),
        n_active=len(active),
        rejections=int((silent <= limit).sum()),
        n_silent=len(silent),
        n_failed=int(np.isnan(active).sum() + np.isnan(silent).sum()),
    )


def _weighed(reply: ChatReply) -> _Judged | None:
    mass = {"yes": 0.0, "no": 0.0}
    for each in reply.first_tokens:
        word = each.token.strip().casefold()
        if word in mass:
            mass[word] += each.probability
    if sum(mass.values()) < _LEAST_MASS:
        return None
    least = min(each.probability for each in reply.first_tokens)
    odds = max(mass["yes"], least) / max(mass["no"], least)
    return _Judged(log_odds=math.log(odds), told=True) if odds > 0 else None
