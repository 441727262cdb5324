"""The best caption for each of some units: all proposers' candidates, one choice.

What `caption_neurons` and the batch do alike, for any units of a language subject.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import JsonObject
from dragoman.tools.captioning import chat_proposer
from dragoman.tools.captioning.captioner import Candidate, Captioner, Chosen, readable
from dragoman.tools.captioning.chat_calls import chat_cost
from dragoman.tools.captioning.chat_proposer import Answers, Question
from dragoman.tools.captioning.judges import EmbeddingJudge
from dragoman.tools.captioning.meanings import embedder, with_meanings
from dragoman.tools.captioning.parts import Further
from dragoman.tools.captioning.reranking import TAU, log_priors
from dragoman.tools.captioning.tokens import TokenTable, token_table
from dragoman.tools.context import ToolContext

_ASKED_EXEMPLARS = 4
_SUGGESTED = 2


class Choices(NamedTuple):
    """What was chosen for each unit, and what the chat model had to do with it."""

    chosen: list[Chosen | None]
    answers: Answers | None
    """None without a chat model."""
    n_unreadable: int = 0
    """Captions of the chat model that say nothing that can be checked by rule."""

    @property
    def n_failed(self) -> int:
        """Captions and replies of the chat model that came to nothing."""
        return 0 if self.answers is None else self.answers.n_failed + self.n_unreadable

    def cost(self) -> JsonObject:
        """Calls of the chat model, for the output; empty without one."""
        if self.answers is None:
            return {}
        answers = self.answers
        cost = chat_cost(answers.n_calls, answers.n_cached, len(answers.captions))
        return {**cost, "chat_captions_failed": self.n_failed}


def table_of(context: ToolContext, documents: Sequence[str]) -> TokenTable:
    """The documents' tokens, with the topics their words are near to where these can be told."""
    table = token_table(documents, context.subject.tokenizer)
    vectors = embedder(context)
    return table if vectors is None else with_meanings(table, vectors, context.cache)


def captioner_for(
    context: ToolContext,
    table: TokenTable,
    activations: Float[ndarray, "tokens units"],
    n_requested: int,
    further: Further | None = None,
) -> Captioner:
    """A captioner with all that the context has to offer."""
    vectors = embedder(context)
    return Captioner(
        table,
        activations,
        n_requested,
        seed=context.seed,
        priors=partial(log_priors, context.subject),
        vectors=vectors,
        judge=None if vectors is None or context.chat is None else EmbeddingJudge(vectors),
        further=further,
    )


def with_captioning_chat(context: ToolContext) -> ToolContext:
    """The context with the chat model that is asked for captions unasked: none on this machine.

    What the local one writes was measured (docs/evals/captions.md): shortened copies of what the
    search found, worse than that, at many times the cost. Who names it for captions gets it.
    """
    chat = context.chat
    is_local = chat is not None and chat.identity.kind == "local"
    return dataclasses.replace(context, chat=None) if is_local else context


class Proposed(NamedTuple):
    """Candidates for each unit, by where they come from."""

    search: list[list[Candidate]]
    chat: list[list[Candidate]]
    """Empty lists without a chat model."""
    answers: Answers | None
    n_unreadable: int = 0

    def together(self) -> list[list[Candidate]]:
        """Candidates of all proposers."""
        return [
            _distinct([*found, *written])
            for found, written in zip(self.search, self.chat, strict=True)
        ]


def propose_all(context: ToolContext, captioner: Captioner, names: Sequence[object]) -> Proposed:
    """What the predicate search and, where there is one, the chat model propose for each unit.

    The chat model is asked about the units for which the search found something.
    """
    found: list[list[Candidate]] = []
    for unit, name in enumerate(names):
        context.step(unit, len(names), f"describing unit {name}")
        found.append([] if captioner.dead(unit) else captioner.propose(unit))
    written: list[list[Candidate]] = [[] for _ in names]
    if context.chat is None:
        return Proposed(found, written, None)
    asked = [unit for unit, candidates in enumerate(found) if candidates]
    answers = chat_proposer.ask(
        context, context.chat, [_question(captioner, unit, found[unit]) for unit in asked]
    )
    n_unreadable = 0
    for unit, captions in zip(asked, answers.captions, strict=True):
        written[unit], unreadable = readable(captions, context.chat.identity.model)
        n_unreadable += unreadable
    return Proposed(found, written, answers, n_unreadable)


def choose_all(
    context: ToolContext, captioner: Captioner, names: Sequence[object], *, pmi: bool = True
) -> Choices:
    """For each requested unit the best candidate of all proposers.

    Without `pmi` the term -tau log p(d) is left out, so that common phrases win.
    """
    proposed = propose_all(context, captioner, names)
    chosen = captioner.choose_all(proposed.together(), TAU if pmi else 0.0)
    return Choices(chosen, proposed.answers, proposed.n_unreadable)


def _question(captioner: Captioner, unit: int, candidates: Sequence[Candidate]) -> Question:
    return Question(
        captioner.marked(unit, _ASKED_EXEMPLARS),
        captioner.silent(unit),
        [candidate.caption for candidate in candidates[:_SUGGESTED]],
    )


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate a predicate: who says again what the search found has found nothing."""
    seen: set[str] = set()
    kept = []
    for candidate in candidates:
        said = candidate.predicate
        key = candidate.caption if said is None else said.model_dump_json()
        if key not in seen:
            seen.add(key)
            kept.append(candidate)
    return kept
