"""The tool `detect_errors`: which facts the subject will get wrong, before it is asked."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue

from dragoman.core.records import Artifact, JsonObject, Measurement, ToolSuccess
from dragoman.tools.circuits.twin import make_twin
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.correction import correct, measure_correction
from dragoman.tools.editing.detection.directions import attribute_directions
from dragoman.tools.editing.detection.measuring import measure
from dragoman.tools.editing.detection.methods import TWIN
from dragoman.tools.editing.detection.probe import Probe
from dragoman.tools.editing.detection.questions import Question
from dragoman.tools.editing.detection.reading import read
from dragoman.tools.editing.detection.scoring import score_facts
from dragoman.tools.editing.detection.study import DETECTION_PLANS, ErrorStudy, study_errors
from dragoman.tools.editing.detection.trial import Judged, judge, judge_twin
from dragoman.tools.fact_files import read_fact_file
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import RelationName, load_relation

_NOTES = 3
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
) -> ToolSuccess:
    """Which facts of a relation the subject will get wrong, foreseen from its representations.

    Reads the entity's representation before the question is over, compares it with the editor's
    direction for each object (after REMEDI), and calibrates risk on other entities. Measures `phi`
    (Matthews), `f1` and `auroc` on entities that neither editor nor probe saw, against the
    subject's own confidence, with the difference as `phi_above_confidence`; further controls:
    labels dealt out anew, the stated object alone, another entity's representation, attribute
    vectors without an editor, a random-weight twin. `corrected_accuracy` is the accuracy once the
    facts at risk are edited. `risks.json` has every tested fact with its risk and the reason.
    """
    loaded = load_relation(relation)
    rows = () if facts is None else read_fact_file(Path(facts).expanduser())
    if layer is not None:
        ctx.subject.check_layer(layer)
    plan = DETECTION_PLANS[effort]
    study = study_errors(ctx, loaded, question, plan, layer)
    trial, tested = study.trial, study.trial.tested
    found = judge(trial, plan.deals, ctx.seed, ctx.step)
    if plan.twin:
        _ask_twin(ctx, study, found)
    measured, controls = measure(
        found.tested(tested),
        trial.wrong[tested],
        [trial.asked.groups[at] for at in tested],
        found.control,
        ctx.seed,
    )
    if question == "prior":
        ctx.step(0, 0, "editing where an error is foreseen")
        after = correct(ctx.subject, trial, study.editor, found.risks, ctx.seed)
        accuracy, beside = measure_correction(after)
        measured, controls = [*measured, accuracy], [*controls, *beside]
    risks = sorted((found.risks[at] for at in tested), key=lambda one: -one.risk)
    artifacts = [_save(ctx, "risks.json", [one.row() for one in risks])]
    scored: list[JsonObject] = []
    if rows:
        scored = [one.row() for one in score_facts(ctx, study, found.probes, rows)]
        artifacts.append(_save(ctx, "facts.json", scored))
    caveats = [f"relation file: {note}" for note in loaded.notes[:_NOTES]]
    if plan.twin and TWIN not in found.told:
        caveats.append("the subject is too large for a random-weight twin beside it")
    return ToolSuccess(
        summary=_summary(loaded.name, measured),
        measurements=tuple(measured),
        controls=tuple(controls),
        output={
            **_account(study, found.probes),
            "risks": [one.row() for one in risks[:_SHOWN]],
            "facts_scored": len(scored),
        },
        artifacts=tuple(artifacts),
        caveats=tuple(caveats),
    )


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


def _save(ctx: ToolContext, name: str, rows: list[JsonObject]) -> Artifact:
    return ctx.save(name, json.dumps(rows, ensure_ascii=False, indent=1), "application/json")


def _summary(name: str, measured: list[Measurement]) -> str:
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
        "entity_layers": chosen,
        "layers_tried": sweep,
    }
