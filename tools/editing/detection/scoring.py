"""The risk of a person's own facts, by probes that did not learn from the entity in question."""

from collections.abc import Sequence

import numpy as np

from dragoman.core.records import JsonObject, Record
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.decoder import errs
from dragoman.tools.editing.detection.methods import fitted
from dragoman.tools.editing.detection.probe import Probe
from dragoman.tools.editing.detection.questions import Asked, ask_contextual, ask_prior
from dragoman.tools.editing.detection.reading import read
from dragoman.tools.editing.detection.risks import reason
from dragoman.tools.editing.detection.study import ErrorStudy
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.fact_files import FactRow
from dragoman.tools.relations import Sample


class FactRisk(Record):
    """One fact's risk, and why; `risk` is missing where nothing can be said."""

    entity: str
    object: str
    risk: float | None
    """Probability that the subject errs, 0..1: the mean over the probes."""
    error_foreseen: bool | None
    expected: str | None
    """The answer that the entity's representation speaks for."""
    answered: str | None
    """What the subject then preferred."""
    error: bool | None
    editor_saw_entity: bool
    """The editor's training facts held this entity (the probes' never did)."""
    reason: str

    def row(self) -> JsonObject:
        """As JSON."""
        found: JsonObject = self.model_dump(mode="json")
        return found


def score_facts(
    ctx: ToolContext, study: ErrorStudy, probes: Sequence[Probe], rows: Sequence[FactRow]
) -> list[FactRisk]:
    """Every fact in one batched pass, in the order of the rows.

    An entity of the relation is judged by the probe of its own fold, which was fitted on all
    others; an entity that the relation lacks by all of them.
    """
    trial = study.trial
    known = {name for names in trial.among.objects for name in names}
    usable = [row for row in rows if _fault(study, row, known) is None]
    asked = _ask(ctx, study, usable)
    found: dict[int, FactRisk] = {}
    if usable:
        readings = read(
            ctx.subject, asked.prompts, trial.among.ids, trial.readings.layers, step=ctx.step
        )
        wrong = errs(readings.answers, asked.claims)
        masked = np.where(asked.claims.candidates, readings.answers, -np.inf).argmax(1)
        judges = _judges(study, probes)
        homes = {
            entity.casefold(): number
            for number, (entities, _) in enumerate(judges)
            for entity in entities
        }
        seen = {entity.casefold() for entity in study.editor.entities}
        for at, row in enumerate(usable):
            home = homes.get(row.entity.casefold())
            mine = [probe for _, probe in judges] if home is None else [judges[home][1]]
            said = [probe.judge(readings.rows([at]), asked.claims.rows([at])) for probe in mine]
            risk = float(np.mean([one.risk[0] for one in said]))
            foreseen = sum(bool(one.foreseen[0]) for one in said) * 2 > len(said)
            stated = trial.among.spoken(int(asked.claims.claimed[at]))
            expected = trial.among.spoken(said[0].expected[0])
            found[id(row)] = FactRisk(
                entity=row.entity,
                object=row.object,
                risk=risk,
                error_foreseen=foreseen,
                expected=expected,
                answered=trial.among.spoken(int(masked[at])),
                error=bool(wrong[at]),
                editor_saw_entity=row.entity.casefold() in seen,
                reason=reason(stated, expected, risk, foreseen),
            )
    return [found.get(id(row)) or _unscored(row, _fault(study, row, known)) for row in rows]


def _judges(study: ErrorStudy, probes: Sequence[Probe]) -> list[tuple[set[str], Probe]]:
    """A probe for every part of the relation's entities, fitted on the other parts."""
    trial = study.trial
    found = [
        ({trial.asked.groups[at] for at in split.test}, probe)
        for split, probe in zip(trial.splits, probes, strict=True)
    ]
    for split in study.unseen:
        fit, _ = split.parts(trial.readings, trial.asked.claims, trial.wrong)
        probe, _ = fitted(split, fit, trial.directions.edited).choose(fit.wrong)
        found.append(({trial.asked.groups[at] for at in split.test}, probe))
    return found


def _ask(ctx: ToolContext, study: ErrorStudy, rows: Sequence[FactRow]) -> Asked:
    among = study.trial.among
    if study.question == "prior":
        facts = [Sample(subject=row.entity, object=row.object) for row in rows]
        return ask_prior(study.template, facts, among)
    records = [
        EditRecord(entity=row.entity, old_object=row.object, new_object=row.new_object or "")
        for row in rows
    ]
    return ask_contextual(study.template, records, among, ctx.seed, kinds=("stated",))


def _fault(study: ErrorStudy, row: FactRow, known: set[str]) -> str | None:
    wanted = [row.object] if study.question == "prior" else [row.object, row.new_object]
    for name in wanted:
        if name is None:
            return "the row has no new_object for the context to state"
        if name not in known:
            return f"{name!r} is not among the {len(known)} objects that the probe was fitted on"
    if study.question == "contextual" and row.object == row.new_object:
        return "object and new_object are the same"
    return None


def _unscored(row: FactRow, why: str | None) -> FactRisk:
    return FactRisk(
        entity=row.entity,
        object=row.object,
        risk=None,
        error_foreseen=None,
        expected=None,
        answered=None,
        error=None,
        editor_saw_entity=False,
        reason=why or "",
    )
