"""`ablate_neurons`: what a subject loses without some of its units.

Each effect stands beside the same ablation of matched random sets: as many other units, drawn from
those nearest in density and in the norm of what they write. Any units do some harm; what counts is
how much more these do.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, JsonValue

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, ToolSuccess
from dragoman.tools.captioning.ablation_effects import RANDOM_SETS, measured, typical
from dragoman.tools.captioning.ablation_tasks import Effect, Given, check_arguments, task_of
from dragoman.tools.captioning.ablation_units import (
    Ablation,
    ablating,
    check_ablation,
    plan_ablation,
)
from dragoman.tools.captioning.arguments import (
    CorpusArgument,
    DictionaryArgument,
    ImagesArgument,
    KindArgument,
    latents_of,
    only_texts,
)
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.levers import Lever
from dragoman.tools.captioning.rows import RowKind
from dragoman.tools.captioning.search import search, stored_captions
from dragoman.tools.captioning.tool import corpus_of
from dragoman.tools.captioning.units import UnitKind, UnitLayer, noun
from dragoman.tools.captioning.vision.ablation import ablate_channels
from dragoman.tools.captioning.vision.tool import only_pictures
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool

AnyEffect: TypeAlias = Literal["loss", "relation", "minimal_pair", "class_accuracy"]

_MOST_UNITS = 64
_FEW = 12


@tool(method="captioning", subjects=("language", "vision"), reads=stored_captions)
def ablate_neurons(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) of the units.")],
    neurons: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(min_length=1, max_length=64, description="Indices of the units to ablate."),
    ] = None,
    effect: Annotated[
        AnyEffect | None,
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
            description="Set the units to their mean (heads: to the mean of what they write) or "
            "to zero; without it mean, of a vision subject's channels zero."
        ),
    ] = None,
    corpus: CorpusArgument = None,
    concept: Annotated[
        str | None,
        Field(
            max_length=200,
            description="In place of neurons: those units of the layer whose stored captions are "
            "near this concept.",
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
    kind: KindArgument = "mlp",
    dictionary: DictionaryArgument = None,
) -> ToolSuccess:
    """Switch off neurons or other units and measure what changes, beside matched random units.

    `ablation_effect_loss` (nats a token), `ablation_effect_accuracy` (share of facts lost),
    `ablation_effect_pair` (nats by which the lead of one answer over another changes) or, of a
    vision subject's channels, `ablation_effect_class_accuracy` (share of right answers lost). An
    effect is the units' own when its interval lies above what one in twenty random sets exceeds,
    which is the baseline. This is an intervention: it says what the units do, not what they respond
    to. With `concept` the units are those whose captions say so.
    """
    if context.network.kind == "vision":
        only_pictures(
            corpus=corpus,
            relation=relation,
            prompts=prompts,
            answer=answer,
            other=other,
            dictionary=dictionary,
            kind=None if kind == "mlp" else kind,
        )
        if effect not in (None, "class_accuracy") or ablation == "mean":
            raise ToolError(
                "effect, ablation: a vision subject's channels are set to zero, and the effect is "
                "class_accuracy"
            )
        chosen = _chosen(context, layer, "channel", neurons, concept)
        return ablate_channels(
            context, layer, chosen, images=images, classes=classes or (), effort=effort
        )
    only_texts(images)
    if effect == "class_accuracy" or classes is not None:
        raise ToolError("effect class_accuracy, classes: these are for vision subjects")
    where = UnitLayer(kind=kind, layer=layer)
    context.subject.check_layer(layer)
    latents = latents_of(where, dictionary)
    return _ablate(
        context,
        where,
        _chosen(context, layer, kind, neurons, concept, latents),
        effect or "loss",
        Given(relation, prompts, answer, other),
        ablation or "mean",
        corpus,
        effort,
        latents,
    )


def _chosen(
    context: ToolContext,
    layer: int,
    kind: RowKind,
    neurons: Sequence[int] | None,
    concept: str | None,
    dictionary: SparseDictionary | None = None,
) -> list[int]:
    """The units that are named, or those whose stored captions are near a concept."""
    if (neurons is None) == (concept is None):
        raise ToolError("neurons, concept: give one of them")
    if neurons is not None:
        return list(neurons)
    assert concept is not None
    whose = "" if dictionary is None else dictionary.short_digest
    found = search(context, concept, k=_MOST_UNITS, layer=layer, kind=kind, dictionary=whose)
    near = [match.entry.unit for match in found.matches if match.near]
    if not near:
        told = "; the nearest is " + repr(found.matches[0].text) if found.matches else ""
        count = len(found.holdings.entries)
        called = "units" if kind == "channel" else noun(kind, count)
        raise ToolError(
            f"concept {concept!r}: of {count} {called} of layer "
            f"{layer} whose captions are stored none is near it{told}; caption_neurons or "
            f"`dragoman caption` captions more{_OF_LATENTS if kind == 'latent' else ''}"
        )
    return near


def _ablate(
    context: ToolContext,
    where: UnitLayer,
    units: Sequence[int],
    effect: Effect,
    given: Given,
    ablation: Ablation,
    corpus: str | None,
    effort: Effort,
    dictionary: SparseDictionary | None,
) -> ToolSuccess:
    """Ablate units of a language subject."""
    count = RANDOM_SETS[effort]
    check_ablation(context.subject, where, units, count, dictionary)
    check_arguments(effect, given)
    texts = list(corpus_of(context, corpus, "quick").documents)
    # The means come from other texts than the loss.
    scanned, tested = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    task = task_of(context, effect, effort, tested, given)
    plan = plan_ablation(context, where, units, scanned, ablation, count, dictionary)
    intact = task.score(lambda batch: ())
    changes = []
    for number, chosen in enumerate([plan.own, *plan.random]):
        context.step(number, 1 + count, "ablating" if number == 0 else "ablating random sets")
        changed = task.score(partial(ablating, chosen, plan.levels))
        changes.append((changed - intact) * (task.measured.harm or 1.0))
    own, random = changes[0], np.stack(changes[1:])
    what = task.measured._replace(units=plan.among)
    found, p_value = measured(what, own, random, context.seed)
    described: JsonObject = {
        "layer": where.layer,
        "kind": where.kind,
        "neurons": list(units),
        "ablation": ablation,
        "effect": effect,
        "intact": float(intact.mean()),
        "change": float(own.mean()) * (what.harm or 1.0),
        "p": p_value,
        "random_sets": [_told(chosen) for chosen in plan.random],
        "random_changes": [float(value) * (what.harm or 1.0) for value in random.mean(axis=1)],
    }
    return ToolSuccess(
        summary=(
            f"ablating {len(units)} {noun(where.kind, len(units))} of layer {where.layer}: "
            f"{what.metric} {found.value:.4f} {found.unit}, one in twenty random sets exceeds "
            f"{found.baseline:.4f} (rank p = {p_value:.3f})"
        ),
        measurements=(found,),
        controls=(typical(what, random, context.seed),),
        output=described,
        caveats=_caveats(where.kind, len(intact)),
    )


def _told(units: Sequence[Lever]) -> list[JsonValue]:
    """Indices of the units; of heads, which may be of several layers, the names."""
    return [each.name if each.levers.where.kind == "head" else each.unit for each in units]


_OF_LATENTS = (
    " (captions of another autoencoder, or stored before they said of which they are, do not count)"
)
_OF_KIND: dict[UnitKind, str] = {
    "resid": "A component of the stream is a direction of its basis, which need not mean anything.",
    "head": "The random sets are heads of this layer and of the nearest ones; in the first and the "
    "last layers any head may do more, or less, than those of its neighbours.",
    "latent": "What the autoencoder does not reconstruct is left as it was.",
}


def _caveats(kind: UnitKind, n_samples: int) -> tuple[str, ...]:
    caveats = [
        f"The {noun(kind)} are switched off in one layer: later layers may make up for them."
    ]
    if kind in _OF_KIND:
        caveats.append(_OF_KIND[kind])
    if n_samples < _FEW:
        caveats.append(f"Only {n_samples} samples stand behind the interval.")
    return tuple(caveats)
