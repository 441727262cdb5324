"""The tool `detect_errors`: which facts the subject will get wrong, before it is asked."""

import json
from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue

from dragoman.core.records import JsonObject, ToolSuccess
from dragoman.tools.circuits.twin import make_twin
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.decoder import Flags
from dragoman.tools.editing.detection.directions import attribute_directions
from dragoman.tools.editing.detection.measuring import measure
from dragoman.tools.editing.detection.methods import (
    CONFIDENCE,
    PROBE,
    TWIN,
    Told,
    ask_all,
    ask_probe,
    control_phis,
    fitted,
)
from dragoman.tools.editing.detection.probe import Probe, Verdicts
from dragoman.tools.editing.detection.questions import Question
from dragoman.tools.editing.detection.reading import read
from dragoman.tools.editing.detection.risks import Risk, risk_rows
from dragoman.tools.editing.detection.study import (
    DETECTION_PLANS,
    ErrorStudy,
    study_errors,
)
from dragoman.tools.registry import Effort, tool
from dragoman.tools.relations import RelationName, load_relation

_NOTES = 3


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
    vectors without an editor, a random-weight twin. `risks.json` has every tested fact with its
    risk and the reason.
    """
    loaded = load_relation(relation)
    if layer is not None:
        ctx.subject.check_layer(layer)
    plan = DETECTION_PLANS[effort]
    study = study_errors(ctx, loaded, question, plan, layer)
    found = judge(ctx, study, plan.deals, twin=plan.twin)
    tested = study.tested
    measured, controls = measure(
        {name: _rows(one, tested) for name, one in found.told.items()},
        study.wrong[tested],
        [study.asked.groups[at] for at in tested],
        found.control,
        ctx.seed,
    )
    risks = [found.risks[at] for at in tested]
    risks.sort(key=lambda one: -one.risk)
    caveats = [f"relation file: {note}" for note in loaded.notes[:_NOTES]]
    if plan.twin and TWIN not in found.told:
        caveats.append("the subject is too large for a random-weight twin beside it")
    phi, lead = measured[0], measured[1]
    return ToolSuccess(
        summary=(
            f"{loaded.name}: errors are foreseen with phi {phi.value:.2f} on {phi.n} held-out "
            f"entities (its own confidence: {phi.baseline:.2f}, difference "
            f"[{lead.ci95[0]:.2f}, {lead.ci95[1]:.2f}])"
        ),
        measurements=tuple(measured),
        controls=tuple(controls),
        output={**_account(study, found.probes), "risks": [one.row() for one in risks[:12]]},
        artifacts=(
            ctx.save(
                "risks.json",
                json.dumps([one.row() for one in risks], ensure_ascii=False, indent=1),
                "application/json",
            ),
        ),
        caveats=tuple(caveats),
    )


class Judged:
    """What every method says of every tested prompt, over all folds."""

    def __init__(self, n_prompts: int) -> None:
        self.told: dict[str, Told] = {}
        self.probes: list[Probe] = []
        self.risks: dict[int, Risk] = {}
        self.control = np.zeros(0)
        self._n_prompts = n_prompts

    def add(self, name: str, rows: tuple[int, ...], said: Told) -> None:
        """Enter one fold's verdicts of one method."""
        empty = Told(np.zeros(self._n_prompts, dtype=bool), np.full(self._n_prompts, np.nan))
        whole = self.told.setdefault(name, empty)
        whole.foreseen[list(rows)] = said.foreseen
        whole.risk[list(rows)] = said.risk


def judge(ctx: ToolContext, study: ErrorStudy, deals: int, *, twin: bool) -> Judged:
    """Every method on every tested fold."""
    found = Judged(len(study.wrong))
    readings, claims, wrong = study.readings, study.asked.claims, study.wrong
    banks = []
    for number, split in enumerate(study.splits):
        ctx.step(number, len(study.splits), "fitting probes and their controls")
        told, bank, probe = ask_all(
            split,
            readings,
            claims,
            wrong,
            study.directions.edited,
            study.directions.attributes,
            ctx.seed + number,
        )
        banks.append(bank)
        found.probes.append(probe)
        for name, said in told.items():
            found.add(name, split.test, said)
        rows = list(split.test)
        verdicts: Verdicts = probe.judge(readings.rows(rows), claims.rows(rows))
        doubts = told[CONFIDENCE].risk
        for at, risk in zip(rows, risk_rows(study, rows, verdicts, doubts), strict=True):
            found.risks[at] = risk
    found.control = control_phis(study.splits, banks, readings, claims, wrong, ctx.seed, deals)
    if twin:
        _ask_twin(ctx, study, found)
    return found


def _ask_twin(ctx: ToolContext, study: ErrorStudy, found: Judged) -> None:
    ctx.step(0, 0, "the same on the random-weight twin")
    other = make_twin(ctx.subject, ctx.seed)
    if other is None:
        return
    seen = read(other, study.asked.prompts, study.among.ids, study.readings.layers, step=ctx.step)
    # Its vectors, the subject's answers: can they be told from a network that knows nothing?
    mixed = study.readings._replace(entity=seen.entity)
    directions = attribute_directions(
        other,
        study.editor.template,
        [fact for fact in study.knowledge.facts if fact.subject in study.editor.entities],
        study.among,
        study.editor.layer,
        ctx.seed,
    )
    for split in study.splits:
        fit, test = split.parts(mixed, study.asked.claims, study.wrong)
        probe, _ = fitted(split, fit, directions).choose(fit.wrong)
        found.add(TWIN, split.test, ask_probe(probe, test))


def _rows(one: Told, rows: list[int]) -> Told:
    foreseen: Flags = one.foreseen[rows]
    return Told(foreseen, one.risk[rows])


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
    return {
        "relation": study.relation.name,
        "question": study.question,
        "template": study.template,
        "prompts": len(study.wrong),
        "prompts_tested": len(study.tested),
        "errors_tested": int(study.wrong[study.tested].sum()),
        "answers": len(study.among.ids),
        "edit_layer": study.editor.layer,
        "editor_entities": len(study.editor.entities),
        "entity_layers": chosen,
        "layers_tried": sweep,
        "method": PROBE,
    }
