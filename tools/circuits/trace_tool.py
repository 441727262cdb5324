"""The tool `trace_fact`: where in the subject a relation's facts are decided."""

import json
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, JsonValue
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Artifact, JsonObject, Measurement, Site, SiteKind, ToolSuccess
from dragoman.tools.circuits.contributions import (
    TOLERANCE,
    Contributions,
    contribute,
    run_both,
)
from dragoman.tools.circuits.duels import MINIMUM_GAP, Arena, match
from dragoman.tools.circuits.heat_plot import draw_heat
from dragoman.tools.circuits.paths import PathEffects, block_name, patch_paths, paths_among
from dragoman.tools.circuits.study import PLANS, Facts, gather_facts
from dragoman.tools.circuits.trace_measuring import (
    Choice,
    choose_peaks,
    measure_contributions,
    measure_paths,
    measure_peaks,
)
from dragoman.tools.circuits.tracing import TRACED, Trace, by_role, trace
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import Relation, RelationName, load_relation, relation_caveats

MINIMUM_DUELS = 3
"""On each side, choosing and reporting; fewer give an interval that spans everything."""
_MOST = {"quick": (4, 8), "full": (8, 24)}
"""Duels that choose, and duels that are reported."""
_SENDERS = {"quick": 4, "full": 6}
_KINDS: dict[Effort, tuple[SiteKind, ...]] = {"quick": ("resid_post",), "full": TRACED}
"""Of sites that are traced token by token; blocks are patched at all tokens in any case."""
_OPPONENTS = 4


@tool(method="circuits")
def trace_fact(
    ctx: ToolContext,
    relation: RelationName,
    entity: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=400,
            description="Show this entity's fact token by token, beside the relation's mean",
        ),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick' takes about a minute, 'full' several")
    ] = "full",
) -> ToolSuccess:
    """Where facts of a relation are decided: layers and tokens, blocks, and paths between blocks.

    Clean activations are put into a run with another entity (and into one with noise on the
    entity), one layer and token at a time: `effect_restored` is the share of the answer's logit
    difference that comes back, at the layer that other facts chose; its control is a random change
    of equal length. `prediction_within_tolerance` is the fraction of attention and MLP blocks whose
    effect was predicted from gradients to within 0.1 of the real intervention, against predicting
    nothing; `path_effect` the same as `effect_restored` for the strongest paths between blocks.
    """
    loaded = load_relation(relation)
    template = loaded.prompt_templates[0]
    ctx.step(0, 0, f"asking {len(loaded.samples)} facts of {loaded.name}")
    facts = gather_facts(ctx.subject, loaded, PLANS[effort], ctx.seed)
    one = None if entity is None else _row_of(loaded, facts, entity)
    caveats = relation_caveats(loaded)
    choosing, reported = (
        match(facts, rows, rows, ctx.seed)
        for rows in (facts.known_among(facts.validation), facts.known_among(facts.test))
    )
    n_choosing, n_reported = _MOST[effort]
    chosen, shown = choosing.duels[:n_choosing], reported.duels[:n_reported]
    if min(len(chosen), len(shown)) < MINIMUM_DUELS:
        return ToolSuccess(
            summary=f"{loaded.name}: tracing cannot be judged: {len(shown)} known test facts and "
            f"{len(chosen)} known validation facts have an opponent with as many tokens; at least "
            f"{MINIMUM_DUELS} of each are needed",
            output={"relation": loaded.name, "effort": effort},
            caveats=tuple(caveats),
        )
    arena = Arena(ctx.subject, facts, template, [*chosen, *shown])
    split = (range(len(chosen)), range(len(chosen), len(arena)))
    traces = [trace(arena, kind, "counterfactual", ctx.seed, ctx.step) for kind in _KINDS[effort]]
    traces.append(trace(arena, "resid_post", "noise", ctx.seed, ctx.step))
    measurements: list[Measurement] = []
    controls: list[Measurement] = []
    peaks: list[JsonValue] = []
    for each in traces:
        found = choose_peaks(arena, each, split[0])
        peaks += [_peak(each, peak) for peak in found]
        measured = measure_peaks(arena, each, found, split[1], reported.n_failed, ctx.seed)
        (measurements if each.corruption == "counterfactual" else controls).extend(measured)
        if not measured:
            caveats.append(
                f"{each.kind} under {each.corruption}: too few facts lose {MINIMUM_GAP:g} logit"
            )

    contributions = contribute(arena, ctx.step)
    measurements += measure_contributions(contributions, split[1], ctx.seed)
    effects = _paths(ctx, arena, contributions, split[0], _SENDERS[effort])
    measurements += measure_paths(effects, split[0], split[1], ctx.seed)
    artifacts = _artifacts(ctx, loaded.name, arena, traces, contributions, effects)
    output: JsonObject = {
        "relation": loaded.name,
        "template": template,
        "effort": effort,
        "tolerance": TOLERANCE,
        "duels": {"choosing": len(chosen), "reported": len(shown)},
        "peaks": peaks,
        "hand_over_layer": _hand_over(arena, traces[0]),
        "blocks": _blocks(contributions),
        "paths": _path_rows(effects),
    }
    if one is not None:
        drawn, row = _one_fact(ctx, facts, template, one)
        artifacts += (drawn,)
        output["fact"] = row
    caveats.append("one split of the facts, and one opponent for each")
    return ToolSuccess(
        summary=_summary(loaded.name, measurements),
        measurements=tuple(measurements),
        controls=tuple(controls),
        output=output,
        artifacts=artifacts,
        caveats=tuple(caveats),
    )


