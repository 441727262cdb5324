"""The tool `edit_representation`: edits of an entity's representation, and what they are worth."""

import json
from typing import Annotated, TypeAlias

from pydantic import Field, JsonValue

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.caveats import edit_caveats
from dragoman.tools.editing.comparison import Comparison, compare, directions_of
from dragoman.tools.editing.directions import EDITED, NO_EDIT
from dragoman.tools.editing.editor import Form
from dragoman.tools.editing.editors.catalogue import Kind
from dragoman.tools.editing.evaluation import evaluate, held_out_records, unknown_facts
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.judging import token_of
from dragoman.tools.editing.material import held_out_template
from dragoman.tools.editing.measuring import (
    measure_efficacy,
    measure_probability,
    measure_specificity,
    table,
)
from dragoman.tools.editing.plot import draw_methods
from dragoman.tools.editing.probes import Kind as ProbeKind
from dragoman.tools.editing.probes import Probe, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.study import Study, find_fact, prepare, wanted_edit
from dragoman.tools.editing.writing import Opening, Written, write
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import RelationName, load_relation, relation_caveats

_SINGLE_NEIGHBOURS = 6


EditLayer: TypeAlias = Annotated[
    int | None,
    Field(ge=0, description="Edit at this layer only; left out, validation entities choose it"),
]
EditorForm: TypeAlias = Annotated[
    Form,
    Field(
        description="What the editor reads: 'contrast', the new object against the old one; "
        "'attribute', the new object alone, as REMEDI does"
    ),
]
EditorKind: TypeAlias = Annotated[
    Kind,
    Field(
        description="The map from what is read to the direction: affine of full or low rank, with "
        "or without the entity as input, or an MLP"
    ),
]
HowMuch: TypeAlias = Annotated[
    Effort, Field(description="'quick' takes about a minute, 'full' several")
]
"""Arguments that the tools of editing share."""


@tool(method="editing")
def edit_representation(
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
            description="What the entity is to be related to instead; goes with entity",
        ),
    ] = None,
    layer: EditLayer = None,
    editor: EditorForm = "contrast",
    kind: EditorKind = "linear",
    effort: HowMuch = "full",
) -> ToolSuccess:
    """Whether facts can be edited inside the subject, and whether other entities are spared.

    Trains an affine editor (after REMEDI) and measures it on entities that it never saw:
    `efficacy`, the fraction of edits after which the new object is more probable than the true
    one; `neighbourhood_specificity`, the fraction of questions about another entity, in prompts
    where the edit acts, that keep their answer; `paraphrase_efficacy`, through a template that
    training did not use; `fluency` and `consistency` of the text written, `essence`, whether the
    entity stays itself; `harmonic_mean` of five of these; `magnitude`, and `collateral_kl` in
    unrelated prompts. Baselines: no edit, prefix, replaced entity, identity, mean difference,
    random direction of equal norm. With `entity` and `new_object`: that one edit, with the text
    before and after and `new_object_probability`.
    """
    loaded = load_relation(relation)
    if layer is not None:
        ctx.subject.check_layer(layer)
    if (entity is None) != (new_object is None):
        given, missing = ("entity", "new_object") if entity else ("new_object", "entity")
        raise ToolError(f"argument {missing!r} is missing: {given!r} alone is no edit")
    caveats = relation_caveats(loaded)
    if entity is not None and new_object is not None:
        fact = find_fact(loaded, entity)
        record = wanted_edit(ctx.subject, fact, new_object)
        study = prepare(
            ctx, loaded, PLANS[effort], layer, form=editor, kind=kind, held_out=[fact.subject]
        )
        return _one_edit(ctx, study, record, caveats)
    return _many_edits(
        ctx, prepare(ctx, loaded, PLANS[effort], layer, form=editor, kind=kind), caveats
    )


