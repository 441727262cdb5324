"""`ablate_neurons`: what a subject loses without some of its MLP neurons.

Each effect stands beside the same ablation of matched random sets: as many other neurons of the
layer, drawn from those nearest in density and in the norm of their output weights. Any neurons do
some harm; what counts is how much more these do.
"""

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
from dragoman.core.records import JsonObject, Site, ToolSuccess
from dragoman.tools.behaviour.knowledge import split_facts
from dragoman.tools.captioning.ablation_effects import RANDOM_SETS, Measured, measured, typical
from dragoman.tools.captioning.arguments import CorpusArgument, ImagesArgument, only_texts
from dragoman.tools.captioning.levers import mlp_levers
from dragoman.tools.captioning.neighbours import scan_layer
from dragoman.tools.captioning.rows import RowKind
from dragoman.tools.captioning.search import search
from dragoman.tools.captioning.tool import corpus_of
from dragoman.tools.captioning.units import UnitLayer, check_units
from dragoman.tools.captioning.vision.ablation import ablate_channels
from dragoman.tools.captioning.vision.tool import only_pictures
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import is_prefix, load_relation
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject

Effect: TypeAlias = Literal["loss", "relation", "minimal_pair", "class_accuracy"]
Change: TypeAlias = Callable[[Batch], Sequence[Edit]]
"""The edits of one batch: they spare its padding and its document start."""

_LOSS_DOCUMENTS: dict[Effort, int] = {"quick": 24, "full": 60}
_FACTS: dict[Effort, int] = {"quick": 24, "full": 60}
_POOL = 8
"""Matched neurons in the pool for each that is ablated."""
_BATCH = 16
_MOST_NEURONS = 64
_FEW = 12


class _Task(NamedTuple):
    """What is measured, and how: one value an independent sample, given the edits."""

    measured: Measured
    score: Callable[[Change], Float[ndarray, " samples"]]


@tool(method="captioning", subjects=("language", "vision"))
def ablate_neurons(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) of the neurons.")],
    neurons: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(min_length=1, max_length=64, description="Indices of the neurons to ablate."),
    ] = None,
    effect: Annotated[
        Effect | None,
        Field(
            description="loss: on a corpus; relation: accuracy on the facts of `relation`; "
            "minimal_pair: how far `answer` leads `other` after `prompts`; class_accuracy (vision "
            "subjects): on images of `classes`. Without it loss or class_accuracy."
        ),
    ] = None,
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
        Literal["mean", "zero"] | None,
        Field(
            description="Set the neurons to their mean activation (language) or to zero (vision)."
        ),
    ] = None,
    corpus: CorpusArgument = None,
    concept: Annotated[
        str | None,
        Field(
            max_length=200,
            description="In place of neurons: those of the layer whose stored captions are near "
            "this concept.",
        ),
    ] = None,
    images: ImagesArgument = None,
    classes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
        Field(
            min_length=1,
            max_length=64,
            description="For effect class_accuracy: names of classes, or of kinds of things, such "
            "as dogs; all classes without it.",
        ),
    ] = None,
    effort: Annotated[
        Effort, Field(description="quick: fewer samples and random sets; full: all.")
    ] = "full",
) -> ToolSuccess:
    """Switch off neurons and measure what changes, beside matched random neurons.

    `ablation_effect_loss` (nats a token), `ablation_effect_accuracy` (share of facts lost),
    `ablation_effect_pair` (nats by which the lead of one answer over another changes) or, of a
    vision subject's channels, `ablation_effect_class_accuracy` (share of right answers lost). An
    effect is the neurons' own when its interval lies above what one in twenty random sets exceeds,
    which is the baseline. This is an intervention: it says what the neurons do, not what they
    respond to. With `concept` the neurons are those whose captions say so.
    """
    chosen = _chosen(context, layer, neurons, concept)
    if context.network.kind == "vision":
        only_pictures(corpus=corpus, relation=relation, prompts=prompts, answer=answer, other=other)
        if effect not in (None, "class_accuracy") or ablation == "mean":
            raise ToolError(
                "effect, ablation: a vision subject's channels are set to zero, and the effect is "
                "class_accuracy"
            )
        return ablate_channels(
            context, layer, chosen, images=images, classes=classes or (), effort=effort
        )
    only_texts(images)
    if effect == "class_accuracy" or classes is not None:
        raise ToolError("effect class_accuracy, classes: these are for vision subjects")
    return _ablate(
        context,
        layer,
        chosen,
        effect or "loss",
        _Given(relation, prompts, answer, other),
        ablation or "mean",
        corpus,
        effort,
    )