def _row_of(relation: Relation, facts: Facts, entity: str) -> int:
    """The prompt about `entity`; `ToolError` names entities that can be traced."""
    wanted = entity.strip().casefold()
    can = [row for row, known in enumerate(facts.known) if known]
    for row in can:
        if facts.samples[row].subject.casefold() == wanted:
            return row
    there = any(sample.subject.casefold() == wanted for sample in relation.samples)
    reason = "is an example here or not known to the subject" if there else "does not occur"
    some = ", ".join(repr(facts.samples[row].subject) for row in can[:8])
    raise ToolError(
        f"entity {entity!r} {reason} in relation {relation.name!r}; "
        f"{len(can)} entities can be traced: {some or 'none'}"
    )


def _paths(
    ctx: ToolContext,
    arena: Arena,
    contributions: Contributions,
    choosing: Sequence[int],
    n_senders: int,
) -> PathEffects:
    """Paths among the blocks that matter most to the choosing duels."""
    mean = contributions.measured[list(choosing)].mean(0).abs()
    top = [contributions.blocks[int(place)] for place in mean.topk(n_senders).indices]
    entry = Site(layer=0, kind="resid_pre")
    runs = run_both(arena, [entry, *top])
    return patch_paths(arena, runs, entry, paths_among(top), ctx.seed, ctx.step)


def _hand_over(arena: Arena, found: Trace) -> int | None:
    """The first layer at which the last token holds more of the answer than the entity does."""
    usable = [duel for duel in range(len(arena)) if found.usable[duel]]
    if not usable:
        return None
    roles = by_role(arena, found.restored, usable)
    if not {"last entity token", "last token"} <= set(roles):
        return None
    ahead = roles["last token"].nanmean(0) > roles["last entity token"].nanmean(0)
    return int(ahead.float().argmax()) if bool(ahead.any()) else None


def _peak(found: Trace, peak: Choice) -> JsonObject:
    return {
        "site": found.kind,
        "corruption": found.corruption,
        "token": peak.role,
        "layer": peak.layer,
        "restored_on_choosing_facts": round(peak.restored, 4),
    }


def _blocks(contributions: Contributions) -> list[JsonValue]:
    measured, predicted = contributions.measured.mean(0), contributions.predicted.mean(0)
    return [
        {
            "block": block_name(block),
            "measured": round(float(measured[place]), 4),
            "predicted": round(float(predicted[place]), 4),
        }
        for place, block in enumerate(contributions.blocks)
    ]


