"""Captions before judges of free text: which texts they read, and what their scores come to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.batch_judge import BatchJudge
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.chat_judge import ChatJudge, Task, decided
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.fuzzing import marked_text
from dragoman.tools.captioning.judges import Judge, Separation, separation, threshold_between
from dragoman.tools.captioning.one_text_judge import OneTextJudge
from dragoman.tools.captioning.parts import Part
from dragoman.tools.captioning.predicates import Predicate
from dragoman.tools.captioning.scoring import Detection
from dragoman.tools.captioning.tokens import Ints
from dragoman.tools.captioning.trials import Trials
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort

JUDGED_CONTEXTS: dict[Effort, int] = {"quick": 12, "full": 20}
"""Active contexts, and as many silent ones, that a judge of free text reads."""
CHAT_CONTEXTS = 8
"""Active contexts, and as many others, that the chat model is asked about."""
CHAT_METRICS: dict[Task, str] = {"judge_text": "chat_detection", "judge_marks": "chat_fuzzing"}


def chat_judge_for(context: ToolContext) -> ChatJudge | None:
    """The chat model as judge, one text a call where it runs on this machine; None without one."""
    if context.chat is None:
        return None
    is_local = context.chat.identity.kind == "local"
    return (OneTextJudge if is_local else BatchJudge)(context, context.chat)


class Said(NamedTuple):
    """What is claimed of a unit, in words and, where it can be checked, as a predicate."""

    caption: str
    predicate: Predicate | None


class Hearing:
    """Brings a captioner's contexts before judges; what a chat model said once is kept."""

    def __init__(
        self, captioner: Captioner, trials: Trials, effort: Effort, chat: ChatJudge | None
    ) -> None:
        self._captioner, self._trials, self._effort, self._chat = captioner, trials, effort, chat
        self._verdicts: dict[tuple[Task, str, int], Detection | None] = {}

    def separation(self, judge: Judge, said: Said, unit: int) -> Separation | None:
        """How far the judge tells the unit's active contexts from silent ones by the caption."""
        sample = self._few(self._captioner.samples[unit])
        if not scoring.scorable(sample):
            return None
        return separation(*self._asked(judge, said.caption, self._captioner.held_out, sample))

    def by_chat(self, task: Task, said: Said, unit: int) -> Detection | None:
        """The chat model's yes or no to as many active (rightly marked) contexts as others."""
        if self._chat is None:
            return None
        key = (task, said.caption, unit)
        if key not in self._verdicts:
            part, captioner = self._captioner.held_out, self._captioner
            if task == "judge_text":
                sample = captioner.samples[unit]
                texts = [
                    [self._trials.text(part, row) for row in rows.tolist()]
                    for rows in (sample.active, sample.silent)
                ]
            else:
                marking = self._trials.marking(unit)
                texts = [
                    [marked_text(part.table, part.contexts, marked) for marked in markings]
                    for markings in (marking.right, marking.wrong)
                ]
            self._verdicts[key] = _chat_verdict(self._chat, task, said.caption, *texts)
        return self._verdicts[key]

    def decided(self, judge: Judge, caption: str, unit: int, sample: Sample) -> Detection | None:
        """Yes or no by a threshold from the captioner's own documents, for whichever unit."""
        known = self._trials.own(unit)[1]
        if min(len(known.active), len(known.silent)) == 0:
            return None
        limit = threshold_between(
            *self._asked(judge, caption, self._captioner.validation, self._few(known))
        )
        active, silent = self._asked(judge, caption, self._captioner.held_out, self._few(sample))
        return Detection(
            hits=int((active >= limit).sum()),
            n_active=len(active),
            rejections=int((silent < limit).sum()),
            n_silent=len(silent),
            n_failed=int(np.isnan(active).sum() + np.isnan(silent).sum()),
        )

    def _asked(
        self, judge: Judge, caption: str, part: Part, sample: Sample
    ) -> tuple[Float[ndarray, " active"], Float[ndarray, " silent"]]:
        rows = np.concatenate([sample.active, sample.silent]).tolist()
        scores = judge.scores(caption, [self._trials.text(part, row) for row in rows])
        return scores[: len(sample.active)], scores[len(sample.active) :]

    def _few(self, sample: Sample) -> Sample:
        """As many active and silent contexts as a judge reads, spread over the documents."""
        limit = JUDGED_CONTEXTS[self._effort]

        def spread(rows: Ints) -> Ints:
            if len(rows) <= limit:
                return rows
            return np.asarray(rows[np.linspace(0, len(rows) - 1, limit).astype(int)])

        return Sample(spread(sample.active), spread(sample.silent), spread(sample.hard))


def _chat_verdict(
    judge: ChatJudge, task: Task, caption: str, right: Sequence[str], wrong: Sequence[str]
) -> Detection | None:
    count = min(len(right), len(wrong), CHAT_CONTEXTS)
    if count < scoring.MIN_ACTIVE:
        return None
    chosen = [
        [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]
        for texts in (right, wrong)
    ]
    answers = judge.ask(task, caption, [*chosen[0], *chosen[1]])
    return decided(answers[:count], answers[count:])
