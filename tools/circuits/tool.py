"""The tool `approximate_relation`: a relation's linear map, and what it is worth."""

from collections import Counter
from typing import Annotated

from pydantic import Field, JsonValue
from safetensors.torch import save
from torch import Tensor

from dragoman.core.records import JsonObject, Measurement, ToolSuccess, canonical_json
from dragoman.tools.circuits.approximation import Estimate
from dragoman.tools.circuits.measuring import (
    measure_causality,
    measure_faithfulness,
    measure_known,
)
from dragoman.tools.circuits.plot import Panel, draw_sweep
from dragoman.tools.circuits.selection import Setting
from dragoman.tools.circuits.study import (
    MINIMUM_KNOWN_TEST,
    MINIMUM_KNOWN_VALIDATION,
    PLANS,
    Causality,
    Facts,
    Faithfulness,
    candidate_layers,
    fit,
    gather_facts,
    judge_causality,
    judge_faithfulness,
)
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import Sample, load_relation

_EXAMPLES = 12
_NOTES = 3
_MAP_BYTES = 10 * 2**20
"""A larger map is not kept: it can be computed again."""


@tool(method="circuits")
def approximate_relation(
    ctx: ToolContext,
    relation: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="Name of a relation, or path of a relation file",
        ),
    ],
    layer: Annotated[
        int | None,
        Field(
            ge=0,
            description="Read and edit at this layer only; left out, validation facts choose it",
        ),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick' takes about a minute, 'full' several")
    ] = "full",
) -> ToolSuccess:
    """Whether a relation is decoded through one linear map, and whether that map is causal.

    Estimates the map from entity to object (LRE) and measures, on test facts that the subject
    knows: `faithfulness`, the fraction whose object the map names; `causality`, the fraction of
    edits through the map's inverse that make the subject name another fact's object. `known` is
    the fraction of all facts that the subject knows. Each stands beside its control; with too
    few known facts there is no number but a caveat.
    """
    subject = ctx.subject
    if layer is not None:
        subject.check_layer(layer)
    loaded = load_relation(relation)
    plan = PLANS[effort]
    ctx.step(0, 0, f"asking {len(loaded.samples)} facts of {loaded.name}")
    facts = gather_facts(subject, loaded, plan, ctx.seed)
    template = loaded.prompt_templates[0]
    output: JsonObject = {
        "relation": loaded.name,
        "template": template,
        "effort": effort,
        "split": _split(facts, ctx.seed),
    }
    known = measure_known(facts)
    caveats = [f"relation file: {note}" for note in loaded.notes[:_NOTES]]
    if not facts.judgeable:
        caveats.append(_not_judged(facts))
        return ToolSuccess(
            summary=f"{loaded.name}: {caveats[-1]}",
            measurements=(known,),
            output=output,
            caveats=tuple(caveats),
        )

    layers = candidate_layers(subject, layer)
    fitted = fit(subject, template, facts.estimation, layers, ctx.step)
    reading = judge_faithfulness(subject, facts, fitted, ctx.step)
    faithfulness, controls = measure_faithfulness(facts, reading)
    measurements = [faithfulness]
    panels = [Panel("faithfulness", reading.sweep, reading.chosen, faithfulness)]
    summary = f"{loaded.name}: the map names {_told(faithfulness)} of the known test facts"

    editing = judge_causality(subject, facts, fitted, plan, ctx.seed, ctx.step)
    if editing is None:
        caveats.append(
            "causality cannot be judged: fewer than "
            f"{MINIMUM_KNOWN_TEST} known test facts have another known object to be turned to"
        )
    else:
        causality, more_controls = measure_causality(facts, editing)
        measurements.append(causality)
        controls += more_controls
        panels.append(Panel("causality", editing.sweep, editing.chosen, causality))
        summary += f"; edits through its inverse succeed in {_told(causality)}"

    output["chosen"] = _chosen(reading, editing)
    output["validation"] = _sweeps(reading, editing)
    output["examples"] = _examples(facts, reading, editing)
    caveats += _reservations(facts)
    title = f"{loaded.name} on {subject.identity.name}"
    artifacts = [
        ctx.save("sweep.json", canonical_json(output["validation"]), "application/json"),
        ctx.save("layers.svg", draw_sweep(title, panels), "image/svg+xml"),
    ]
    tensors = _tensors(fitted, reading, editing)
    if sum(each.nbytes for each in tensors.values()) <= _MAP_BYTES:
        artifacts.append(ctx.save("map.safetensors", save(tensors), "application/octet-stream"))
    return ToolSuccess(
        summary=summary,
        measurements=(*measurements, known),
        controls=controls,
        output=output,
        artifacts=tuple(artifacts),
        caveats=tuple(caveats),
    )