def _path_rows(effects: PathEffects) -> list[JsonValue]:
    measured, predicted = effects.measured.mean(0), effects.predicted.mean(0)
    order = measured.abs().argsort(descending=True).tolist()
    return [
        {
            "path": effects.paths[place].name,
            "measured": round(float(measured[place]), 4),
            "predicted": round(float(predicted[place]), 4),
        }
        for place in order
    ]


def _one_fact(
    ctx: ToolContext, facts: Facts, template: str, row: int
) -> tuple[Artifact, JsonObject]:
    """One entity against several opponents, token by token."""
    known = [other for other, yes in enumerate(facts.known) if yes]
    duels = []
    for number in range(4 * _OPPONENTS):
        duels += match(facts, [row], known, ctx.seed + number).duels
    duels = list(dict.fromkeys(duels))[:_OPPONENTS]
    sample = facts.samples[row]
    if not duels:
        raise ToolError(
            f"entity {sample.subject!r} has no opponent: no other known entity of the relation has "
            "as many tokens and another object; trace without it, or another entity"
        )
    arena = Arena(ctx.subject, facts, template, duels)
    restored = trace(arena, "resid_post", "counterfactual", ctx.seed, ctx.step).restored.mean(0)
    svg = _heat(
        f"{sample.subject} → {sample.object}: restored by resid_post", restored, arena.tokens(0)
    )
    return ctx.save("fact.svg", svg, "image/svg+xml"), {
        "entity": sample.subject,
        "object": sample.object,
        "opponents": [facts.samples[duel.corrupted].subject for duel in duels],
        "tokens": list(arena.tokens(0)),
        "restored": [[round(float(cell), 4) for cell in line] for line in restored],
    }


def _heat(title: str, values: Float[Tensor, "layer column"], columns: Sequence[str]) -> bytes:
    return draw_heat(
        title,
        values.numpy().astype(np.float64),
        columns,
        [str(layer) for layer in range(values.shape[0])],
        "share of the logit difference restored",
    )


def _artifacts(
    ctx: ToolContext,
    name: str,
    arena: Arena,
    traces: Sequence[Trace],
    contributions: Contributions,
    effects: PathEffects,
) -> tuple[Artifact, ...]:
    saved: list[Artifact] = []
    document: JsonObject = {}
    for found in traces:
        usable = [duel for duel in range(len(arena)) if found.usable[duel]]
        if not usable:
            continue
        roles = by_role(arena, found.restored, usable)
        columns = torch.stack([each.nanmean(0) for each in roles.values()], -1)
        key = f"{found.kind}_{found.corruption}"
        title = f"{name}: restored by {found.kind} ({found.corruption})"
        saved.append(ctx.save(f"{key}.svg", _heat(title, columns, list(roles)), "image/svg+xml"))
        document[key] = {
            role: [round(float(cell), 5) for cell in each.nanmean(0)]
            for role, each in roles.items()
        }
    document["blocks"] = _blocks(contributions)
    document["paths"] = _path_rows(effects)
    pairs = torch.stack([contributions.measured.mean(0), contributions.predicted.mean(0)], 1)
    by_kind = pairs.view(-1, 2, 2).flatten(1)  # a row for each layer
    kinds = ["attn measured", "attn predicted", "mlp measured", "mlp predicted"]
    saved.append(
        ctx.save(
            "blocks.svg",
            _heat(f"{name}: what each block restores", by_kind, kinds),
            "image/svg+xml",
        )
    )
    saved.append(
        ctx.save("trace.json", json.dumps(document, ensure_ascii=False), "application/json")
    )
    return tuple(saved)


def _summary(name: str, measurements: Sequence[Measurement]) -> str:
    parts = [
        f"{each.scope} restores {each.value:.2f} ({each.control}: {each.baseline:.2f})"
        for each in measurements
        if each.metric == "effect_restored" and each.scope.startswith("resid_post")
    ]
    paths = [each for each in measurements if each.metric == "path_effect"]
    if paths:
        parts.append(f"the strongest path, {paths[0].scope}, {paths[0].value:.2f}")
    return f"{name}: " + ("; ".join(parts) or "no fact loses its answer under corruption")
