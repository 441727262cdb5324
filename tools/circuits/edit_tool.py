"""The tool `edit_through_relation`: edits through a map's inverse, measured like every other."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, JsonValue
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Measurement, ToolSuccess
from dragoman.tools.circuits.causality import random_like
from dragoman.tools.circuits.fitted import fitted_maps
from dragoman.tools.circuits.inverse_editing import (
    Chosen,
    Held,
    changes,
    choose_donors,
    choose_edit,
    estimation_facts,
    hold,
    swaps,
)
from dragoman.tools.circuits.trial import CUT
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.comparison import Comparison, compare_methods, directions_of
from dragoman.tools.editing.directions import EDITED, NO_EDIT, RANDOM
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.judging import token_of
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.material import held_out_template
from dragoman.tools.editing.measuring import (
    measure_efficacy,
    measure_probability,
    measure_specificity,
    table,
)
from dragoman.tools.editing.methods import Method, all_methods
from dragoman.tools.editing.plot import draw_methods
from dragoman.tools.editing.probes import Kind, Probe, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord, swap_objects
from dragoman.tools.editing.study import Study, check_told_apart, find_fact, prepare, survey
from dragoman.tools.editing.text_metrics import fluency_of, measure_fluency
from dragoman.tools.editing.writing import Opening, write
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import RelationName, load_relation, relation_caveats

SWAPPED = "whole h of the donor"
UNMAPPED = "change of z added to h"
REMEDI = "REMEDI"
_LAYER_STRIDE = {"quick": 5, "full": 2}
_RANKS = {"quick": (16, 64, 128), "full": (8, 16, 32, 64, 96, 128, 192)}
_ESTIMATION = {"quick": 5, "full": 8}
_DEEPEST = 0.75
"""Of the depth: above it the entity has been read already, and no edit reaches the answer."""
_SINGLE_NEIGHBOURS = 6


@tool(method="circuits")
def edit_through_relation(
    ctx: ToolContext,
    relation: RelationName,
    entity: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=400,
            description="Edit this one entity of the relation; goes with new_object",
        ),
    ] = None,
    new_object: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=400,
            description="An object of the relation that the entity is to get; goes with entity",
        ),
    ] = None,
    with_remedi: Annotated[
        bool, Field(description="Also train (or load) REMEDI's editor and measure it beside")
    ] = False,
    effort: Annotated[
        Effort, Field(description="'quick' takes about two minutes, 'full' several")
    ] = "full",
) -> ToolSuccess:
    """Edit facts through the low-rank inverse of the relation's linear map, without training.

    Measured as `edit_representation` is, on entities that took no part in estimating the map:
    `efficacy`, `neighbourhood_specificity`, `paraphrase_efficacy`, `fluency` and
    `new_object_probability`. Baselines: no edit, prefix, a random direction of equal norm, the
    donor's whole h, the change of z without the map, the published inverse where the chosen one
    fades out, and with `with_remedi` REMEDI's trained editor on the same facts. Layer, rank and
    form of the inverse are chosen on validation entities.
    """
    loaded = load_relation(relation)
    if (entity is None) != (new_object is None):
        given, missing = ("entity", "new_object") if entity else ("new_object", "entity")
        raise ToolError(f"argument {missing!r} is missing: {given!r} alone is no edit")
    fact = None if entity is None else find_fact(loaded, entity)
    plan = PLANS[effort]
    held_out = () if fact is None else (fact.subject,)
    study: Study | None = None
    if with_remedi:
        study = prepare(ctx, loaded, plan, None, held_out=held_out)
        knowledge, split = study.knowledge, study.split
    else:
        knowledge, split = survey(ctx, loaded, plan, held_out=held_out)
    single: EditRecord | None = None
    if fact is not None and new_object is not None:
        wanted = _object(ctx, knowledge, fact.object, new_object)
        single = EditRecord(entity=fact.subject, old_object=fact.object, new_object=wanted)

    template = loaded.prompt_templates[0]
    estimation = estimation_facts(ctx.subject, template, split, _ESTIMATION[effort], ctx.seed)
    maps = fitted_maps(ctx, template, estimation)
    highest = round(_DEEPEST * ctx.subject.n_layers)
    tried = {
        layer: each
        for layer, each in list(maps.items())[:: _LAYER_STRIDE[effort] if len(maps) > 8 else 1]
        if layer <= highest
    }
    held = hold(ctx.subject, template, knowledge.facts, estimation)
    ranks = sorted({min(rank, ctx.subject.d_model) for rank in _RANKS[effort]})
    tokens, objects = knowledge.first_tokens, knowledge.objects
    validation = swap_objects(
        split.validation[: plan.max_validation_entities],
        objects,
        tokens,
        ctx.seed + 1,
        per_entity=plan.validation_per_entity,
    )
    if not validation:
        raise ToolError(
            "relation: the first tokens of its objects are all the same for this subject, so no "
            "object can be swapped for another; choose another relation"
        )
    chosen = choose_edit(
        ctx.subject,
        knowledge,
        tried,
        ranks,
        held,
        validation,
        split.validation,
        ctx.seed,
        ctx.step,
    )
    records = (
        [single]
        if single is not None
        else swap_objects(
            split.test[: plan.max_test_entities],
            objects,
            tokens,
            ctx.seed + 2,
            per_entity=plan.test_per_entity,
        )
    )
    paraphrase = held_out_template(knowledge)
    one = single is not None
    probes: dict[Kind, list[Probe]] = {
        "rewrite": edit_probes(
            records,
            knowledge,
            knowledge.templates if one else [knowledge.rewrite],
            by_prompt=one,
            known_only=not one,
        ),
        "paraphrase": []
        if one or not paraphrase
        else edit_probes(records, knowledge, [paraphrase]),
        **neighbour_probes(
            records,
            knowledge,
            token_of(ctx.subject, knowledge),
            (*split.test, *split.validation),
            _SINGLE_NEIGHBOURS if one else plan.neighbours_per_record,
            ctx.seed,
            by_prompt=one,
        ),
    }
    directions = _directions(held, records, chosen, ctx.seed)
    comparison = _compare(ctx, knowledge, records, probes, directions, chosen, study)
    ctx.step(0, 0, "writing text with and without the edits")
    # Texts are written at one layer.
    here = [method for method in comparison.compared if method.layer is None]
    written = write(
        ctx.subject,
        [
            Opening(probe.record, probe.prompt)
            for probe in probes["rewrite"][: 1 if one else plan.generated_prompts]
        ],
        chosen.best.layer,
        here,
        plan.generated_tokens,
        seed=ctx.seed,
        greedy=one,
    )
    efficacy = measure_efficacy(comparison, "rewrite", "efficacy")
    specificity = measure_specificity(comparison)
    found = [*efficacy, *specificity]
    if not one:
        found += measure_efficacy(comparison, "paraphrase", "paraphrase_efficacy")
        found += measure_fluency(fluency_of(written), plan.generated_tokens, ctx.seed)
    probability = measure_probability(comparison, "rewrite", ctx.seed)
    caveats = relation_caveats(loaded)
    if not specificity:
        caveats.append("no neighbour is answered rightly even without an edit: no specificity")
    if single is not None and single.entity not in knowledge.known[knowledge.rewrite]:
        caveats.append(f"the subject did not know the {loaded.name} of {single.entity!r} before")
    rows = table(comparison)
    examples: list[JsonValue] = [
        {
            "prompt": each.opening.prompt.text,
            "entity": records[each.opening.record].entity,
            "old_object": records[each.opening.record].old_object,
            "new_object": records[each.opening.record].new_object,
            "before": each.texts[NO_EDIT],
            "after": each.texts[EDITED],
        }
        for each in written
    ]
    title = f"{loaded.name}: edits through the inverse at layer {chosen.best.layer}"
    return ToolSuccess(
        summary=_summary(loaded.name, chosen, efficacy, specificity, single, probability),
        measurements=(
            *(each for each in found if each.scope not in comparison.methods),
            probability,
        ),
        controls=tuple(each for each in found if each.scope in comparison.methods),
        output={
            "relation": loaded.name,
            "template": template,
            "rewrite_template": knowledge.rewrite,
            "effort": effort,
            "layer": chosen.best.layer,
            "rank": chosen.best.rank,
            "damped": chosen.best.damped,
            "tried": [trial.account() for trial in chosen.trials],
            "estimation": [[each.subject, each.object] for each in estimation],
            "remedi_layer": None if study is None else study.fit.layer,
            "methods": rows,
            "examples": examples[:4],
        },
        artifacts=(
            ctx.save("methods.svg", draw_methods(title, rows), "image/svg+xml"),
            ctx.save(
                "examples.json",
                json.dumps(examples, ensure_ascii=False, indent=1),
                "application/json",
            ),
        ),
        caveats=tuple(caveats),
    )


def _object(ctx: ToolContext, knowledge: Knowledge, old_object: str, new_object: str) -> str:
    """The range's own spelling of `new_object`."""
    wanted = new_object.strip().casefold()
    spelled = next((name for name in knowledge.objects if name.casefold() == wanted), None)
    if spelled is None:
        some = ", ".join(repr(name) for name in knowledge.objects[:8])
        raise ToolError(
            f"new_object {new_object!r} is no object of the relation, and an edit through the map "
            f"needs an entity that has it; its {len(knowledge.objects)} objects are for example "
            f"{some}"
        )
    check_told_apart(ctx.subject, old_object, spelled)
    return spelled


