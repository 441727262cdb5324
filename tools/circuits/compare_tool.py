"""The tool `compare_relations`: which relations share what their maps read and write."""

import json
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Artifact, Measurement, ToolSuccess
from dragoman.tools.circuits.comparison import (
    SIDES,
    Halves,
    Side,
    cluster,
    halve,
    measure_overlap,
    principal_angles,
    random_overlaps,
)
from dragoman.tools.circuits.heat_plot import draw_heat
from dragoman.tools.circuits.study import PLANS, check_map_layer, gather_facts
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import Relation, load_relation

FEWEST, MOST = 2, 40
LEAST_KNOWN = 4
"""Estimation facts: two halves of two."""
_DEPTH = 0.4
"""Of the layer compared, where none is given: there most relations are read well."""
_RANKS = {"quick": 16, "full": 32}

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]


@tool(method="circuits", narrow=True)
def compare_relations(
    ctx: ToolContext,
    relations: Annotated[
        list[Name],
        Field(
            min_length=FEWEST,
            max_length=MOST,
            description="Names of relations, or paths of relation files",
        ),
    ],
    layer: Annotated[
        int | None,
        Field(ge=0, description="Compare the maps of this layer; left out, at 0.4 of the depth"),
    ] = None,
    rank: Annotated[
        int | None,
        Field(ge=1, le=512, description="Main directions of each map that are compared"),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick' takes seconds a relation, 'full' a minute")
    ] = "full",
) -> ToolSuccess:
    """Which relations are read from the same directions of h, or written to the same of z.

    `subspace_overlap` is the mean squared cosine of the principal angles between the main
    directions of two relations' maps: 1 the same subspace. Its baseline is that of random
    subspaces; two halves of one relation's own facts show how large it can be. Relations that
    overlap at least half as much as halves of themselves do, beyond chance, form a cluster.
    """
    subject = ctx.subject
    if layer is None:
        layer = round(_DEPTH * (subject.n_layers - 1))
    check_map_layer(subject, layer)
    loaded = _load(relations)
    rank = min(_RANKS[effort], subject.d_model // 4) if rank is None else rank
    if rank > subject.d_model // 2:
        raise ToolError(
            f"rank {rank} is outside 1..{subject.d_model // 2}: larger subspaces of "
            f"{subject.d_model} dimensions overlap whatever they are"
        )
    halves: list[Halves] = []
    caveats: list[str] = []
    for relation in loaded:
        ctx.step(0, 0, f"asking facts of {relation.name}")
        facts = gather_facts(subject, relation, PLANS[effort], ctx.seed)
        known = [
            fact for fact, yes in zip(facts.estimation, facts.estimation_known, strict=True) if yes
        ]
        if len(known) < LEAST_KNOWN:
            caveats.append(
                f"{relation.name} is left out: {len(known)} of {len(facts.estimation)} estimation "
                f"facts are known; at least {LEAST_KNOWN} are needed for two halves"
            )
            continue
        template = relation.prompt_templates[0]
        halves.append(
            halve(subject, relation.name, template, known, layer, rank, ctx.seed, ctx.step)
        )
    if len(halves) < FEWEST:
        return ToolSuccess(
            summary=f"{len(halves)} of {len(loaded)} relations are known well enough to be "
            f"compared; at least {FEWEST} are needed",
            output={"layer": layer, "rank": rank, "relations": [each.name for each in loaded]},
            caveats=tuple(caveats),
        )
    return _compared(ctx, halves, layer, rank, len(loaded), caveats)


def _load(names: Sequence[str]) -> list[Relation]:
    """Each relation once; `ToolError` names a repeated one."""
    loaded: dict[str, Relation] = {}
    for name in names:
        relation = load_relation(name)
        key = relation.content_id()
        if key in loaded:
            raise ToolError(f"relations: {name!r} is named twice; name {FEWEST}..{MOST} different")
        loaded[key] = relation
    return list(loaded.values())


def _compared(
    ctx: ToolContext,
    halves: Sequence[Halves],
    layer: int,
    rank: int,
    n_asked: int,
    caveats: list[str],
) -> ToolSuccess:
    chance = random_overlaps(ctx.subject.d_model, rank, ctx.seed)
    tables: dict[Side, Float[Tensor, "relation relation"]] = {}
    between: list[Measurement] = []
    within: list[Measurement] = []
    for side in SIDES:
        values = torch.zeros(len(halves), len(halves))
        for i, first in enumerate(halves):
            for j in range(i, len(halves)):
                measured = measure_overlap(first, halves[j], side, chance)
                values[i, j] = values[j, i] = measured.value
                (within if i == j else between).append(measured)
        tables[side] = values
    n_failed = n_asked - len(halves)
    between = [each.model_copy(update={"n_failed": n_failed}) for each in between]
    alike = _relative(tables["reads"], sum(chance) / len(chance))
    groups = cluster(alike, 0.5)
    names = [each.name for each in halves]
    clusters = [[names[place] for place in group] for group in groups]
    between.sort(key=lambda each: -each.value)
    document = {
        "layer": layer,
        "rank": rank,
        "relations": names,
        "overlap": {side: _rounded(table) for side, table in tables.items()},
        "random": round(sum(chance) / len(chance), 5),
        "relative_to_own_halves": _rounded(alike),
        "clusters": clusters,
        "principal_angles_degrees": {
            f"{first.name} / {second.name}": [
                round(angle, 2)
                for angle in principal_angles(
                    first.bases["reads"][0, 0], second.bases["reads"][0, 0]
                )
            ]
            for i, first in enumerate(halves)
            for second in halves[i + 1 :]
        },
    }
    nearest = between[0]
    return ToolSuccess(
        summary=f"{len(halves)} relations at layer {layer}: most alike ({nearest.scope}) "
        f"{nearest.value:.2f} against {nearest.baseline:.2f} of random subspaces; "
        f"{sum(len(group) > 1 for group in groups)} clusters of several, by what they read",
        measurements=tuple(between),
        controls=tuple(within),
        output={key: value for key, value in document.items() if key != "principal_angles_degrees"},
        artifacts=_artifacts(ctx, names, tables, json.dumps(document, ensure_ascii=False)),
        caveats=(*caveats, "intervals show the spread over splits of the facts, not over facts"),
    )


def _relative(
    table: Float[Tensor, "relation relation"], chance: float
) -> Float[Tensor, "relation relation"]:
    """Overlap beyond chance, as a share of what two halves of one relation reach."""
    own = (table.diagonal() - chance).clamp(min=1e-6)
    return ((table - chance) / (own[:, None] * own[None]).sqrt()).clamp(0.0, 1.0)


def _rounded(table: Float[Tensor, "row column"]) -> list[list[float]]:
    return [[round(float(cell), 5) for cell in row] for row in table]


def _artifacts(
    ctx: ToolContext,
    names: Sequence[str],
    tables: dict[Side, Float[Tensor, "relation relation"]],
    document: str,
) -> tuple[Artifact, ...]:
    drawn = [
        ctx.save(
            f"{side}.svg",
            draw_heat(
                f"Overlap of what the maps {side.removesuffix('s')}",
                table.double().numpy(),
                names,
                names,
                "mean squared cosine of principal angles",
                words=[[f"{cell:.2f}" for cell in row] for row in table],
                row_axis="relation",
            ),
            "image/svg+xml",
        )
        for side, table in tables.items()
    ]
    return (*drawn, ctx.save("overlap.json", document, "application/json"))
