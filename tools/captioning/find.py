"""`find_exemplars`: the texts that activate units most, beside texts that leave them silent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from dragoman.core.errors import ToolError, UserError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Measurement, ToolSuccess, canonical_json
from dragoman.tools.captioning.arguments import (
    CorpusArgument,
    DictionaryArgument,
    ImagesArgument,
    KindArgument,
    latents_of,
    only_texts,
)
from dragoman.tools.captioning.corpora import TextCorpus, open_corpus
from dragoman.tools.captioning.corpus import sample_corpus
from dragoman.tools.captioning.exemplars import TOP_CONTEXTS, Exemplar
from dragoman.tools.captioning.passes import collect
from dragoman.tools.captioning.store import ExemplarStore
from dragoman.tools.captioning.units import UnitLayer, check_units
from dragoman.tools.captioning.vision.tool import find_images, only_pictures
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.statistics import wilson

_DOCUMENTS: dict[Effort, int] = {"quick": 200, "full": 1000}
_SHOWN = 5
_BEFORE, _AFTER = 12, 4
"""Tokens of context that are shown around a peak."""
_FEW_POSITIONS = 5000


@tool(method="captioning", subjects=("language", "vision"))
def find_exemplars(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Layer (block) whose units are looked at.")],
    units: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=64, description="Indices of the units, 1 to 64 of them."),
    ],
    kind: KindArgument = "mlp",
    corpus: CorpusArgument = None,
    dictionary: DictionaryArgument = None,
    effort: Annotated[
        Effort,
        Field(description="quick: 200 texts; full: 1000 sampled ones, or all of a corpus."),
    ] = "full",
    images: ImagesArgument = None,
) -> ToolSuccess:
    """Show the texts in which units are most active, the peak marked, and texts without activity.

    Answers: on which text does neuron 77 of layer 12 fire, how often, how strongly? Each of the 15
    strongest contexts comes from another document; the threshold is the unit's 0.99 quantile over
    the whole corpus; the silent contexts are drawn at random. It describes nothing in words:
    caption_neurons does. All units of the layer are read at once, so asking again about others
    costs nothing. Of a vision subject's channels it shows the images, each with its mask.
    """
    if context.network.kind == "vision":
        only_pictures(corpus=corpus, dictionary=dictionary, kind=None if kind == "mlp" else kind)
        return find_images(context, layer, units, images=images, effort=effort)
    only_texts(images)
    where = UnitLayer(kind=kind, layer=layer)
    context.subject.check_layer(layer)
    latents = latents_of(where, dictionary)
    check_units(context.subject, where, units, latents)
    text = streamed(context, corpus, effort)
    try:
        store = collect(context, text, [where], dictionary=latents)
    except UserError as error:
        # The corpus is read by the pass: a bad line far down comes up here.
        raise ToolError(f"corpus: {error}") from None
    entries = [entry_of(store, where, unit) for unit in units]
    description: JsonObject = {
        "corpus": text.description,
        "n_documents": store.manifest.n_documents,
        "n_positions": store.n_positions,
    }
    every = canonical_json({**description, "units": entries})
    briefly: list[JsonObject] = [{**entry, **_brief(entry)} for entry in entries]
    return ToolSuccess(
        summary=_summary(where, entries, store),
        measurements=tuple(_densities(store, where, units)),
        output={**description, "units": list(briefly)},
        artifacts=(context.save("exemplars.json", every, "application/json"),),
        caveats=_caveats(store),
    )


def streamed(context: ToolContext, path: str | None, effort: Effort) -> TextCorpus:
    """A person's texts, all of them or the first few, or the subject's own; else `ToolError`."""
    if path is None:
        return sample_corpus(context, _DOCUMENTS[effort])
    try:
        texts = open_corpus(Path(path).expanduser())
        return texts.first(_DOCUMENTS["quick"]) if effort == "quick" else texts
    except UserError as error:
        raise ToolError(f"corpus: {error}") from None


def entry_of(store: ExemplarStore, where: UnitLayer, unit: int) -> JsonObject:
    """Exemplars and silent contexts of one unit, escaped, the strongest first."""
    summaries = store.summaries[where]
    dead = bool(summaries.dead()[unit])
    found = [] if dead else store.exemplars(where, unit)
    silent = [] if dead else store.silent(where, unit, TOP_CONTEXTS)
    entry: JsonObject = {
        "unit": f"{where}.{unit}",
        "threshold": round(float(store.thresholds(where)[unit]), 4),
        "density": round(float(summaries.density()[unit]), 4),
        "exemplars": [_shown(store, exemplar) for exemplar in found],
        "silent": [
            {"document": document, "text": visible("".join(store.context(document, start)))}
            for document, start in silent
        ],
    }
    if dead:
        entry["reason"] = "dead on this corpus: never above zero, or always the same"
    return entry


def _shown(store: ExemplarStore, exemplar: Exemplar) -> JsonObject:
    document, position, activation = exemplar
    text = store.text(document)
    return {
        "document": document,
        "position": position,
        "activation": round(activation, 4),
        "before": visible("".join(text.tokens(position - _BEFORE, position))),
        "token": visible("".join(text.tokens(position, position + 1))),
        "after": visible("".join(text.tokens(position + 1, position + 1 + _AFTER))),
    }


def _brief(entry: JsonObject) -> JsonObject:
    kept: JsonObject = {}
    for name in ("exemplars", "silent"):
        listed = entry[name]
        assert isinstance(listed, list)
        kept[name] = listed[:_SHOWN]
    return kept


def _densities(store: ExemplarStore, where: UnitLayer, units: Sequence[int]) -> list[Measurement]:
    density = store.summaries[where].density()
    n = store.manifest.n_documents
    return [
        Measurement(
            metric="activation_density",
            value=float(density[unit]),
            unit="fraction",
            baseline=float(np.median(density)),
            control=f"median of the {len(density)} units of {where}",
            # Positions of one document are not independent: the interval counts documents.
            ci95=wilson(float(density[unit]) * n, n),
            n=n,
            scope=f"unit {where}.{unit}",
        )
        for unit in units
    ]


def _summary(where: UnitLayer, entries: Sequence[JsonObject], store: ExemplarStore) -> str:
    dead = sum("reason" in entry for entry in entries)
    told = f"; {dead} of them dead on these texts" if dead else ""
    return (
        f"The strongest contexts of {len(entries)} units of {where} among "
        f"{store.manifest.n_documents} texts ({store.n_positions} tokens){told}."
    )


def _caveats(store: ExemplarStore) -> tuple[str, ...]:
    caveats = ["Exemplars show when a unit is active (correlation), not what it causes."]
    if store.n_positions < _FEW_POSITIONS:
        caveats.append(
            f"{store.n_positions} tokens are few for a 0.99 quantile: thresholds are rough."
        )
    return tuple(caveats)