def _directions(
    held: Held, records: Sequence[EditRecord], chosen: Chosen, seed: int
) -> dict[str, Float[Tensor, "record d_model"]]:
    """The edit's direction for each record, and the baselines'."""
    donors = choose_donors(held, records, seed + 4)
    change = changes(held, records, donors)
    edited = chosen.directions(chosen.best, change)
    norms = edited.norm(dim=1, keepdim=True)
    directions = {
        EDITED: edited,
        RANDOM: random_like(edited, seed),
        SWAPPED: swaps(held, records, donors, chosen.best.layer),
        UNMAPPED: torch.nn.functional.normalize(change, dim=1) * norms,
    }
    if chosen.best.damped:
        directions[CUT] = chosen.directions(chosen.cut, change)
    return directions


def _compare(
    ctx: ToolContext,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    probes: Mapping[Kind, Sequence[Probe]],
    directions: Mapping[str, Float[Tensor, "record d_model"]],
    chosen: Chosen,
    study: Study | None,
) -> Comparison:
    """Every method on the same probes; the published inverse and REMEDI at their own layers."""
    methods = [
        method._replace(layer=chosen.cut.layer) if method.name == CUT else method
        for method in all_methods(records, knowledge, directions)
    ]
    if study is not None:
        trained = directions_of(ctx, study, records)[EDITED]
        methods.append(Method(REMEDI, trained, layer=study.fit.layer))
    return compare_methods(ctx, knowledge, records, probes, methods, chosen.best.layer)


def _summary(
    name: str,
    chosen: Chosen,
    efficacy: Sequence[Measurement],
    specificity: Sequence[Measurement],
    single: EditRecord | None,
    probability: Measurement,
) -> str:
    where = f"layer {chosen.best.layer}, rank {chosen.best.rank}"
    if chosen.best.damped:
        where += ", fading out"
    if single is not None:
        return (
            f"{single.entity}: {single.old_object} → {single.new_object} through the inverse of "
            f"{name} ({where}): probability {probability.baseline:.2f} before, "
            f"{probability.value:.2f} after (mean of {probability.n} prompts)"
        )
    first = efficacy[0]
    said = (
        f"{name}: edits through the inverse ({where}) take hold in {first.value:.0%} of cases on "
        f"{first.n} held-out entities ({first.control}: {first.baseline:.0%}"
    )
    said += "".join(
        f"; {each.scope}: {each.value:.0%}" for each in efficacy if each.scope in (SWAPPED, REMEDI)
    )
    said += ")"
    if specificity:
        said += f"; neighbours keep their answer in {specificity[0].value:.0%}"
    return said
