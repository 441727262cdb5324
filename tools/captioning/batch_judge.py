"""A chat model behind an endpoint as judge of captions: several texts a call, yes or no to each.

After EleutherAI's delphi, whose detection and fuzzing show a judge five texts a prompt and read a
list of zeros and ones. Texts come in an order that does not tell which of them are active, and
their answers are put back in place. Yes or no, and no grades: a score is the balanced accuracy of
yes and no, and coarse grades would tie at any threshold that is taken from them.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, JsonValue, StrictInt, ValidationError

from dragoman.core.escaping import visible
from dragoman.core.protocols import ChatMessage, ChatModel, ChatRequest
from dragoman.core.records import JsonObject, Record, content_id
from dragoman.prompts import render
from dragoman.tools.captioning.chat_calls import CountedChat
from dragoman.tools.captioning.chat_judge import Task
from dragoman.tools.captioning.tokens import Ints
from dragoman.tools.context import ToolContext

TEXTS_A_CALL = 8
_TOKENS_A_TEXT = 24
"""`{"id": 1, "answer": "yes"}` with all the white space that a model may add."""
_BARE = str.maketrans("", "", "«»")


class _Answer(Record):
    id: StrictInt = Field(ge=1)
    answer: Literal["yes", "no"]


class BatchAnswers(Record):
    """What the chat model is asked to reply: one entry a text, with the text's number."""

    answers: tuple[_Answer, ...]

    @classmethod
    def schema_for(cls, n: int) -> JsonObject:
        """The JSON schema for `n` texts."""
        schema = cls.model_json_schema()
        schema["properties"]["answers"] |= {"minItems": n, "maxItems": n}
        return schema


class _Reply(Record):
    """The same with entries that are looked at one by one: a bad one spoils no other."""

    answers: tuple[JsonValue, ...]


class _Judged(Record):
    """What the cache keeps of a call: whether yes, in the order of the call's texts."""

    yes: tuple[bool, ...]


class BatchJudge:
    """1 for yes and -1 for no; each call's answers are kept by content, calls are counted."""

    texts_a_call = TEXTS_A_CALL

    def __init__(self, context: ToolContext, chat: ChatModel) -> None:
        self._context = context
        self.calls = CountedChat(context, chat)

    def ask(self, task: Task, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """1 or -1 for each text; NaN where the reply has no answer, or two different ones.

        A reply that does not fit has failed for all its texts and is not asked for again: the same
        request gets the same reply at temperature 0, and an endpoint that cannot keep the form
        would be paid for every text once more. A later run asks again, since it is not kept.
        """
        found = np.full(len(texts), math.nan)
        done = 0
        for rows in dealt(texts, [self._context.seed, _number(task, caption, texts)]):
            self._context.step(done, len(texts), "asking the chat model to judge a caption")
            found[rows] = self._judged(task, caption, [texts[row] for row in rows])
            done += len(rows)
        return found

    def _judged(self, task: Task, caption: str, texts: Sequence[str]) -> list[float]:
        # Kept by the whole request and not by text: an answer may depend on the texts beside it,
        # so a score would depend on which experiment had asked about a text first.
        request = self._request(task, caption, texts)
        known = self.calls.kept(request, _Judged)
        if known is not None:
            return [1.0 if yes else -1.0 for yes in known.yes]
        answers = parsed(self.calls.complete(request).text, len(texts))
        if None not in answers:
            self.calls.keep(request, _Judged(yes=tuple(bool(answer) for answer in answers)))
        return [math.nan if answer is None else 1.0 if answer else -1.0 for answer in answers]

    def _request(self, task: Task, caption: str, texts: Sequence[str]) -> ChatRequest:
        lines = [
            json.dumps({"id": number, "text": visible(text, one_line=True)}, ensure_ascii=False)
            for number, text in enumerate(texts, start=1)
        ]
        content = render(
            f"{task}_batch",
            caption=visible(caption, one_line=True),
            n_texts=str(len(texts)),
            texts="\n".join(lines),
        )
        return ChatRequest(
            purpose="judge",
            messages=(ChatMessage(role="user", content=content),),
            json_schema=BatchAnswers.schema_for(len(texts)),
            max_tokens=_TOKENS_A_TEXT * len(texts) + 16,
            seed=self._context.seed,
        )


def dealt(texts: Sequence[str], seed: Sequence[int]) -> list[Ints]:
    """Rows of `texts` in random order, as few calls as will hold them, equally full.

    Texts that differ in their marks alone go into different calls where there is room: side by
    side they would tell that one of the two is wrong.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    seen: Counter[str] = Counter()
    rounds = []
    for row in order.tolist():
        bare = texts[row].translate(_BARE)
        rounds.append(seen[bare])
        seen[bare] += 1
    order = order[np.argsort(rounds, kind="stable")]
    n_calls = math.ceil(len(texts) / TEXTS_A_CALL)
    return np.array_split(order, n_calls) if n_calls else []


def parsed(reply: str, n: int) -> list[bool | None]:
    """For each of `n` texts whether the reply says yes; None: nothing, or two different things."""
    try:
        entries = _Reply.model_validate_json(reply).answers
    except ValidationError:
        return [None] * n
    said: list[set[bool]] = [set() for _ in range(n)]
    for entry in entries:
        try:
            answer = _Answer.model_validate(entry)
        except ValidationError:
            continue
        if answer.id <= n:
            said[answer.id - 1].add(answer.answer == "yes")
    return [next(iter(each)) if len(each) == 1 else None for each in said]


def _number(task: Task, caption: str, texts: Sequence[str]) -> int:
    """Another order for each question: one for all would favour the same places every time."""
    return int(content_id([task, caption, list(texts)])[:16], 16)
