"""`score_caption`: how well anybody's caption of a unit holds."""

from typing import Annotated

from pydantic import Field

from dragoman.core.errors import ToolError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, ToolSuccess
from dragoman.tools.captioning.arguments import (
    CorpusArgument,
    DictionaryArgument,
    ImagesArgument,
    KindArgument,
    latents_of,
    only_texts,
)
from dragoman.tools.captioning.bench import lay_out
from dragoman.tools.captioning.examination import NO_TWIN, Examination, examine
from dragoman.tools.captioning.hearing import Said, chat_judge_for
from dragoman.tools.captioning.predicates import PREDICATE, phrase
from dragoman.tools.captioning.reading import read
from dragoman.tools.captioning.rows import unit_name
from dragoman.tools.captioning.scoring import MIN_ACTIVE
from dragoman.tools.captioning.tool import DECOYS, EFFORT, decoys, texts_of
from dragoman.tools.captioning.units import UnitLayer, check_units, n_units
from dragoman.tools.captioning.vision.score import score_channel
from dragoman.tools.captioning.vision.tool import only_pictures
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool


@tool(method="captioning", uses_chat=True, subjects=("language", "vision"))
def score_caption(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) of the unit.")],
    neuron: Annotated[int, Field(ge=0, description="Index of the neuron, or other unit.")],
    caption: Annotated[
        str,
        Field(
            min_length=2,
            max_length=200,
            description='What the neuron is said to respond to, such as: the word "gold".',
        ),
    ],
    corpus: CorpusArgument = None,
    effort: Annotated[Effort, Field(description=EFFORT)] = "full",
    images: ImagesArgument = None,
    kind: KindArgument = "mlp",
    dictionary: DictionaryArgument = None,
) -> ToolSuccess:
    """Score a caption of a unit that a person, a paper or another tool proposes.

    All scores stand beside their floors: detection and fuzzing (in which texts, at which tokens is
    the unit active), simulation, embedding, likelihood, and a chat model's verdict where there is
    one. A caption that quotes words or names classes of tokens or topics is checked by rule; any
    other is judged by a sentence embedder. `causal_effect` says whether the unit acts on the text
    that the caption predicts, more than like units do and more than on other words. A caption of a
    vision subject's channel is scored on images.
    """
    if context.network.kind == "vision":
        only_pictures(corpus=corpus, dictionary=dictionary, kind=None if kind == "mlp" else kind)
        return score_channel(context, layer, neuron, caption, images=images, effort=effort)
    only_texts(images)
    where = UnitLayer(kind=kind, layer=layer)
    context.subject.check_layer(layer)
    latents = latents_of(where, dictionary)
    check_units(context.subject, where, [neuron], latents)
    texts = texts_of(context, corpus, where, effort, latents)
    every = n_units(context.subject, where, latents)
    others = decoys(context, where, [neuron], every, DECOYS[effort])
    bench = lay_out(
        context, where, [neuron], others, texts.corpus, whole=texts.whole, dictionary=latents
    )
    name, predicate = unit_name(kind, layer, neuron), read(caption)
    if bench.captioner.dead(0):
        raise ToolError(
            f"unit {name} is dead on this corpus: never above zero, or always "
            "the same; another corpus may rouse it"
        )
    judge = chat_judge_for(context)
    (found,) = examine(
        context, bench, [Said(caption, predicate)], [name], effort=effort, chat=judge
    )
    if found is None:
        raise ToolError(
            f"unit {name} has fewer than {MIN_ACTIVE} active or silent "
            "held-out contexts, so no caption of it can be scored; give more texts"
        )
    described: JsonObject = {
        "unit": name,
        "caption": visible(caption),
        "holds": found.holds,
        "predicate": None if predicate is None else PREDICATE.dump_python(predicate, mode="json"),
        "read_as": None if predicate is None else phrase(predicate),
        "judged_by": _judged_by(predicate is not None, list(found.assessment.output)),
        "corpus": texts.corpus.description,
        **found.output,
    }
    if judge is not None:
        described |= {**judge.calls.cost(1), "chat_texts_per_call": judge.texts_a_call}
    detection = found.measurements[0]
    return ToolSuccess(
        summary=(
            f"the caption {_outcome(found)} on unit {name}: detection {detection.value:.2f}, "
            f"floor {detection.baseline:.2f}"
        ),
        measurements=found.measurements,
        controls=found.controls,
        output=described,
        caveats=_caveats(predicate is not None, twin=bool(found.twin)),
    )


def _outcome(found: Examination) -> str:
    if found.holds:
        return "beats its floor"
    if found.assessment.holds:
        return "beats its floor, but not what captions of random units reach,"
    return "does not beat its floor"


def _judged_by(checkable: bool, metrics: list[str]) -> str:
    if checkable:
        return "rule"
    return next((name for name in ("embedding", "likelihood") if name in metrics), "nothing")


def _caveats(checkable: bool, *, twin: bool) -> tuple[str, ...]:
    caveats = [
        "Detection, fuzzing and simulation are correlational; causal_effect alone is of an "
        "intervention."
    ]
    if not checkable:
        caveats.append(
            "The caption quotes no words and names no class or topic that is known: it was judged "
            "by nearness in meaning, without fuzzing or simulation."
        )
    if not twin:
        caveats.append(NO_TWIN)
    return tuple(caveats)
