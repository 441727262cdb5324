"""`caption_neurons`: what units respond to, and how far the description can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from dragoman.core.errors import ToolError, UserError
from dragoman.core.records import (
    JsonObject,
    ToolSuccess,
    canonical_json,
    content_id,
)
from dragoman.tools.captioning import figures, whole
from dragoman.tools.captioning.arguments import (
    CaptionerArgument,
    CorpusArgument,
    DictionaryArgument,
    ImagesArgument,
    KindArgument,
    latents_of,
    only_texts,
)
from dragoman.tools.captioning.assessment import said_of
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.bench import Bench, lay_out
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.describing import Choices, choose_all, with_captioning_chat
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.entries import shown
from dragoman.tools.captioning.examination import NO_TWIN, Examination, described, examine, row_of
from dragoman.tools.captioning.reranking import TAU
from dragoman.tools.captioning.rows import unit_name
from dragoman.tools.captioning.units import (
    UnitLayer,
    check_units,
    n_units,
)
from dragoman.tools.captioning.vision.chat_proposer import proposers_of
from dragoman.tools.captioning.vision.local_proposer import local_proposers
from dragoman.tools.captioning.vision.tool import caption_channels, only_pictures
from dragoman.tools.captioning.whole import Texts
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool

DOCUMENTS: dict[Effort, int] = {"quick": 200, "full": 1000}
DECOYS: dict[Effort, int] = {"quick": 12, "full": 24}
EFFORT = "quick: 200 texts; full: 1000, and the strongest contexts of all of a larger corpus."


@tool(method="captioning", uses_chat=True, subjects=("language", "vision"))
def caption_neurons(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) whose units are described.")],
    neurons: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=16, description="Indices of the units, 1 to 16 of them."),
    ],
    corpus: CorpusArgument = None,
    effort: Annotated[Effort, Field(description=EFFORT)] = "full",
    kind: KindArgument = "mlp",
    dictionary: DictionaryArgument = None,
    pmi: Annotated[
        bool,
        Field(description="Weigh captions by pointwise mutual information; false leaves it out."),
    ] = True,
    images: ImagesArgument = None,
    captioner: CaptionerArgument = None,
) -> ToolSuccess:
    """Describe in words what each unit responds to, and score each description.

    Answers: what is neuron 77 of layer 12 sensitive to, if anything that has a name? A caption is
    given only where its detection score beats that of shuffled captions and, at full effort, where
    it says more of the unit than captions of random units say of theirs; else the result says which
    of the two it failed. A unit that responds to several things gets a caption, a score and a share
    for each. These scores are correlational: they say when a unit is active, not what it does.
    `causal_effect` says that: whether ablating the unit changes the text that its caption predicts
    by more than as large a change of like units does (for a head: heads of the nearest layers),
    and by more than it changes other words.

    Units of a vision subject are the channels of a layer, watched on images.
    """
    if context.network.kind == "vision":
        only_pictures(corpus=corpus, dictionary=dictionary, kind=None if kind == "mlp" else kind)
        return caption_channels(
            context,
            layer,
            neurons,
            images=images,
            effort=effort,
            pmi=pmi,
            proposers=[*proposers_of(context), *local_proposers(captioner)],
        )
    only_texts(images, captioner)
    context = with_captioning_chat(context)
    where = UnitLayer(kind=kind, layer=layer)
    context.subject.check_layer(layer)
    latents = latents_of(where, dictionary)
    check_units(context.subject, where, neurons, latents)
    texts = texts_of(context, corpus, where, effort, latents)
    every = n_units(context.subject, where, latents)
    others = decoys(context, where, neurons, every, DECOYS[effort])
    bench = lay_out(
        context, where, neurons, others, texts.corpus, whole=texts.whole, dictionary=latents
    )
    names = [unit_name(kind, layer, neuron) for neuron in neurons]
    choices = choose_all(context, bench.captioner, names, pmi=pmi)
    examined = examine(
        context,
        bench,
        [said_of(chosen) for chosen in choices.chosen],
        names,
        effort=effort,
        pmi=pmi,
    )
    tau = TAU if pmi else 0.0
    entries, rows = [], []
    for unit, (chosen, found) in enumerate(zip(choices.chosen, examined, strict=True)):
        entries.append(described(bench, unit, chosen, found, tau))
        rows.append(row_of(bench, unit, entries[-1], found))
    # So that search_neurons finds them; another effort, corpus or autoencoder is another source.
    called = [texts.corpus.id, len(texts.corpus.documents), effort, names, pmi, context.seed]
    whose = "" if latents is None else latents.digest
    atlas = Atlas(context.home, context.subject.identity.digest)
    atlas.store(content_id(["caption_neurons", *called, whose]), rows)
    return _result(context, bench, choices, examined, entries, tau)


def texts_of(
    context: ToolContext,
    path: str | None,
    where: UnitLayer,
    effort: Effort,
    dictionary: SparseDictionary | None,
) -> Texts:
    """A person's texts or the subject's own; at full effort a larger corpus is read whole.

    `ToolError` names what is wrong with a file.
    """
    return _texts(context, path, [where], effort, entire=effort == "full", dictionary=dictionary)


def corpus_of(context: ToolContext, path: str | None, effort: Effort) -> Corpus:
    """A person's first texts, or the subject's own; `ToolError` names what is wrong with a file."""
    return _texts(context, path, (), effort, entire=False).corpus


def _texts(
    context: ToolContext,
    path: str | None,
    wheres: Sequence[UnitLayer],
    effort: Effort,
    *,
    entire: bool,
    dictionary: SparseDictionary | None = None,
) -> Texts:
    file = None if path is None else Path(path)
    try:
        return whole.texts_of(
            context, file, wheres, DOCUMENTS[effort], entire=entire, dictionary=dictionary
        )
    except UserError as error:
        raise ToolError(f"corpus: {error}") from None


def decoys(
    context: ToolContext, where: UnitLayer, chosen: Sequence[int], n_units: int, wanted: int
) -> list[int]:
    """Other units of the layer, for the floor; the same ones whichever units are asked for."""
    order = np.random.default_rng([context.seed, where.layer]).permutation(n_units)
    others = [int(unit) for unit in order if unit not in chosen]
    return others[:wanted]


def _result(
    context: ToolContext,
    bench: Bench,
    choices: Choices,
    examined: Sequence[Examination | None],
    entries: Sequence[JsonObject],
    tau: float,
) -> ToolSuccess:
    captioner, corpus = bench.captioner, bench.corpus
    scored = [found for found in examined if found is not None]
    measurements = [each for found in scored for each in found.measurements]
    controls = [each for found in scored for each in found.controls]
    description: JsonObject = {
        "captions": list(entries),
        "corpus": corpus.description,
        "tau": tau,
        **choices.cost(),
    }
    artifacts = [
        context.save(
            "captions.json", _exemplar_file(captioner, entries, description), "application/json"
        )
    ]
    detections = [each for each in measurements if each.metric == "detection"]
    if detections:
        held = [found.holds for found in scored]
        plot = figures.detection_plot(detections, held)
        artifacts.append(context.save("detection.svg", plot, "image/svg+xml"))
    return ToolSuccess(
        summary=_summary(str(bench.where), entries),
        measurements=tuple(measurements),
        controls=tuple(controls),
        output=description,
        artifacts=tuple(artifacts),
        caveats=_caveats(entries, examined, choices.n_failed),
    )


def _exemplar_file(
    captioner: Captioner, entries: Sequence[JsonObject], description: JsonObject
) -> str:
    units = [{**entry, "exemplars": shown(captioner, unit)} for unit, entry in enumerate(entries)]
    return canonical_json({**description, "captions": units})


def _summary(where: str, entries: Sequence[JsonObject]) -> str:
    named = [entry for entry in entries if entry["caption"] is not None]
    captions = "; ".join(f"{entry['unit']}: {entry['caption']}" for entry in named[:4])
    more = f"; and {len(named) - 4} more" if len(named) > 4 else ""
    told = f" ({captions}{more})" if named else ""
    return (
        f"{len(named)} of {len(entries)} units of {where} have a caption "
        f"that beats its floor{told}."
    )


def _caveats(
    entries: Sequence[JsonObject], examined: Sequence[Examination | None], chat_failures: int
) -> tuple[str, ...]:
    caveats = [
        "A caption tells when a neuron is active (correlation); what it causes is told by "
        "causal_effect alone."
    ]
    unscored = [str(entry["unit"]) for entry in entries if "not scored" in str(entry.get("reason"))]
    if unscored:
        caveats.append(f"Too few held-out contexts to score {', '.join(unscored)}.")
    if any(examined) and not any(found.twin for found in examined if found is not None):
        caveats.append(NO_TWIN)
    if chat_failures:
        caveats.append(
            f"{chat_failures} captions or replies of the chat model said nothing checkable."
        )
    return tuple(caveats)
