"""The tool `approximate_relation`: a relation's linear map, and what it is worth."""

from typing import Annotated

from pydantic import Field, JsonValue
from safetensors.torch import save
from torch import Tensor

from dragoman.core.records import JsonObject, Measurement, ToolSuccess, canonical_json
from dragoman.tools.circuits.approximation import RelationMap, compact
from dragoman.tools.circuits.measuring import (
    measure_causality,
    measure_faithfulness,
    measure_known,
    spread,
)
from dragoman.tools.circuits.plot import Panel, draw_ranks, draw_sweep
from dragoman.tools.circuits.selection import Setting, best_by_layer
from dragoman.tools.circuits.study import MINIMUM_KNOWN_TEST, PLANS, Facts, check_map_layer
from dragoman.tools.circuits.trial import Causality, Faithfulness, Trial, run_trial
from dragoman.tools.circuits.trial_record import TrialRecord, record
from dragoman.tools.circuits.twin import make_twin
from dragoman.tools.circuits.verdicts import judge
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import RelationName, Sample, load_relation, relation_caveats

_EXAMPLES = 12


@tool(method="circuits", narrow=True)
def approximate_relation(
    ctx: ToolContext,
    relation: RelationName,
    layer: Annotated[
        int | None,
        Field(
            ge=0,
            description="Read and edit at this layer only; left out, validation facts choose it",
        ),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick': one split of the facts, a minute; 'full': five splits")
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
        check_map_layer(subject, layer)
    loaded = load_relation(relation)
    plan = PLANS[effort]
    twin = make_twin(subject, ctx.seed)
    trials: list[Trial] = []
    first: Trial | None = None
    records: list[TrialRecord] = []
    for place in range(plan.n_seeds):
        seed = ctx.seed * plan.n_seeds + place

        def step(done: int, total: int, text: str, place: int = place) -> None:
            ctx.step(done, total, f"split {place + 1} of {plan.n_seeds}: {text}")

        trial = run_trial(subject, loaded, plan, seed, step, layer=layer, twin=twin)
        records.append(record(trial))
        if first is None and trial.reading is not None:
            first = trial
        # Jacobians of one split are of no use to another: only the first map is kept.
        trials.append(trial._replace(fitted=trial.fitted if trial is first else None))
    shown = first or trials[0]
    verdict = judge(records)
    output: JsonObject = {
        "relation": loaded.name,
        "template": loaded.prompt_templates[0],
        "effort": effort,
        "verdict": {"label": verdict.label, "reason": verdict.reason},
        "split": _split(shown),
        "splits": [_summary(each) for each in records],
    }
    known = measure_known(records)
    caveats = relation_caveats(loaded)
    n_asked = len(records[0].known.by_fact)
    if n_asked < len(loaded.samples):
        caveats.append(
            f"{n_asked} of the relation's {len(loaded.samples)} facts took part in each split, "
            "drawn so that its objects are balanced"
        )
    if layer is not None:
        caveats.append(f"only layer {layer} was tried: another may name more objects")
    read = measure_faithfulness(records)
    if read is None or shown.reading is None:
        caveats.append(
            "faithfulness and causality cannot be judged: "
            + next(each.lacking for each in records if each.lacking)
        )
        return ToolSuccess(
            summary=f"{loaded.name}: {verdict.label}: {caveats[-1]}",
            measurements=(known,),
            output=output,
            caveats=tuple(caveats),
        )

    reading, editing = shown.reading, shown.editing
    faithfulness, controls = read
    measurements = [faithfulness]
    panels = [Panel("faithfulness", reading.sweep, reading.chosen, faithfulness)]
    told = f"the map names {_told(faithfulness, spread(records, 'faithfulness'))} of known facts"
    edited = measure_causality(records)
    if edited is None or editing is None:
        caveats.append(
            "causality cannot be judged: fewer than "
            f"{MINIMUM_KNOWN_TEST} known test facts have another known object to be turned to"
        )
    else:
        causality, more_controls = edited
        measurements.append(causality)
        controls += more_controls
        panels.append(Panel("causality", best_by_layer(editing.sweep), editing.chosen, causality))
        by_split = spread(records, "causality")
        told += f"; edits through its inverse succeed in {_told(causality, by_split)}"

    output["chosen"] = _chosen(reading, editing)
    output["validation"] = _sweeps(reading, editing)
    output["examples"] = _examples(shown.facts, reading, editing)
    caveats += _reservations(records, with_twin=twin is not None)
    title = f"{loaded.name} on {subject.identity.name}"
    artifacts = [
        ctx.save("sweep.json", canonical_json(output["validation"]), "application/json"),
        ctx.save("layers.svg", draw_sweep(title, panels), "image/svg+xml"),
        ctx.save("map.safetensors", save(_tensors(shown)), "application/octet-stream"),
    ]
    if any(each.by_rank for each in records):
        drawn = draw_ranks(title, [each.by_rank for each in records if each.by_rank])
        artifacts.append(ctx.save("ranks.svg", drawn, "image/svg+xml"))
    return ToolSuccess(
        summary=f"{loaded.name}: {verdict.label}: {told}",
        measurements=(*measurements, known),
        controls=controls,
        output=output,
        artifacts=tuple(artifacts),
        caveats=tuple(caveats),
    )


def _told(measured: Measurement, by_split: list[float]) -> str:
    ranged = f", {min(by_split):.2f} to {max(by_split):.2f}" if len(by_split) > 1 else ""
    return (
        f"{measured.value:.2f} (n={measured.n}, {measured.scope}{ranged}; "
        f"{measured.control}: {measured.baseline:.2f})"
    )


def _reservations(records: list[TrialRecord], *, with_twin: bool) -> list[str]:
    """What the reader of the numbers has to know."""
    reservations = []
    if len(records) == 1:
        reservations.append("one split of the facts: another seed may choose another layer")
    unjudged = sum(bool(each.lacking) for each in records)
    if unjudged:
        reservations.append(
            f"{unjudged} of {len(records)} splits cannot be judged: "
            + next(each.lacking for each in records if each.lacking)
        )
    first = records[0]
    if first.n_sharing:
        reservations.append(
            f"{first.n_sharing} of {first.n_objects} objects share their first token with another "
            "object: naming by the first token cannot tell those apart "
            "(faithfulness_whole_object does)"
        )
    if not with_twin:
        reservations.append("no random-weight twin: it would not fit beside a subject this large")
    return reservations


def _split(trial: Trial) -> JsonObject:
    facts = trial.facts
    return {
        "seed": trial.seed,
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


def _summary(trial: TrialRecord) -> JsonObject:
    """One split in a line; the same for every split."""
    named, succeeded = trial.named, trial.succeeded
    return {
        "seed": trial.seed,
        "lacking": trial.lacking,
        "faithfulness": None if named is None else _mean(named.by_fact),
        "n": 0 if named is None else len(named.by_fact),
        "layer": trial.layer,
        "beta": trial.beta,
        "causality": None if succeeded is None else _mean(succeeded.by_fact),
        "edit_layer": trial.edit_layer,
        "rank": trial.rank,
        "damped": trial.damped,
        "causality_by_rank": {str(rank): share for rank, share in trial.by_rank.items()},
    }


def _mean(values: dict[str, float]) -> float:
    return round(sum(values.values()) / len(values), 6)


def _facts(samples: list[Sample]) -> list[JsonValue]:
    return [[sample.subject, sample.object] for sample in samples]


def _chosen(reading: Faithfulness, editing: Causality | None) -> JsonObject:
    return {
        "layer": reading.chosen.layer,
        "beta": reading.chosen.value,
        "edit_layer": None if editing is None else editing.chosen.layer,
        "rank": None if editing is None else int(editing.chosen.value),
        "damped": None if editing is None else editing.chosen.damped,
    }


def _sweeps(reading: Faithfulness, editing: Causality | None) -> JsonObject:
    return {
        "faithfulness": [_row(setting, "beta") for setting in reading.sweep],
        "causality": (
            []
            if editing is None
            else [_row(each, "rank") | {"damped": each.damped} for each in editing.sweep]
        ),
    }


def _tensors(trial: Trial) -> dict[str, Tensor]:
    """The chosen map, and the factors of its inverse at the edit layer, cut at the chosen rank."""
    assert trial.fitted is not None
    assert trial.reading is not None
    chosen = compact(trial.fitted.maps[trial.reading.chosen.layer])
    tensors = {"bias": chosen.bias}
    if isinstance(chosen, RelationMap):
        tensors["weight"] = chosen.weight
    else:
        for name, factor in chosen.factors._asdict().items():
            tensors[f"weight_{name}"] = factor
    if trial.editing is not None:
        # A damped inverse has weights in all directions; a cut one needs those kept alone.
        edit = trial.editing.chosen
        rank = len(trial.editing.inverse.singular) if edit.damped else int(edit.value)
        tensors["left"] = trial.editing.inverse.left[:, :rank]
        tensors["singular"] = trial.editing.inverse.singular[:rank]
        tensors["right"] = trial.editing.inverse.right[:rank]
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
        {
            "subject": fact.subject,
            "object": fact.object,
            "map": text,
            "named": named,
            "whole": whole,
        }
        for fact, text, named, whole in zip(
            facts.of(tested), reading.answers.texts, reading.hits, reading.whole_hits, strict=True
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
