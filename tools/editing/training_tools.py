"""The tools `train_editor` and `sweep_edit_layer`: an editor alone, and where it works."""

import json
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, JsonValue

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.comparison import compare, directions_of
from dragoman.tools.editing.evaluation import held_out_records, unknown_facts
from dragoman.tools.editing.fitting import PLANS, build_pool
from dragoman.tools.editing.judging import token_of
from dragoman.tools.editing.measuring import measure_efficacy, measure_specificity
from dragoman.tools.editing.plot import draw_sweep
from dragoman.tools.editing.probes import Kind, Probe, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.editing.selection import StrengthTrial
from dragoman.tools.editing.study import Study, prepare, survey
from dragoman.tools.editing.sweep import SweepRow, sweep
from dragoman.tools.editing.tool import EditLayer, EditorForm, EditorKind, HowMuch, account
from dragoman.tools.editing.training import TrainingSettings
from dragoman.tools.registry import tool
from dragoman.tools.relations import RelationName, load_relation, relation_caveats

_STRENGTHS = (1.0, 0.7, 0.4)


@tool(method="editing")
def train_editor(
    ctx: ToolContext,
    relation: RelationName,
    layer: EditLayer = None,
    editor: EditorForm = "contrast",
    kind: EditorKind = "linear",
    effort: HowMuch = "full",
) -> ToolSuccess:
    """Train an editor of a relation (after REMEDI) and keep it for later edits.

    It is trained once for each subject, layer, relation and seed; a later call finds it again.
    `efficacy` and `neighbourhood_specificity` say how it does on entities that it never saw, beside
    every baseline; facts that the subject does not know are reported apart. `edit_representation`
    measures paraphrases, text and collateral as well.
    """
    loaded = load_relation(relation)
    study = prepare(ctx, loaded, PLANS[effort], layer, form=editor, kind=kind)
    measured, controls = _measure(ctx, study)
    efficacy = measured[0]
    return ToolSuccess(
        summary=(
            f"{loaded.name}: {'found' if study.reused else 'trained'} a {kind} editor at layer "
            f"{study.fit.layer}, strength {float(study.fit.editor.strength):g}; edits of "
            f"{efficacy.n} held-out entities take hold in {efficacy.value:.0%} "
            f"({efficacy.control}: {efficacy.baseline:.0%})"
        ),
        measurements=tuple(measured),
        controls=tuple(controls),
        output=account(study),
        caveats=tuple(relation_caveats(loaded)),
    )


@tool(method="editing")
def sweep_edit_layer(
    ctx: ToolContext,
    relation: RelationName,
    layers: Annotated[
        list[int] | None,
        Field(
            min_length=1,
            max_length=64,
            description="Layers to try; left out, six spread over the depth",
        ),
    ] = None,
    strengths: Annotated[
        list[Annotated[float, Field(gt=0, le=4)]] | None,
        Field(
            min_length=1,
            max_length=12,
            description="Multiples of the trained direction; left out, 1, 0.7 and 0.4",
        ),
    ] = None,
    editor: EditorForm = "contrast",
    kind: EditorKind = "linear",
    effort: HowMuch = "quick",
) -> ToolSuccess:
    """At which layer and strength edits of a relation hold, and what they cost there.

    Trains an editor briefly at each layer and tries every strength on validation entities: the
    harmonic mean of efficacy, paraphrase efficacy, neighbourhood specificity, essence and fluency,
    beside the mean difference at the same layers and strengths, as a plot. The best layer and
    strength are then measured on test entities, which the choice did not see.
    """
    loaded, plan = load_relation(relation), PLANS[effort]
    subject = ctx.subject
    chosen = sorted(set(layers)) if layers else _spread(subject.n_layers)
    for layer in chosen:
        subject.check_layer(layer)
    knowledge, split = survey(ctx, loaded, plan)
    pool = build_pool(knowledge, split, plan, ctx.seed)
    settings = TrainingSettings(form=editor, kind=kind, max_epochs=2)
    rows = sweep(
        subject,
        knowledge,
        pool,
        chosen,
        sorted(set(strengths or _STRENGTHS), reverse=True),
        plan,
        settings,
        ctx.seed,
        ctx.step,
    )
    top = max(rows, key=lambda row: row.best.score)
    study = prepare(ctx, loaded, plan, top.layer, form=editor, kind=kind)
    measured, controls = _measure(ctx, study)
    title = f"{loaded.name}: layers and strengths, validation entities"
    return ToolSuccess(
        summary=(
            f"{loaded.name}: of layers {', '.join(map(str, chosen))} edits do best at layer "
            f"{top.layer} (harmonic mean {top.best.score:.2f} at strength {top.best.strength:g} on "
            f"validation entities); there they take hold in {measured[0].value:.0%} of "
            f"{measured[0].n} test entities"
        ),
        measurements=tuple(measured),
        controls=tuple(controls),
        output={**account(study), "sweep": [_shown(row) for row in rows]},
        artifacts=(
            ctx.save("sweep.svg", draw_sweep(title, rows), "image/svg+xml"),
            ctx.save(
                "sweep.json",
                json.dumps([_shown(row) for row in rows], indent=1),
                "application/json",
            ),
        ),
        caveats=(
            "the sweep's own figures are of validation entities: they choose, they do not prove",
        ),
    )


def _measure(ctx: ToolContext, study: Study) -> tuple[list[Measurement], list[Measurement]]:
    """Efficacy and specificity on test entities, and the same of every baseline."""
    records: list[EditRecord] = held_out_records(ctx, study)
    knowledge, split = study.knowledge, study.split
    probes: dict[Kind, list[Probe]] = {
        "rewrite": edit_probes(records, knowledge, [knowledge.rewrite]),
        **neighbour_probes(
            records[: study.plan.neighbour_records],
            knowledge,
            token_of(ctx.subject, knowledge),
            (*split.test, *split.validation),
            study.plan.neighbours_per_record,
            ctx.seed,
        ),
    }
    if not probes["rewrite"]:
        raise ToolError("relation: no test fact is known to the subject; choose another relation")
    comparison = compare(ctx, study, records, probes, directions_of(ctx, study, records))
    found = (
        *measure_efficacy(comparison, "rewrite", "efficacy"),
        *measure_specificity(comparison),
    )
    methods = comparison.methods
    measured = [one for one in found if one.scope not in methods]
    return (
        measured + unknown_facts(ctx, study),
        [one for one in found if one.scope in methods],
    )


def _spread(n_layers: int) -> list[int]:
    """Six layers over the depth; none past which nothing can follow."""
    highest = max(0, n_layers - 2)
    return sorted({round(highest * step / 6) for step in range(6)})


def _shown(row: SweepRow) -> JsonObject:
    def listed(trials: Sequence[StrengthTrial]) -> list[JsonValue]:
        return [{**trial.model_dump(mode="json"), "score": trial.score} for trial in trials]

    return {
        "layer": row.layer,
        "editor": listed(row.editor),
        "mean_difference": listed(row.mean_difference),
    }
