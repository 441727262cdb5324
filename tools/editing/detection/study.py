"""Errors of one relation: an editor, and a probe for each fold of the entities that it never saw.

Two fifths of the entities train the editor. Each of the other fifths is tested once, by a probe
fitted on all entities but these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.decoder import Flags, errs
from dragoman.tools.editing.detection.directions import answer_directions
from dragoman.tools.editing.detection.editors import DirectionEditor, train_directions
from dragoman.tools.editing.detection.faults import (
    NO_OTHER_OBJECT,
    NOT_FINITE,
    Failed,
    failed,
    finite,
    sound_entities,
    sound_objects,
)
from dragoman.tools.editing.detection.methods import Split
from dragoman.tools.editing.detection.probe import N_INNER, by_group, stratified
from dragoman.tools.editing.detection.questions import (
    Asked,
    Question,
    Range,
    ask_contextual,
    ask_prior,
)
from dragoman.tools.editing.detection.reading import probe_layers, read
from dragoman.tools.editing.detection.trial import Trial
from dragoman.tools.editing.knowledge import Knowledge, probe_knowledge
from dragoman.tools.editing.records import swap_objects
from dragoman.tools.registry import Effort
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject

N_PARTS, EDITOR_PARTS = 5, 2
"""Entities are dealt into five parts; two train the editor, each of the others is tested once."""
EDIT_DEPTH = 0.45
"""Layer of the editor, as a fraction of the subject's depth."""
LEAST_OF_EACH = 6
"""Right and wrong answers: fewer leave less than two of each in every fold."""


class DetectionPlan(Record):
    """How much is spent on foreseeing the errors of one relation."""

    max_facts: int
    max_templates: int
    deals: int
    """Of labels, for the control task."""
    twin: bool


DETECTION_PLANS: dict[Effort, DetectionPlan] = {
    "quick": DetectionPlan(max_facts=60, max_templates=3, deals=40, twin=False),
    "full": DetectionPlan(max_facts=240, max_templates=6, deals=100, twin=True),
}


@dataclass(frozen=True)
class ErrorStudy:
    """A relation's prompts with what the subject holds and says, fold by fold."""

    relation: Relation
    question: Question
    knowledge: Knowledge
    template: str
    """Through which is asked; the editor is trained through the one that the subject knows best."""
    editor: DirectionEditor
    trial: Trial
    unseen: tuple[Split, ...]
    """Splits whose tested entities the editor saw: for scoring, never for measuring."""
    failed: tuple[Failed, ...]
    """Facts that could not be asked or read."""


def study_errors(
    ctx: ToolContext,
    relation: Relation,
    question: Question,
    plan: DetectionPlan,
    layer: int | None,
) -> ErrorStudy:
    """Ask, split, train (or load) the editors, read every entity once.

    Raises:
        ToolError: a layer that the subject lacks; too few right or wrong answers.
    """
    subject = ctx.subject
    layer = editor_layer(subject, layer)
    encodable, failures = sound_objects(subject, relation.samples)
    ctx.step(0, 0, f"asking what the subject knows of {relation.name}")
    knowledge = probe_knowledge(
        subject,
        relation.model_copy(update={"samples": encodable}),
        max_facts=plan.max_facts,
        max_templates=plan.max_templates,
        seed=ctx.seed,
    )
    facts, unreadable = sound_entities(subject, knowledge.facts, knowledge.templates)
    failures += unreadable
    knowledge = _of(knowledge, facts)
    among = Range.of(subject, knowledge.objects)
    template = asked_through(relation, knowledge)
    asked = _ask(question, knowledge, template, among, ctx.seed)
    failures += failed(facts, {one.subject for one in facts} - set(asked.groups), NO_OTHER_OBJECT)
    readings = read(subject, asked.prompts, among.ids, probe_layers(subject), step=ctx.step)
    sound = finite(readings)
    infinite = {group for group, good in zip(asked.groups, sound, strict=True) if not good}
    failures += failed(facts, infinite, NOT_FINITE)
    rows = [at for at, group in enumerate(asked.groups) if group not in infinite]
    asked, readings = asked.rows(rows), readings.rows(rows)
    facts = tuple(fact for fact in facts if fact.subject in set(asked.groups))
    knowledge = _of(knowledge, facts)
    check_mixed(relation, knowledge, [template])
    unknown = np.array([fact.subject not in knowledge.known[template] for fact in facts])
    wrong = errs(readings.answers, asked.claims)
    parts = stratified(unknown, N_PARTS, ctx.seed)
    seen = sorted(at for part in parts[:EDITOR_PARTS] for at in part)
    editor = train_directions(
        subject, knowledge, [facts[at] for at in seen], layer, ctx.seed, ctx.step
    )
    directions = answer_directions(subject, [facts[at] for at in seen], among, editor, ctx.seed)
    splits = tuple(
        _rows(asked.groups, wrong, {facts[at].subject for at in part}, ctx.seed) for part in parts
    )
    return ErrorStudy(
        relation,
        question,
        knowledge,
        template,
        editor,
        Trial(asked, among, readings, wrong, directions, splits[EDITOR_PARTS:]),
        unseen=splits[:EDITOR_PARTS],
        failed=tuple(failures),
    )


def editor_layer(subject: LanguageSubject, layer: int | None) -> int:
    """The given layer, or the usual depth; `ToolError` unless the subject has it."""
    chosen = round(EDIT_DEPTH * (subject.n_layers - 1)) if layer is None else layer
    subject.check_layer(chosen)
    return chosen


def asked_through(relation: Relation, knowledge: Knowledge) -> str:
    """The template of which most is known, among those that leave errors to be foreseen.

    Raises:
        ToolError: no template leaves enough right and enough wrong answers.
    """
    return check_mixed(relation, knowledge, knowledge.templates)


def check_mixed(relation: Relation, knowledge: Knowledge, templates: Sequence[str]) -> str:
    """The first of `templates` that leaves enough right and wrong answers, or `ToolError`."""
    n_facts = len(knowledge.facts)
    for template in templates:
        n_known = len(knowledge.known[template])
        if min(n_known, n_facts - n_known) >= LEAST_OF_EACH:
            return template
    n_known = len(knowledge.known[templates[0]])
    raise ToolError(
        f"relation {relation.name!r}: the subject gets {n_known} of {n_facts} facts right; "
        f"foreseeing errors needs at least {LEAST_OF_EACH} right and {LEAST_OF_EACH} wrong ones to "
        "fit and to test on: choose a relation that it knows in part"
    )


def _of(knowledge: Knowledge, facts: tuple[Sample, ...]) -> Knowledge:
    """The same of some of the facts; how often each was the most probable token is as it was."""
    entities = {fact.subject for fact in facts}
    known = {template: some & entities for template, some in knowledge.known.items()}
    return replace(knowledge, facts=facts, known=known)


def _ask(question: Question, knowledge: Knowledge, template: str, among: Range, seed: int) -> Asked:
    if question == "prior":
        return ask_prior(template, knowledge.facts, among)
    # One new object for every entity.
    records = swap_objects(
        knowledge.facts, knowledge.objects, knowledge.first_tokens, seed, per_entity=1
    )
    return ask_contextual(template, records, among, seed)


def _rows(groups: Sequence[str], wrong: Flags, tested: set[str], seed: int) -> Split:
    fit = [at for at, group in enumerate(groups) if group not in tested]
    inner = by_group(wrong[fit], [groups[at] for at in fit], N_INNER, seed)
    return Split(
        tuple(fit),
        tuple(tuple(fold) for fold in inner),
        tuple(at for at, group in enumerate(groups) if group in tested),
    )
