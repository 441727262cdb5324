"""`ablate_neurons`: what a subject loses without some of its MLP neurons.

Each effect stands beside the same ablation of matched random sets: as many other neurons of the
layer, drawn from those nearest in density and in the norm of their output weights. Any neurons do
some harm; what counts is how much more these do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Measurement, Site, ToolSuccess, Unit
from dragoman.tools import statistics
from dragoman.tools.behaviour.knowledge import split_facts
from dragoman.tools.captioning.arguments import CorpusArgument
from dragoman.tools.captioning.causal import matched_units
from dragoman.tools.captioning.neighbours import scan_layer
from dragoman.tools.captioning.tool import corpus_of
from dragoman.tools.captioning.units import UnitLayer, check_units
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import is_prefix, load_relation
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject

Effect: TypeAlias = Literal["loss", "relation", "minimal_pair"]
Change: TypeAlias = Callable[[Batch], Sequence[Edit]]
"""The edits of one batch: they spare its padding and its document start."""

_RANDOM_SETS: dict[Effort, int] = {"quick": 19, "full": 39}
"""With nineteen, one that none exceeds has p = 1/20."""
_LOSS_DOCUMENTS: dict[Effort, int] = {"quick": 24, "full": 60}
_FACTS: dict[Effort, int] = {"quick": 24, "full": 60}
_POOL = 8
"""Matched neurons in the pool for each that is ablated."""
_BATCH = 16
_FEW = 12
CONTROL = "what one in twenty matched random sets of neurons of the layer exceeds"


class _Task(NamedTuple):
    """What is measured with and without the neurons; one value an independent sample."""

    metric: str
    unit: Unit
    scope: str
    score: Callable[[Change], Float[ndarray, " samples"]]
    harm: int
    """1 where a higher score is worse, -1 where a lower one is; 0: either way."""


@tool(method="captioning")
def ablate_neurons(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) of the MLP neurons.")],
    neurons: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=64, description="Indices of the neurons to ablate."),
    ],
    effect: Annotated[
        Effect,
        Field(
            description="loss: on a corpus; relation: accuracy on the facts of `relation`; "
            "minimal_pair: how far `answer` leads `other` after `prompts`."
        ),
    ] = "loss",
    relation: Annotated[
        str | None, Field(max_length=400, description="For effect relation: its name or file.")
    ] = None,
    prompts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]] | None,
        Field(min_length=1, max_length=64, description="For effect minimal_pair: the prompts."),
    ] = None,
    answer: Annotated[
        str | None, Field(max_length=200, description="For effect minimal_pair: one continuation.")
    ] = None,
    other: Annotated[
        str | None, Field(max_length=200, description="For effect minimal_pair: its rival.")
    ] = None,
    ablation: Annotated[
        Literal["mean", "zero"],
        Field(description="Set the neurons to their mean activation, or to zero."),
    ] = "mean",
    corpus: CorpusArgument = None,
    effort: Annotated[
        Effort, Field(description="quick: fewer samples and random sets; full: all.")
    ] = "full",
) -> ToolSuccess:
    """Switch off MLP neurons and measure what changes, beside matched random neurons.

    `ablation_effect_loss` (nats a token), `ablation_effect_accuracy` (share of facts lost) or
    `ablation_effect_pair` (nats by which the lead of one answer over another changes). An effect is
    the neurons' own when its interval lies above what one in twenty random sets exceeds, which is
    the baseline. This is an intervention: it says what the neurons do, not what they respond to.
    """
    where = UnitLayer(layer=layer)
    check_units(context.subject, where, neurons)
    if len(neurons) * 2 > context.subject.d_mlp:
        raise ToolError(
            f"neurons: {len(neurons)} of the layer's {context.subject.d_mlp} leave none to match"
        )
    _check_arguments(
        effect, {"relation": relation, "prompts": prompts, "answer": answer, "other": other}
    )
    texts = list(corpus_of(context, corpus, "quick").documents)
    # The means come from other texts than the loss.
    scanned, tested = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    task = _task(context, effect, effort, tested, relation, prompts, answer, other)
    scan = scan_layer(context, scanned, where, neurons)
    levels = scan.mean if ablation == "mean" else np.zeros_like(scan.mean)
    sets = matched_sets(context, layer, neurons, scan.density, _RANDOM_SETS[effort])
    intact = task.score(lambda batch: ())
    changes = []
    for number, chosen in enumerate([neurons, *sets]):
        context.step(number, 1 + len(sets), "ablating" if number == 0 else "ablating random sets")
        changed = task.score(partial(ablating, layer, chosen, levels))
        changes.append((changed - intact) * (task.harm or 1.0))
    own, random = changes[0], np.stack(changes[1:])
    measured, p_value = _measured(task, own, random, context.seed)
    described: JsonObject = {
        "layer": layer,
        "neurons": list(neurons),
        "ablation": ablation,
        "effect": effect,
        "intact": float(intact.mean()),
        "change": float(own.mean()) * (task.harm or 1.0),
        "p": p_value,
        "random_sets": [list(chosen) for chosen in sets],
        "random_changes": [float(value) * (task.harm or 1.0) for value in random.mean(axis=1)],
    }
    return ToolSuccess(
        summary=(
            f"ablating {len(neurons)} neurons of layer {layer}: {task.metric} "
            f"{measured.value:.4f} {measured.unit}, one in twenty random sets exceeds "
            f"{measured.baseline:.4f} (rank p = {p_value:.3f})"
        ),
        measurements=(measured,),
        controls=(_typical(task, random, context.seed),),
        output=described,
        caveats=_caveats(len(intact)),
    )


def matched_sets(
    context: ToolContext,
    layer: int,
    neurons: Sequence[int],
    density: Float[ndarray, " units"],
    count: int,
) -> list[tuple[int, ...]]:
    """`count` sets of other neurons, each neuron of a set matched to one that is ablated."""
    generator = np.random.default_rng([context.seed, 6, layer])
    pools = [
        [
            unit
            for unit in matched_units(context.subject, layer, neuron, density)
            if unit not in neurons
        ]
        for neuron in neurons
    ]
    size = max(_POOL, 2 * len(neurons), count)
    sets: list[tuple[int, ...]] = []
    for _ in range(count):
        chosen: list[int] = []
        for pool in pools:
            free = [unit for unit in pool if unit not in chosen][:size]
            chosen.append(int(generator.choice(free)))
        sets.append(tuple(chosen))
    return sets


def ablating(
    layer: int, neurons: Sequence[int], levels: Float[ndarray, " units"], batch: Batch
) -> tuple[Edit]:
    """Sets `neurons` to their `levels` at every token of `batch` but the document start.

    That token is a sink with activations of its own kind, whose loss would drown all else.
    """
    real = ((batch.mask == 1) & (batch.positions > 0))[..., None]
    columns = torch.tensor(list(neurons), device=batch.ids.device)
    values = torch.tensor(levels[list(neurons)], dtype=torch.float32, device=batch.ids.device)

    def apply(activations: Float[Tensor, "batch pos d_mlp"]) -> Float[Tensor, "batch pos d_mlp"]:
        changed = activations.clone()
        changed[..., columns] = torch.where(real, values, changed[..., columns])
        return changed

    return (Edit(Site(layer=layer, kind="mlp_act"), apply),)


def _check_arguments(effect: Effect, given: Mapping[str, object]) -> None:
    wanted = {"loss": (), "relation": ("relation",), "minimal_pair": ("prompts", "answer", "other")}
    for name, value in given.items():
        if (value is not None) != (name in wanted[effect]):
            verb = "needs" if value is None else "takes no"
            raise ToolError(f"effect {effect!r} {verb} argument {name!r}")


def _task(
    context: ToolContext,
    effect: Effect,
    effort: Effort,
    texts: Sequence[str],
    relation: str | None,
    prompts: Sequence[str] | None,
    answer: str | None,
    other: str | None,
) -> _Task:
    subject = context.subject
    if effect == "loss":
        read = list(texts[: _LOSS_DOCUMENTS[effort]])
        return _Task("ablation_effect_loss", "nat", "loss", partial(_losses, subject, read), 1)
    if relation is not None:
        facts = load_relation(relation)
        shots, tested = split_facts(facts, context.seed)
        template = facts.prompt_templates[0]
        lines = "".join(f"{template.format(shot.subject)} {shot.object}\n" for shot in shots)
        asked = tested[: _FACTS[effort]]
        questions = [lines + template.format(sample.subject) for sample in asked]
        objects = [sample.object for sample in asked]
        return _Task(
            "ablation_effect_accuracy",
            "fraction",
            facts.name,
            partial(_accuracies, subject, questions, objects),
            -1,
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
    return _Task(
        "ablation_effect_pair",
        "nat",
        visible(f"{answer!r} over {other!r}", one_line=True),
        partial(_leads, subject, list(prompts), first, second),
        0,
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


def _measured(
    task: _Task,
    own: Float[ndarray, " samples"],
    random: Float[ndarray, "sets samples"],
    seed: int,
) -> tuple[Measurement, float]:
    """The effect beside what one in twenty random sets exceeds, and the p of its rank."""
    means = random.mean(axis=1)
    if task.harm == 0:
        # Either direction counts, for the random sets too.
        own, means = own * (1 if own.mean() >= 0 else -1), np.abs(means)
    value, interval = float(own.mean()), statistics.bootstrap(own, seed)
    allowed = max(0, math.floor(0.05 * (len(means) + 1)) - 1)
    measurement = Measurement(
        metric=task.metric,
        value=value,
        unit=task.unit,
        baseline=float(np.sort(means)[::-1][allowed]),
        control=CONTROL,
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=len(own),
        scope=task.scope,
    )
    return measurement, float(1 + (means >= value).sum()) / (1 + len(means))


def _typical(task: _Task, random: Float[ndarray, "sets samples"], seed: int) -> Measurement:
    means = random.mean(axis=1)
    value, interval = float(means.mean()), statistics.bootstrap(means, seed)
    return Measurement(
        metric=f"{task.metric}_of_random_sets",
        value=value,
        unit=task.unit,
        baseline=0.0,
        control="no ablation",
        ci95=(min(interval.low, value), max(interval.high, value)),
        n=len(means),
        scope=task.scope,
    )


def _caveats(n_samples: int) -> tuple[str, ...]:
    caveats = ["The neurons are switched off one layer deep: later layers may make up for them."]
    if n_samples < _FEW:
        caveats.append(f"Only {n_samples} samples stand behind the interval.")
    return tuple(caveats)