def _told(measured: Measurement) -> str:
    return (
        f"{measured.value:.2f} (n={measured.n}, {measured.scope}; "
        f"{measured.control}: {measured.baseline:.2f})"
    )


def _not_judged(facts: Facts) -> str:
    validation, test = facts.known_among(facts.validation), facts.known_among(facts.test)
    return (
        f"faithfulness and causality cannot be judged: {len(test)} known of {len(facts.test)} "
        f"test facts and {len(validation)} of {len(facts.validation)} validation facts; at least "
        f"{MINIMUM_KNOWN_TEST} and {MINIMUM_KNOWN_VALIDATION} are needed"
    )


def _reservations(facts: Facts) -> list[str]:
    """What the reader of the numbers has to know."""
    reservations = ["one split of the facts: another seed may choose another layer"]
    first = {
        sample.object.casefold(): int(token)
        for sample, token in zip(facts.samples, facts.first, strict=True)
    }
    shared = sum(count for count in Counter(first.values()).values() if count > 1)
    if shared:
        reservations.append(
            f"{shared} of {len(first)} objects share their first token with another object: "
            "naming by the first token cannot tell those apart"
        )
    return reservations


def _split(facts: Facts, seed: int) -> JsonObject:
    return {
        "seed": seed,
        "estimation": _facts(facts.estimation),
        "validation": _facts(facts.of(facts.validation)),
        "test": _facts(facts.of(facts.test)),
        "estimation_known": sum(facts.estimation_known),
        "unknown": [
            sample.subject
            for sample, known in zip(facts.samples, facts.known, strict=True)
            if not known
        ],
    }


def _facts(samples: list[Sample]) -> list[JsonValue]:
    return [[sample.subject, sample.object] for sample in samples]


def _chosen(reading: Faithfulness, editing: Causality | None) -> JsonObject:
    return {
        "layer": reading.chosen.layer,
        "beta": reading.chosen.value,
        "edit_layer": None if editing is None else editing.chosen.layer,
        "rank": None if editing is None else int(editing.chosen.value),
    }


def _sweeps(reading: Faithfulness, editing: Causality | None) -> JsonObject:
    return {
        "faithfulness": [_row(setting, "beta") for setting in reading.sweep],
        "causality": (
            [] if editing is None else [_row(setting, "rank") for setting in editing.sweep]
        ),
    }


def _tensors(
    fitted: Estimate, reading: Faithfulness, editing: Causality | None
) -> dict[str, Tensor]:
    """The chosen map, and the factors of its inverse at the edit layer, cut at the chosen rank."""
    chosen = fitted.maps[reading.chosen.layer]
    tensors = {"weight": chosen.weight, "bias": chosen.bias}
    if editing is not None:
        rank = int(editing.chosen.value)
        tensors["left"] = editing.inverse.left[:, :rank]
        tensors["singular"] = editing.inverse.singular[:rank]
        tensors["right"] = editing.inverse.right[:rank]
    return {name: each.cpu().contiguous() for name, each in tensors.items()}


def _row(setting: Setting, name: str) -> JsonObject:
    return {
        "layer": setting.layer,
        name: setting.value,
        "share": round(setting.share, 6),
        "control": round(setting.control_share, 6),
        "log_prob": round(setting.log_prob, 4),
    }


def _examples(facts: Facts, reading: Faithfulness, editing: Causality | None) -> JsonObject:
    """Some test facts with what the map and the edited subject say."""
    tested = facts.known_among(facts.test)
    read: list[JsonValue] = [
        {"subject": fact.subject, "object": fact.object, "map": text, "named": named}
        for fact, text, named in zip(
            facts.of(tested), reading.answers.texts, reading.hits, strict=True
        )
    ]
    edited: list[JsonValue] = []
    if editing is not None:
        edited = [
            {
                "subject": facts.samples[source].subject,
                "towards": facts.samples[target].subject,
                "object": facts.samples[target].object,
                "before": facts.said.texts[source],
                "after": text,
                "succeeded": succeeded,
            }
            for source, target, text, succeeded in zip(
                editing.pairs.sources,
                editing.pairs.targets,
                editing.edited.decoded.texts,
                editing.edited.succeeded,
                strict=True,
            )
        ]
    return {"read": read[:_EXAMPLES], "edited": edited[:_EXAMPLES]}
