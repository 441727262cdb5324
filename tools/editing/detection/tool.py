"""The tool `detect_errors`: which facts the subject will get wrong, before it is asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue

from dragoman.core.errors import ToolError
from dragoman.core.records import Artifact, JsonObject, Measurement, ToolSuccess, content_id
from dragoman.tools.circuits.twin import make_twin
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.correction import correct, measure_correction
from dragoman.tools.editing.detection.detector import make_detector
from dragoman.tools.editing.detection.detector_store import (
    FOLDER,
    Figures,
    Kept,
    load_detector,
    save_detector,
)
from dragoman.tools.editing.detection.directions import attribute_directions
from dragoman.tools.editing.detection.measuring import measure
from dragoman.tools.editing.detection.methods import TWIN
from dragoman.tools.editing.detection.probe import Probe
from dragoman.tools.editing.detection.questions import Question
from dragoman.tools.editing.detection.reading import read
from dragoman.tools.editing.detection.scoring import score_facts
from dragoman.tools.editing.detection.study import (
    DETECTION_PLANS,
    DetectionPlan,
    ErrorStudy,
    editor_layer,
    study_errors,
)
from dragoman.tools.editing.detection.trial import Judged, judge, judge_twin
from dragoman.tools.fact_files import FactRow, make_row, read_fact_file
from dragoman.tools.registry import Effort, tool, tools_digest
from dragoman.tools.relations import Relation, RelationName, load_relation, relation_caveats

_SHOWN = 12


@tool(method="editing")
def detect_errors(
    ctx: ToolContext,
    relation: RelationName,
    question: Annotated[
        Question,
        Field(
            description="'prior': which facts the subject's own memory gets wrong; 'contextual': "
            "whether it takes what a sentence before the question says of the entity"
        ),
    ] = "prior",
    facts: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="A .jsonl or .parquet file with columns entity and object: facts of the "
            "relation whose risk is wanted",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        Field(ge=0, description="Layer of the editor whose directions are read"),
    ] = None,
    effort: Annotated[
        Effort, Field(description="'quick' takes 60 facts and no random twin, 'full' up to 240")
    ] = "full",
    entity: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=400,
            description="A single fact whose risk is wanted: what it is about; goes with object",
        ),
    ] = None,
    object: Annotated[
        str | None,
        Field(min_length=1, max_length=400, description="What the single fact states of entity"),
    ] = None,
    new_object: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=400,
            description="For 'contextual': the object that the sentence gives to entity",
        ),
    ] = None,
) -> ToolSuccess:
    """Which facts of a relation the subject will get wrong, foreseen from its representations.

    Reads the entity's representation before the question is over, compares it with the editor's
    direction for each object (after REMEDI), and calibrates risk on other entities. Measures `phi`
    (Matthews), `f1` and `auroc` on entities that neither editor nor probe saw, against the
    subject's own confidence, with the difference as `phi_above_confidence`; further controls:
    labels dealt out anew, the stated object alone, another entity's representation, attribute
    vectors without an editor, a random-weight twin. `corrected_accuracy` is the accuracy once the
    facts at risk are edited. `risks.json` has every tested fact with its risk and the reason. What
    was trained is kept: the next call, with facts or with one `entity` and `object`, reads those
    alone.
    """
    loaded = load_relation(relation)
    rows = _asked_for(question, facts, entity, object, new_object)
    plan = DETECTION_PLANS[effort]
    inputs: JsonObject = {
        "subject": ctx.subject.identity.digest,
        "relation": loaded.content_id(),
        "question": question,
        "layer": editor_layer(ctx.subject, layer),
        "plan": plan.model_dump(mode="json"),
        "seed": ctx.seed,
        "code": tools_digest(),
    }
    folder = ctx.cache / FOLDER / content_id(inputs)
    stored = load_detector(folder, inputs)
    kept = stored or train_detector(ctx, loaded, question, plan, layer)
    if stored is None:
        save_detector(folder, kept, inputs)
    figures = kept.figures
    artifacts = [_save(ctx, "risks.json", figures.risks)]
    scored: list[JsonObject] = []
    caveats = relation_caveats(loaded)
    if rows:
        found = score_facts(ctx.subject, kept.detector, rows, ctx.seed, ctx.step)
        scored = [one.row() for one in found]
        artifacts.append(_save(ctx, "facts.json", scored))
        unscored = sum(one.risk is None for one in found)
        if unscored:
            caveats.append(f"{unscored} of {len(rows)} facts could not be scored: see the reasons")
    listed: list[JsonValue] = [*scored[:_SHOWN]]
    return ToolSuccess(
        summary=_summary(loaded.name, figures.measurements),
        measurements=figures.measurements,
        controls=figures.controls,
        output={
            **figures.account,
            "detector": folder.name,
            "reused": stored is not None,
            "risks": list(figures.risks[:_SHOWN]),
            "facts_failed": list(figures.failed[:_SHOWN]),
            "facts_scored": sum(row["risk"] is not None for row in scored),
            "facts_unscored": sum(row["risk"] is None for row in scored),
            "facts": listed,
        },
        artifacts=tuple(artifacts),
        caveats=(*caveats, *figures.caveats),
    )


def train_detector(
    ctx: ToolContext,
    relation: Relation,
    question: Question,
    plan: DetectionPlan,
    layer: int | None,
) -> Kept:
    """Ask, train, fit and measure: all that later calls need not do again.

    Raises:
        ToolError: a layer that the subject lacks; too few right or wrong answers.
    """
    study = study_errors(ctx, relation, question, plan, layer)
    trial, tested = study.trial, study.trial.tested
    n_failed = len({(one.entity, one.object) for one in study.failed})
    found = judge(trial, plan.deals, ctx.seed, ctx.step)
    if plan.twin:
        _ask_twin(ctx, study, found)
    measured, controls = measure(
        found.tested(tested),
        trial.wrong[tested],
        [trial.asked.groups[at] for at in tested],
        found.control,
        ctx.seed,
        n_failed=n_failed,
    )
    if question == "prior":
        ctx.step(0, 0, "editing where an error is foreseen")
        after = correct(ctx.subject, trial, study.editor, found.risks, ctx.seed)
        accuracy, beside = measure_correction(after, n_failed=n_failed)
        measured, controls = [*measured, accuracy], [*controls, *beside]
    caveats = []
    if plan.twin and TWIN not in found.told:
        caveats.append("the subject is too large for a random-weight twin beside it")
    if study.failed:
        caveats.append(
            f"{n_failed} facts of the relation could not be asked or read, "
            f"for example {study.failed[0].reason}"
        )
    risks = sorted((found.risks[at] for at in tested), key=lambda one: -one.risk)
    return Kept(
        make_detector(study, found.probes),
        Figures(
            measurements=tuple(measured),
            controls=tuple(controls),
            risks=tuple(one.row() for one in risks),
            failed=tuple(one.row() for one in study.failed),
            account=_account(study, found.probes),
            caveats=tuple(caveats),
        ),
    )


def _asked_for(
    question: Question,
    facts: str | None,
    entity: str | None,
    stated: str | None,
    new_object: str | None,
) -> tuple[FactRow, ...]:
    """The facts whose risk is wanted: of a file, or the single one."""
    single = {"entity": entity, "object": stated, "new_object": new_object}
    given = [name for name, value in single.items() if value is not None]
    if not given:
        return () if facts is None else read_fact_file(Path(facts).expanduser())
    if facts is not None:
        raise ToolError(f"argument {given[0]!r}: a single fact and a file of facts exclude another")
    needed = ["entity", "object", *(["new_object"] if question == "contextual" else [])]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ToolError(f"argument {missing[0]!r} is missing: {given[0]!r} alone is no fact")
    return (make_row(**single),)


def _ask_twin(ctx: ToolContext, study: ErrorStudy, found: Judged) -> None:
    ctx.step(0, 0, "the same on the random-weight twin")
    twin = make_twin(ctx.subject, ctx.seed)
    if twin is None:
        return
    trial = study.trial
    seen = read(twin, trial.asked.prompts, trial.among.ids, trial.readings.layers, step=ctx.step)
    facts = [fact for fact in study.knowledge.facts if fact.subject in study.editor.entities]
    editor = study.editor
    directions = attribute_directions(
        twin, editor.template, facts, trial.among, editor.layer, ctx.seed
    )
    judge_twin(found, trial, seen, directions)


def _save(ctx: ToolContext, name: str, rows: Sequence[JsonObject]) -> Artifact:
    return ctx.save(name, json.dumps([*rows], ensure_ascii=False, indent=1), "application/json")


def _summary(name: str, measured: Sequence[Measurement]) -> str:
    phi, lead = measured[0], measured[1]
    return (
        f"{name}: errors are foreseen with phi {phi.value:.2f} on {phi.n} held-out entities "
        f"(its own confidence: {phi.baseline:.2f}; difference "
        f"{lead.ci95[0]:.2f} to {lead.ci95[1]:.2f})"
    )


def _account(study: ErrorStudy, probes: list[Probe]) -> JsonObject:
    """How the probe came about: what was asked, which layers were tried and chosen."""
    tried: dict[tuple[int, ...], list[float]] = {}
    for probe in probes:
        for score in probe.tried:
            tried.setdefault(score.layers, []).append(score.auroc)
    sweep: list[JsonValue] = [
        {"layers": list(layers), "auroc_on_fitting_split": float(np.mean(reached))}
        for layers, reached in tried.items()
    ]
    chosen: list[JsonValue] = [list(probe.decoder.layers) for probe in probes]
    trial = study.trial
    return {
        "relation": study.relation.name,
        "question": study.question,
        "template": study.template,
        "prompts": len(trial.wrong),
        "prompts_tested": len(trial.tested),
        "errors_tested": int(trial.wrong[trial.tested].sum()),
        "answers": len(trial.among.ids),
        "edit_layer": study.editor.layer,
        "editor_entities": len(study.editor.entities),
        "facts_not_asked": len(study.failed),
        "entity_layers": chosen,
        "layers_tried": sweep,
    }
