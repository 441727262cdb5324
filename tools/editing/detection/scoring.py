"""The risk of a person's own facts, by probes that did not learn from the entity in question."""

from collections.abc import Callable, Sequence

import numpy as np

from dragoman.core.records import JsonObject, Record
from dragoman.tools.editing.detection.decoder import errs
from dragoman.tools.editing.detection.detector import Detector
from dragoman.tools.editing.detection.faults import NOT_FINITE, entity_fault, finite
from dragoman.tools.editing.detection.questions import Asked, ask_contextual, ask_prior
from dragoman.tools.editing.detection.reading import Readings, read
from dragoman.tools.editing.detection.risks import reason
from dragoman.tools.editing.records import EditRecord, ask
from dragoman.tools.fact_files import FactRow
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject


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
    subject: LanguageSubject,
    detector: Detector,
    rows: Sequence[FactRow],
    seed: int,
    step: Callable[[int, int, str], None],
) -> list[FactRisk]:
    """Every fact in one batched pass, in the order of the rows; nothing is fitted.

    An entity of the relation is judged by the probe of its own fold, which was fitted on all
    others; an entity that the relation lacks by all of them.
    """
    faults = [_fault(subject, detector, row) for row in rows]
    usable = [at for at, why in enumerate(faults) if why is None]
    found: dict[int, FactRisk] = {}
    if usable:
        asked = _ask(detector, [rows[at] for at in usable], seed)
        readings = read(subject, asked.prompts, detector.among.ids, detector.layers, step=step)
        sound = finite(readings)
        for at, good in zip(usable, sound, strict=True):
            faults[at] = None if good else NOT_FINITE
        few = np.flatnonzero(sound).tolist()
        usable = [usable[place] for place in few]
        scored = _score(detector, [rows[at] for at in usable], asked.rows(few), readings.rows(few))
        found = dict(zip(usable, scored, strict=True))
    return [found.get(at) or _unscored(row, faults[at]) for at, row in enumerate(rows)]


def _score(
    detector: Detector, rows: Sequence[FactRow], asked: Asked, readings: Readings
) -> list[FactRisk]:
    """Risks of facts that were asked and read."""
    judges = [detector.judges(row.entity) for row in rows]
    said: list[dict[int, tuple[float, bool, int]]] = [{} for _ in rows]
    for number, fold in enumerate(detector.folds):
        mine = [at for at, some in enumerate(judges) if number in some]
        if not mine:
            continue
        verdicts = fold.probe.judge(readings.rows(mine), asked.claims.rows(mine))
        for place, at in enumerate(mine):
            said[at][number] = (
                float(verdicts.risk[place]),
                bool(verdicts.foreseen[place]),
                verdicts.expected[place],
            )
    among = detector.among
    wrong = errs(readings.answers, asked.claims)
    answered = np.where(asked.claims.candidates, readings.answers, -np.inf).argmax(1)
    found = []
    for at, row in enumerate(rows):
        risks, foreseen, expected = zip(*said[at].values(), strict=True)
        risk, warned = float(np.mean(risks)), sum(foreseen) * 2 > len(foreseen)
        held = among.spoken(expected[0])
        stated = among.spoken(int(asked.claims.claimed[at]))
        found.append(
            FactRisk(
                entity=row.entity,
                object=row.object,
                risk=risk,
                error_foreseen=warned,
                expected=held,
                answered=among.spoken(int(answered[at])),
                error=bool(wrong[at]),
                editor_saw_entity=row.entity.casefold() in detector.editor_entities,
                reason=reason(stated, held, risk, warned),
            )
        )
    return found


def _ask(detector: Detector, rows: Sequence[FactRow], seed: int) -> Asked:
    if detector.question == "prior":
        facts = [Sample(subject=row.entity, object=row.object) for row in rows]
        return ask_prior(detector.template, facts, detector.among)
    records = [
        EditRecord(entity=row.entity, old_object=row.object, new_object=row.new_object or "")
        for row in rows
    ]
    return ask_contextual(detector.template, records, detector.among, seed, kinds=("stated",))


def _fault(subject: LanguageSubject, detector: Detector, row: FactRow) -> str | None:
    known = detector.objects
    wanted = [row.object] if detector.question == "prior" else [row.object, row.new_object]
    for name in wanted:
        if name is None:
            return "the row has no new_object for the context to state"
        if name not in known:
            return f"{name!r} is not among the {len(known)} objects that the probe was fitted on"
    if detector.question == "contextual" and row.object == row.new_object:
        return "object and new_object are the same"
    return entity_fault(subject, ask(detector.template, row.entity), row.entity)


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
