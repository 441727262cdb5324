"""`caption_neurons`: what MLP neurons respond to, and how far the description can be trusted."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dragoman.core.errors import ToolError, UserError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Measurement, ToolSuccess, canonical_json
from dragoman.tools.captioning import chat_proposer, figures, scoring
from dragoman.tools.captioning.captioner import Candidate, Captioner, Chosen, readable
from dragoman.tools.captioning.corpus import Corpus, read_corpus, sample_corpus
from dragoman.tools.captioning.predicates import PREDICATE
from dragoman.tools.captioning.reranking import TAU, log_priors
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import check_units, read_units
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool

_DOCUMENTS: dict[Effort, int] = {"quick": 200, "full": 1000}
_DECOYS: dict[Effort, int] = {"quick": 12, "full": 24}
_SHOWN_EXEMPLARS = 5
_ASKED_EXEMPLARS = 4
_NO_CAPTION = "no caption beats its floor"


@tool(method="captioning", uses_chat=True)
def caption_neurons(
    context: ToolContext,
    layer: Annotated[int, Field(ge=0, description="Block whose MLP neurons are described.")],
    neurons: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=16, description="Indices of MLP neurons, 1 to 16 of them."),
    ],
    corpus: Annotated[
        str | None,
        Field(description="A .txt or .jsonl file of texts; without it the subject writes its own."),
    ] = None,
    effort: Annotated[Effort, Field(description="quick: 200 sampled texts, full: 1000.")] = "full",
) -> ToolSuccess:
    """Describe in words what each MLP neuron responds to, and score each description.

    Answers: what is neuron 77 of layer 12 sensitive to, if anything that has a name? A caption is
    given only where its detection score beats that of shuffled captions; otherwise the result says
    that no caption beats its floor. The evidence is correlational: it says when a neuron is active,
    not what it does.
    """
    check_units(context.subject, layer, neurons)
    text = _corpus(context, corpus, _DOCUMENTS[effort])
    table = token_table(text.documents, context.subject.tokenizer)
    units = [*neurons, *_decoys(context, layer, neurons, _DECOYS[effort])]
    activations = read_units(context, text.documents, table, layer, units)
    captioner = Captioner(
        table,
        activations,
        len(neurons),
        seed=context.seed,
        priors=partial(log_priors, context.subject),
    )
    choices, chat_failures = _chosen(context, captioner, neurons)
    return _result(context, captioner, choices, layer, neurons, text, chat_failures)


def _corpus(context: ToolContext, path: str | None, n_documents: int) -> Corpus:
    if path is None:
        return sample_corpus(context, n_documents)
    try:
        return read_corpus(Path(path).expanduser(), context.subject.tokenizer, n_documents)
    except UserError as error:
        raise ToolError(f"corpus: {error}") from None


def _decoys(context: ToolContext, layer: int, neurons: Sequence[int], wanted: int) -> list[int]:
    """Other neurons of the layer, for the floor; the same ones whichever neurons are asked for."""
    order = np.random.default_rng([context.seed, layer]).permutation(context.subject.d_mlp)
    others = [int(neuron) for neuron in order if neuron not in neurons]
    return others[:wanted]


def _chosen(
    context: ToolContext, captioner: Captioner, neurons: Sequence[int]
) -> tuple[list[Chosen | None], int]:
    """For each neuron the best candidate of all proposers, and how many chat captions failed."""
    choices: list[Chosen | None] = []
    failures = 0
    for unit, neuron in enumerate(neurons):
        context.step(unit, len(neurons), f"describing neuron {neuron}")
        candidates = [] if captioner.dead(unit) else captioner.propose(unit)
        if context.chat is not None and candidates:
            captions = chat_proposer.ask(
                context,
                context.chat,
                [shown for _, shown in captioner.exemplars(unit)[:_ASKED_EXEMPLARS]],
                captioner.silent(unit),
                [candidate.caption for candidate in candidates[:2]],
            )
            written, unreadable = readable(captions, context.chat.identity.model)
            failures += unreadable + (not captions)
            candidates = _distinct([*candidates, *written])
        choices.append(captioner.choose(unit, candidates, TAU))
    return choices, failures


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate a predicate: who says again what the search found has found nothing."""
    first = {candidate.predicate.model_dump_json(): candidate for candidate in candidates[::-1]}
    return [each for each in candidates if first[each.predicate.model_dump_json()] is each]