def _chosen(
    context: ToolContext, layer: int, neurons: Sequence[int] | None, concept: str | None
) -> list[int]:
    """The neurons that are named, or those whose stored captions are near a concept."""
    if (neurons is None) == (concept is None):
        raise ToolError("neurons, concept: give one of them")
    if neurons is not None:
        return list(neurons)
    assert concept is not None
    kind: RowKind = "channel" if context.network.kind == "vision" else "mlp"
    found = search(context, concept, k=_MOST_NEURONS, layer=layer, kind=kind)
    near = [match.entry.unit for match in found.matches if match.near]
    if not near:
        told = "; the nearest is " + repr(found.matches[0].text) if found.matches else ""
        raise ToolError(
            f"concept {concept!r}: of {len(found.holdings.entries)} units of layer {layer} whose "
            f"captions are stored none is near it{told}; caption_neurons or `dragoman caption` "
            "captions more"
        )
    return near


class _Given(NamedTuple):
    """Arguments that only some effects take."""

    relation: str | None
    prompts: Sequence[str] | None
    answer: str | None
    other: str | None


def _ablate(
    context: ToolContext,
    layer: int,
    neurons: Sequence[int],
    effect: Effect,
    given: _Given,
    ablation: Literal["mean", "zero"],
    corpus: str | None,
    effort: Effort,
) -> ToolSuccess:
    """Ablate MLP neurons of a language subject."""
    where = UnitLayer(layer=layer)
    check_units(context.subject, where, neurons)
    if len(neurons) * 2 > context.subject.d_mlp:
        raise ToolError(
            f"neurons: {len(neurons)} of the layer's {context.subject.d_mlp} leave none to match"
        )
    _check_arguments(effect, given._asdict())
    texts = list(corpus_of(context, corpus, "quick").documents)
    # The means come from other texts than the loss.
    scanned, tested = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    task = _task(context, effect, effort, tested, *given)
    scan = scan_layer(context, scanned, where, neurons)
    levels = scan.mean if ablation == "mean" else np.zeros_like(scan.mean)
    sets = matched_sets(context, layer, neurons, scan.density, RANDOM_SETS[effort])
    intact = task.score(lambda batch: ())
    changes = []
    for number, chosen in enumerate([neurons, *sets]):
        context.step(number, 1 + len(sets), "ablating" if number == 0 else "ablating random sets")
        changed = task.score(partial(ablating, layer, chosen, levels))
        changes.append((changed - intact) * (task.measured.harm or 1.0))
    own, random = changes[0], np.stack(changes[1:])
    found, p_value = measured(task.measured, own, random, context.seed)
    described: JsonObject = {
        "layer": layer,
        "neurons": list(neurons),
        "ablation": ablation,
        "effect": effect,
        "intact": float(intact.mean()),
        "change": float(own.mean()) * (task.measured.harm or 1.0),
        "p": p_value,
        "random_sets": [list(chosen) for chosen in sets],
        "random_changes": [
            float(value) * (task.measured.harm or 1.0) for value in random.mean(axis=1)
        ],
    }
    return ToolSuccess(
        summary=(
            f"ablating {len(neurons)} neurons of layer {layer}: {task.measured.metric} "
            f"{found.value:.4f} {found.unit}, one in twenty random sets exceeds "
            f"{found.baseline:.4f} (rank p = {p_value:.3f})"
        ),
        measurements=(found,),
        controls=(typical(task.measured, random, context.seed),),
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
    levers = mlp_levers(context.subject, layer)
    pools = [
        [unit for unit in levers.matched(neuron, density) if unit not in neurons]
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
    wanted: dict[str, tuple[str, ...]] = {
        "loss": (),
        "relation": ("relation",),
        "minimal_pair": ("prompts", "answer", "other"),
    }
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
        return _Task(
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
        return _Task(
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
    return _Task(
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


def _caveats(n_samples: int) -> tuple[str, ...]:
    caveats = ["The neurons are switched off one layer deep: later layers may make up for them."]
    if n_samples < _FEW:
        caveats.append(f"Only {n_samples} samples stand behind the interval.")
    return tuple(caveats)
