import json
import math

import numpy as np
import pytest

from dragoman.core.protocols import ChatReply, TokenProbability
from dragoman.core.records import ChatIdentity
from dragoman.tools.captioning.chat_judge import decided
from dragoman.tools.captioning.one_text_judge import OneTextJudge
from dragoman.tools.context import ToolContext


class Answers:
    """A chat model that says yes to texts with copper in them, with or without probabilities."""

    def __init__(self, *, tells=True, garbled=False):
        self.tells, self.garbled, self.requests = tells, garbled, []

    @property
    def identity(self):
        return ChatIdentity(kind="local", model="answers")

    def complete(self, request, *, on_text=None, cancelled=None):
        self.requests.append(request)
        agrees = "copper" in request.messages[0].content.splitlines()[-1]
        word = "yes" if agrees else "no"
        tokens: tuple[TokenProbability, ...] = ()
        if request.first_tokens and self.tells:
            share = 0.6 if agrees else 0.55
            tokens = (
                TokenProbability(token="Maybe" if self.garbled else "Yes", probability=share),
                TokenProbability(token=" who" if self.garbled else "no", probability=0.9 - share),
            )
        text = json.dumps({"answer": word}) if request.json_schema else word
        return ChatReply(
            text="whatever" if self.garbled else text,
            finish_reason="stop",
            prompt_tokens=9,
            completion_tokens=1,
            first_tokens=tokens,
        )

    def close(self):
        pass


TEXTS = ["a copper pot", "a wide river", "copper\x1b[31m wire", "the end"]


@pytest.fixture
def context(tiny_subject, tmp_path):
    return ToolContext(tiny_subject, 0, tmp_path, tmp_path, tmp_path / "cache")


def test_scores_are_log_odds_of_yes(context):
    chat = Answers()
    judge = OneTextJudge(context, chat)
    scores = judge.ask("judge_text", 'the word "copper"', TEXTS)
    assert scores == pytest.approx(np.log([2, 0.55 / 0.35, 2, 0.55 / 0.35]))
    assert judge.calls.n_calls == 4
    assert all(request.max_tokens == 1 for request in chat.requests)
    contents = [request.messages[0].content for request in chat.requests]
    assert all("\x1b" not in content for content in contents)
    assert len({content.rsplit("\n", 1)[0] for content in contents}) == 1


def test_a_leaning_to_yes_is_calibrated_away():
    leaning = decided(np.array([2.0, 1.5, 1.9]), np.array([1.0, 0.5, 1.2]))
    assert leaning.balanced_accuracy == 1.0
    plain = decided(np.array([1.0, 1.0, -1.0]), np.array([1.0, -1.0, -1.0]))
    assert (plain.hits, plain.rejections) == (2, 2)


def test_replies_come_from_the_cache_the_second_time(context):
    chat = Answers()
    first = OneTextJudge(context, chat).ask("judge_text", "metals", TEXTS)
    again = OneTextJudge(context, chat)
    assert np.array_equal(again.ask("judge_text", "metals", TEXTS), first)
    assert (again.calls.n_calls, again.calls.n_cached) == (0, 4)
    assert len(chat.requests) == 4
    again.ask("judge_marks", "metals", TEXTS[:1])
    assert again.calls.n_calls == 1


def test_without_probabilities_a_fixed_form_is_asked_for(context):
    chat = Answers(tells=False)
    judge = OneTextJudge(context, chat)
    assert judge.ask("judge_text", "metals", TEXTS).tolist() == [1, -1, 1, -1]
    # One call found out that the endpoint tells none.
    assert judge.calls.n_calls == 5
    assert all(request.json_schema is not None for request in chat.requests[1:])


@pytest.mark.parametrize("tells", [True, False])
def test_a_reply_that_is_neither_yes_nor_no_has_failed_and_is_counted(context, tells):
    judge = OneTextJudge(context, Answers(tells=tells, garbled=True))
    scores = judge.ask("judge_text", "metals", TEXTS)
    assert all(math.isnan(score) for score in scores)
    detection = decided(scores[:2], scores[2:])
    assert detection.n_failed == 4
    assert detection.balanced_accuracy == 0.0
