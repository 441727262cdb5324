"""Does a subject know a relation? Few-shot and zero-shot accuracy against guessing.

Scored by the published rule of Hernandez et al. 2024 (arXiv:2308.09124): the top token, stripped
and without regard to case, is a non-empty prefix of the object.
"""

from collections import Counter
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement, ToolSuccess
from dragoman.tools import statistics
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import Relation, Sample, is_prefix, load_relation

N_SHOTS = 6
_BATCH = 16
_QUICK_FACTS = 24


class _Asked(NamedTuple):
    sample: Sample
    predicted: str

    @property
    def known(self) -> bool:
        return is_prefix(self.predicted, self.sample.object)


@tool(method="behaviour")
def probe_knowledge(
    ctx: ToolContext,
    relation: Annotated[
        str, Field(min_length=1, max_length=400, description="A relation's name or file")
    ],
    effort: Annotated[Effort, Field(description="quick asks for 24 facts, full for all")] = "full",
) -> ToolSuccess:
    """Whether the subject knows a relation's facts, with examples in the prompt and without.

    Measures `accuracy` with six examples in the prompt on all other facts, against the best
    constant guess; as a control the same with the examples' objects exchanged among each other.
    """
    facts = load_relation(relation)
    shots, tested = split_facts(facts, ctx.seed)
    if effort == "quick":
        tested = tested[:_QUICK_FACTS]
    ctx.step(0, 3, "asking with examples")
    known = _ask(ctx, facts, shots, tested)
    ctx.step(1, 3, "asking with exchanged examples")
    exchanged = _ask(ctx, facts, _rotated(shots), tested)
    ctx.step(2, 3, "asking without examples")
    bare = _ask(ctx, facts, (), tested)
    guess, hits = Counter(sample.object for sample in tested).most_common(1)[0]
    n = len(tested)

    def accuracy(asked: list[_Asked], metric: str) -> Measurement:
        return statistics.proportion(
            metric,
            sum(each.known for each in asked),
            n,
            baseline_successes=hits,
            baseline_n=n,
            control=f"always answering {guess!r}",
            scope=facts.name,
        )

    headline = accuracy(known, "accuracy")
    ctx.step(3, 3, "done")
    return ToolSuccess(
        summary=(
            f"with {len(shots)} examples the subject gets {headline.value:.2f} of "
            f"{facts.name!r} right (n = {n}, best constant guess {headline.baseline:.2f})"
        ),
        measurements=(headline,),
        controls=(
            accuracy(bare, "accuracy_without_examples"),
            accuracy(exchanged, "accuracy_with_exchanged_examples"),
        ),
        output={
            "examples": [sample.model_dump() for sample in shots],
            "answers": [
                {
                    "subject": each.sample.subject,
                    "object": each.sample.object,
                    "predicted": each.predicted,
                    "known": each.known,
                }
                for each in known
            ],
            "seed": ctx.seed,
        },
        caveats=facts.notes,
    )


def split_facts(facts: Relation, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Six examples with objects as different as possible, and all other facts."""
    order = list(facts.samples)
    Random(seed).shuffle(order)
    shots: list[Sample] = []
    for _ in range(N_SHOTS):
        used = Counter(sample.object for sample in shots)
        left = [sample for sample in order if sample not in shots]
        shots.append(min(left, key=lambda sample: used[sample.object]))
    tested = tuple(sample for sample in order if sample not in shots)
    if not tested:
        raise ToolError(f"relation {facts.name!r} has no facts left beside {N_SHOTS} examples")
    return tuple(shots), tested


def _rotated(shots: tuple[Sample, ...]) -> tuple[Sample, ...]:
    objects = [*(sample.object for sample in shots[1:]), shots[0].object]
    return tuple(
        Sample(subject=sample.subject, object=target)
        for sample, target in zip(shots, objects, strict=True)
    )


def _ask(
    ctx: ToolContext, facts: Relation, shots: tuple[Sample, ...], tested: tuple[Sample, ...]
) -> list[_Asked]:
    template = facts.prompt_templates[0] if shots else facts.prompt_templates_zs[0]
    lines = "".join(f"{template.format(shot.subject)} {shot.object}\n" for shot in shots)
    prompts = [lines + template.format(sample.subject) for sample in tested]
    best = ctx.subject.log_probs(prompts, batch_size=_BATCH).argmax(-1)
    return [
        _Asked(sample, ctx.subject.token_text(int(token)))
        for sample, token in zip(tested, best, strict=True)
    ]