def _many_edits(ctx: ToolContext, study: Study, caveats: list[str]) -> ToolSuccess:
    """Held-out entities, several new objects each."""
    outcome = evaluate(ctx, study, held_out_records(ctx, study))
    comparison, paraphrase = outcome.comparison, held_out_template(study.knowledge)
    metrics = {one.metric: one for one in reversed(outcome.measurements) if not one.scope}
    specificity = metrics.get("neighbourhood_specificity")
    if specificity is None:
        caveats.append("no neighbour is answered rightly even without an edit: no specificity")
    if paraphrase is None:
        caveats.append("the relation has one template only: no paraphrase efficacy")
    elif "paraphrase_efficacy" not in metrics:
        caveats.append(f"no test fact is known under {paraphrase!r}: no paraphrase efficacy")
    rows = table(comparison, outcome.scores, outcome.five)
    examples = [_example(one, comparison) for one in outcome.answers]
    title = f"{study.relation.name}: edits at layer {study.fit.layer}"
    return ToolSuccess(
        summary=_summary(study, metrics["efficacy"], specificity),
        measurements=(*outcome.measurements, *unknown_facts(ctx, study)),
        controls=outcome.controls,
        output={**account(study), "methods": rows, "examples": list(examples[:4])},
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


def _one_edit(
    ctx: ToolContext, study: Study, record: EditRecord, caveats: list[str]
) -> ToolSuccess:
    """One entity, asked through every template; several neighbours."""
    knowledge, split = study.knowledge, study.split
    records = [record]
    directions = directions_of(ctx, study, records)
    neighbours = (*split.test, *split.validation)
    probes: dict[ProbeKind, list[Probe]] = {
        "rewrite": edit_probes(
            records, knowledge, knowledge.templates, by_prompt=True, known_only=False
        ),
        **neighbour_probes(
            records,
            knowledge,
            token_of(ctx.subject, knowledge),
            neighbours,
            _SINGLE_NEIGHBOURS,
            ctx.seed,
            by_prompt=True,
        ),
    }
    comparison = compare(ctx, study, records, probes, directions)
    ctx.step(0, 0, "writing text with and without the edit")
    asked = probes["rewrite"][0]
    written = write(
        ctx.subject,
        [Opening(asked.record, asked.prompt)],
        study.fit.layer,
        comparison.compared,
        study.plan.generated_tokens,
        seed=ctx.seed,
        greedy=True,
    )[0]
    efficacy = measure_efficacy(comparison, "rewrite", "efficacy")
    specificity = measure_specificity(comparison)
    probability = measure_probability(comparison, "rewrite", ctx.seed)
    caveats += edit_caveats(study, record)
    found = (probability, *efficacy, *specificity)
    return ToolSuccess(
        summary=(
            f"{record.entity}: {record.old_object} → {record.new_object} at layer "
            f"{study.fit.layer}: probability {probability.baseline:.2f} before, "
            f"{probability.value:.2f} after (mean of {probability.n} prompts)"
        ),
        measurements=tuple(one for one in found if one.scope not in comparison.methods),
        controls=tuple(one for one in found if one.scope in comparison.methods),
        output={
            **account(study),
            **_example(written, comparison),
            "methods": table(comparison),
            "prompts": _by_prompt(comparison),
        },
        caveats=tuple(caveats),
    )


def _example(written: Written, comparison: Comparison) -> JsonObject:
    """One edit to read: text before and after, the baselines' text, and what moved."""
    opening = written.opening
    record = comparison.records[opening.record]
    at = [Opening(probe.record, probe.prompt) for probe in comparison.probes["rewrite"]].index(
        opening
    )
    return {
        "prompt": opening.prompt.text,
        "entity": record.entity,
        "old_object": record.old_object,
        "new_object": record.new_object,
        "before": written.texts[NO_EDIT],
        "after": written.texts[EDITED],
        "probabilities": _moved(comparison, at),
        "baselines": {
            method: text
            for method, text in written.texts.items()
            if method not in (EDITED, NO_EDIT)
        },
    }


def _by_prompt(comparison: Comparison) -> list[JsonValue]:
    return [
        {"prompt": probe.prompt.text, **_moved(comparison, at)}
        for at, probe in enumerate(comparison.probes["rewrite"])
    ]


def _moved(comparison: Comparison, at: int) -> JsonObject:
    before = comparison.answers[NO_EDIT]["rewrite"]
    after = comparison.answers[EDITED]["rewrite"]
    return {
        "old_before": float(before.log_old[at].exp()),
        "old_after": float(after.log_old[at].exp()),
        "new_before": float(before.log_new[at].exp()),
        "new_after": float(after.log_new[at].exp()),
    }


def account(study: Study) -> JsonObject:
    """How the editor came about, so that its figures can be judged."""
    knowledge, split, fit = study.knowledge, study.split, study.fit
    return {
        "relation": study.relation.name,
        "template": knowledge.rewrite,
        "paraphrase_template": held_out_template(knowledge),
        "layer": fit.layer,
        "layers_tried": [trial.model_dump(mode="json") for trial in fit.trials],
        "strength": float(fit.editor.strength),
        "strengths_tried": [
            {**trial.model_dump(mode="json"), "score": trial.score} for trial in fit.strengths
        ],
        "mean_difference_strength": fit.difference_strength,
        "facts": {
            "asked": len(knowledge.facts),
            "known": len(knowledge.known[knowledge.rewrite]),
            "known_top1": knowledge.top1[knowledge.rewrite],
        },
        "entities": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        "training": {
            "records": len(study.pool.train),
            "validation_records": len(study.pool.validation),
            "best_epoch": fit.best.epoch,
            "history": [epoch.model_dump(mode="json") for epoch in fit.history],
            "editor": study.editor_id,
            "form": study.form,
            "kind": study.fit.kind,
            "reused": study.reused,
        },
    }


def _summary(study: Study, efficacy: Measurement, specificity: Measurement | None) -> str:
    said = (
        f"{study.relation.name}: edits at layer {study.fit.layer} take hold in "
        f"{efficacy.value:.0%} of cases on {efficacy.n} held-out entities "
        f"({efficacy.control}: {efficacy.baseline:.0%})"
    )
    if specificity is None:
        return said
    kept, control = specificity.value, specificity.baseline
    return f"{said}; neighbours keep their answer in {kept:.0%} (edited themselves: {control:.0%})"
