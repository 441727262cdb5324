"""What an ablation is measured by: loss, a relation's accuracy, or the lead of a minimal pair."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.tools.behaviour.knowledge import split_facts
from dragoman.tools.captioning.ablation_effects import Measured
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.relations import is_prefix, load_relation
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject

Effect: TypeAlias = Literal["loss", "relation", "minimal_pair"]
Change: TypeAlias = Callable[[Batch], Sequence[Edit]]
"""The edits of one batch: they spare its padding and its document start."""

_LOSS_DOCUMENTS: dict[Effort, int] = {"quick": 24, "full": 60}
_FACTS: dict[Effort, int] = {"quick": 24, "full": 60}
_BATCH = 16


class Task(NamedTuple):
    """What is measured, and how: one value an independent sample, given the edits."""

    measured: Measured
    score: Callable[[Change], Float[ndarray, " samples"]]


class Given(NamedTuple):
    """Arguments that only some effects take."""

    relation: str | None
    prompts: Sequence[str] | None
    answer: str | None
    other: str | None


def check_arguments(effect: Effect, given: Given) -> None:
    """`ToolError` for an argument that the effect lacks, or does not take."""
    wanted: dict[str, tuple[str, ...]] = {
        "loss": (),
        "relation": ("relation",),
        "minimal_pair": ("prompts", "answer", "other"),
    }
    for name, value in given._asdict().items():
        if (value is not None) != (name in wanted[effect]):
            verb = "needs" if value is None else "takes no"
            raise ToolError(f"effect {effect!r} {verb} argument {name!r}")


def task_of(
    context: ToolContext,
    effect: Effect,
    effort: Effort,
    texts: Sequence[str],
    given: Given,
) -> Task:
    """What to measure; `texts` are those for the loss.

    `check_arguments` has to have passed. `ToolError` for a relation that is not there, or two
    answers that begin alike.
    """
    relation, prompts, answer, other = given
    subject = context.subject
    if effect == "loss":
        read = list(texts[: _LOSS_DOCUMENTS[effort]])
        return Task(
            Measured("ablation_effect_loss", "nat", "loss", 1), partial(_losses, subject, read)
        )
    if relation is not None:
        facts = load_relation(relation)
        shots, tested = split_facts(facts, context.seed)
        template = facts.prompt_templates[0]
        lines = "".join(f"{template.format(shot.subject)} {shot.object}\n" for shot in shots)
        asked = tested[: _FACTS[effort]]
        questions = [lines + template.format(sample.subject) for sample in asked]
        objects = [sample.object for sample in asked]
        return Task(
            Measured("ablation_effect_accuracy", "fraction", facts.name, -1),
            partial(_accuracies, subject, questions, objects),
        )
    assert prompts is not None
    assert answer is not None
    assert other is not None
    first, second = subject.first_token(answer), subject.first_token(other)
    if first == second:
        raise ToolError(
            f"answer {answer!r} and other {other!r} begin with the same token, "
            f"{subject.token_text(first)!r}: nothing tells them apart"
        )
    scope = visible(f"{answer!r} over {other!r}", one_line=True)
    return Task(
        Measured("ablation_effect_pair", "nat", scope, 0),
        partial(_leads, subject, list(prompts), first, second),
    )


@torch.no_grad()
def _losses(
    subject: LanguageSubject, texts: Sequence[str], change: Change
) -> Float[ndarray, " texts"]:
    """Mean loss of each text's tokens, in nats."""
    values: list[float] = []
    for start in range(0, len(texts), _BATCH):
        batch = subject.batch(texts[start : start + _BATCH])
        log_probs = subject.all_logits(batch, change(batch))[:, :-1].log_softmax(-1)
        taken = log_probs.gather(-1, batch.ids[:, 1:, None])[..., 0]
        read = batch.mask[:, :-1] == 1
        values += (-(taken * read).sum(-1) / read.sum(-1)).tolist()
    return np.array(values, dtype=np.float64)


def _accuracies(
    subject: LanguageSubject, prompts: Sequence[str], objects: Sequence[str], change: Change
) -> Float[ndarray, " prompts"]:
    """1 where the likeliest next token is a prefix of the object, else 0."""
    best = _next(subject, prompts, change).argmax(-1)
    return np.array(
        [
            float(is_prefix(subject.token_text(int(token)), target))
            for token, target in zip(best, objects, strict=True)
        ]
    )


def _leads(
    subject: LanguageSubject, prompts: Sequence[str], first: int, second: int, change: Change
) -> Float[ndarray, " prompts"]:
    """Log-probability of the first token less that of the second, in nats."""
    log_probs = _next(subject, prompts, change).double()
    return np.asarray((log_probs[:, first] - log_probs[:, second]).cpu().numpy())


@torch.no_grad()
def _next(
    subject: LanguageSubject, prompts: Sequence[str], change: Change
) -> Float[Tensor, "prompts d_vocab"]:
    parts = []
    for start in range(0, len(prompts), _BATCH):
        batch = subject.batch(prompts[start : start + _BATCH])
        parts.append(subject.logits(batch, change(batch)).log_softmax(-1))
    return torch.cat(parts)
