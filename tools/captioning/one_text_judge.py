"""A small chat model as judge of captions: one text a call, yes or no.

Asked about one text, by how much likelier "yes" is than "no" as the first word of the reply, even
a small model tells texts apart; its leaning to one of the answers is taken out by calibration: half
of the texts that a caption is tried on are active, so yes goes to the upper half. Where no
probabilities are told, a reply of a fixed form is asked for and taken at its word.

Eight texts a call are no gain with such a model. Measured on Qwen2.5-Coder-1.5B with 16 written
texts for each caption of a topic: balanced accuracy on texts .84 one by one and .67 in batches (4
captions), on marks .83 and .50 (3 captions; yes to all of them), and batches took twice as long.
"""

import json
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError

from dragoman.core.escaping import visible
from dragoman.core.protocols import ChatMessage, ChatModel, ChatReply, ChatRequest
from dragoman.core.records import Record
from dragoman.prompts import render
from dragoman.tools.captioning.chat_calls import CountedChat
from dragoman.tools.captioning.chat_judge import Task
from dragoman.tools.context import ToolContext

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


class OneTextJudge:
    """Log-odds of yes, in nats; each judgement is kept by content, calls are counted."""

    texts_a_call = 1

    def __init__(self, context: ToolContext, chat: ChatModel) -> None:
        self._context = context
        self._tells = True
        self.calls = CountedChat(context, chat)

    def ask(self, task: Task, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """How much likelier yes is than no, for each text; NaN where the reply was neither."""
        found = []
        for number, text in enumerate(texts):
            self._context.step(number, len(texts), "asking the chat model to judge a caption")
            judged = self._judged(self._request(task, caption, text))
            found.append(math.nan if judged is None else judged.log_odds)
        return np.array(found, dtype=np.float64)

    def _judged(self, request: ChatRequest) -> _Judged | None:
        judged = self.calls.kept(request, _Judged)
        if judged is None:
            judged = self._asked(request)
            if judged is not None:
                self.calls.keep(request, judged)
        return judged

    def _asked(self, request: ChatRequest) -> _Judged | None:
        if self._tells:
            reply = self.calls.complete(
                request.model_copy(update={"max_tokens": 1, "first_tokens": _ALTERNATIVES})
            )
            if reply.first_tokens:
                return _weighed(reply)
            self._tells = False
        reply = self.calls.complete(
            request.model_copy(update={"json_schema": _Verdict.model_json_schema()})
        )
        try:
            verdict = _Verdict.model_validate_json(reply.text)
        except ValidationError:
            return None
        return _Judged(log_odds=1.0 if verdict.answer == "yes" else -1.0, told=False)

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