def _result(
    context: ToolContext,
    captioner: Captioner,
    choices: Sequence[Chosen | None],
    layer: int,
    neurons: Sequence[int],
    corpus: Corpus,
    chat_failures: int,
) -> ToolSuccess:
    predicates = [None if chosen is None else chosen.candidate.predicate for chosen in choices]
    entries: list[JsonObject] = []
    measurements: list[Measurement] = []
    controls: list[Measurement] = []
    captioned: list[bool] = []
    for unit, neuron in enumerate(neurons):
        name, chosen = f"{layer}.{neuron}", choices[unit]
        score = captioner.score(unit, predicates)
        holds = score is not None and score.beats_floor
        if score is not None and chosen is not None:
            measurements.append(score.measurement(f"unit {name}"))
            captioned.append(holds)
            controls += _hard(captioner, unit, chosen, name)
        entries.append(_entry(captioner, unit, name, chosen, holds, scored=score is not None))
    description: JsonObject = {"captions": list(entries), "corpus": corpus.description, "tau": TAU}
    if context.chat is not None:
        description["chat_captions_failed"] = chat_failures
    artifacts = [
        context.save(
            "captions.json", _exemplar_file(captioner, entries, description), "application/json"
        )
    ]
    if measurements:
        plot = figures.detection_plot(measurements, captioned)
        artifacts.append(context.save("detection.svg", plot, "image/svg+xml"))
    return ToolSuccess(
        summary=_summary(layer, entries),
        measurements=tuple(measurements),
        controls=tuple(controls),
        output=description,
        artifacts=tuple(artifacts),
        caveats=_caveats(entries, chat_failures),
    )


def _entry(
    captioner: Captioner,
    unit: int,
    name: str,
    chosen: Chosen | None,
    holds: bool,
    *,
    scored: bool,
) -> JsonObject:
    entry: dict[str, Any] = {
        "unit": name,
        "caption": None,
        "density": round(float(captioner.summaries.density()[unit]), 4),
        "threshold": round(float(captioner.thresholds[unit]), 4),
        "tau": TAU,
        "exemplars": _shown(captioner, unit)[:_SHOWN_EXEMPLARS],
    }
    if chosen is not None:
        candidate = chosen.candidate
        entry["caption" if holds else "best_rejected"] = candidate.caption
        entry["proposer"] = candidate.proposer
        entry["predicate"] = PREDICATE.dump_python(candidate.predicate, mode="json")
        entry["n_candidates"] = chosen.n_candidates
    if not holds:
        if captioner.dead(unit):
            entry["reason"] = "dead on this corpus: never above zero, or always the same"
        elif chosen is not None and not scored:
            entry["reason"] = (
                f"fewer than {scoring.MIN_ACTIVE} active or silent held-out contexts: not scored"
            )
        else:
            entry["reason"] = _NO_CAPTION
    return entry


def _shown(captioner: Captioner, unit: int) -> list[JsonObject]:
    if captioner.dead(unit):
        return []
    return [
        {
            "before": visible(before),
            "token": visible(token),
            "after": visible(after),
            "activation": round(exemplar.activation, 4),
        }
        for exemplar, (before, token, after) in captioner.exemplars(unit)
    ]


def _exemplar_file(
    captioner: Captioner, entries: Sequence[JsonObject], description: JsonObject
) -> str:
    units = [{**entry, "exemplars": _shown(captioner, unit)} for unit, entry in enumerate(entries)]
    return canonical_json({**description, "captions": units})


def _hard(captioner: Captioner, unit: int, chosen: Chosen, name: str) -> list[Measurement]:
    detection = captioner.hard_detection(unit, chosen.candidate.predicate)
    if detection is None:
        return []
    return [
        Measurement(
            metric="detection_hard",
            value=detection.balanced_accuracy,
            unit="fraction",
            baseline=0.5,
            control="chance; silent contexts hold a token like those at the unit's peaks",
            ci95=detection.interval(),
            n=detection.n_active + detection.n_silent,
            scope=f"unit {name}",
        )
    ]


def _summary(layer: int, entries: Sequence[JsonObject]) -> str:
    named = [entry for entry in entries if entry["caption"] is not None]
    captions = "; ".join(f"{entry['unit']}: {entry['caption']}" for entry in named[:4])
    more = f"; and {len(named) - 4} more" if len(named) > 4 else ""
    told = f" ({captions}{more})" if named else ""
    return (
        f"{len(named)} of {len(entries)} neurons of layer {layer} have a caption "
        f"that beats its floor{told}."
    )


def _caveats(entries: Sequence[JsonObject], chat_failures: int) -> tuple[str, ...]:
    caveats = ["A caption tells when a neuron is active (correlation), not what it causes."]
    unscored = [str(entry["unit"]) for entry in entries if "not scored" in str(entry.get("reason"))]
    if unscored:
        caveats.append(f"Too few held-out contexts to score {', '.join(unscored)}.")
    if chat_failures:
        caveats.append(
            f"{chat_failures} captions or replies of the chat model said nothing checkable."
        )
    return tuple(caveats)
