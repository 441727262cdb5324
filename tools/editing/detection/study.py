"""Errors of one relation: three folds of entities, an editor and a probe for each.

The editor of a fold and its probe are made from the entities of the other two folds; every entity
is tested once, by a probe that never saw it. What was fitted is kept, so that facts can be scored
later, one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, Record, content_id
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.decoder import Flags, errs
from dragoman.tools.editing.detection.directions import AnswerDirections, answer_directions
from dragoman.tools.editing.detection.methods import Split
from dragoman.tools.editing.detection.probe import N_INNER, by_group, stratified
from dragoman.tools.editing.detection.questions import (
    Asked,
    Question,
    Range,
    ask_contextual,
    ask_prior,
)
from dragoman.tools.editing.detection.reading import Readings, probe_layers, read
from dragoman.tools.editing.fitting import (
    PLANS,
    Fit,
    Plan,
    build_pool,
    candidate_layers,
    fit_editor,
)
from dragoman.tools.editing.knowledge import Knowledge, probe_knowledge
from dragoman.tools.editing.records import EditRecord, swap_objects
from dragoman.tools.editing.records import Split as FactSplit
from dragoman.tools.editing.store import load_editor, save_editor
from dragoman.tools.editing.training import TrainingSettings
from dragoman.tools.registry import Effort, tools_digest
from dragoman.tools.relations import Relation, Sample

N_FOLDS = 3
LEAST_OF_EACH = 6
"""Right and wrong answers: fewer leave less than two of each in every fold."""


class DetectionPlan(Record):
    """How much is spent on foreseeing the errors of one relation."""

    max_facts: int
    max_templates: int
    tested_folds: int
    """Of `N_FOLDS`; each costs the training of an editor."""
    deals: int
    """Of labels, for the control task."""
    twin: bool


DETECTION_PLANS: dict[Effort, DetectionPlan] = {
    "quick": DetectionPlan(max_facts=60, max_templates=3, tested_folds=1, deals=40, twin=False),
    "full": DetectionPlan(max_facts=240, max_templates=6, tested_folds=3, deals=100, twin=True),
}
EDITOR_PLAN: Plan = PLANS["quick"].model_copy(
    update={"depths": (0.45,), "train_records": 160, "max_epochs": 2}
)
"""Of the editor of a fold: its directions are read and not written, so one layer will do."""


@dataclass(frozen=True)
class Fold:
    """One fold: who is fitted on, who is tested, with what editor."""

    fit_facts: tuple[Sample, ...]
    editor: Fit
    editor_id: str
    directions: AnswerDirections
    split: Split
    """Of the prompts."""


@dataclass(frozen=True)
class ErrorStudy:
    """A relation's prompts with what the subject holds and says, fold by fold."""

    relation: Relation
    question: Question
    knowledge: Knowledge
    among: Range
    asked: Asked
    readings: Readings
    wrong: Flags
    """Of each prompt: the subject errs."""
    folds: tuple[Fold, ...]
    settings: TrainingSettings

    @property
    def tested(self) -> list[int]:
        """Rows of the tested prompts."""
        return sorted(at for fold in self.folds for at in fold.split.test)


class _Prompts(NamedTuple):
    asked: Asked
    readings: Readings
    wrong: Flags


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
    layers = candidate_layers(subject, EDITOR_PLAN, layer)
    ctx.step(0, 0, f"asking what the subject knows of {relation.name}")
    knowledge = probe_knowledge(
        subject,
        relation,
        max_facts=plan.max_facts,
        max_templates=plan.max_templates,
        seed=ctx.seed,
    )
    among = Range.of(subject, knowledge.objects)
    facts = knowledge.facts
    unknown = np.array([not knowledge.is_known(fact) for fact in facts])
    _check(relation, unknown)
    prompts = _ask(ctx, question, knowledge, among)
    parts = stratified(unknown, N_FOLDS, ctx.seed)
    settings = TrainingSettings()
    folds = []
    for number in range(plan.tested_folds):
        tested = {facts[at].subject for at in parts[number]}
        fit_facts = tuple(fact for fact in facts if fact.subject not in tested)
        split = FactSplit(
            *_for_editor(fit_facts, knowledge, ctx.seed),
            test=tuple(fact for fact in facts if fact.subject in tested),
            test_unknown=(),
        )
        editor, editor_id = _editor(ctx, knowledge, split, relation, layers, settings)
        directions = answer_directions(
            subject, knowledge.rewrite, fit_facts, among, editor, settings.form, ctx.seed
        )
        rows = _rows(prompts, tested, ctx.seed)
        folds.append(Fold(fit_facts, editor, editor_id, directions, rows))
    return ErrorStudy(
        relation, question, knowledge, among, *prompts, folds=tuple(folds), settings=settings
    )


def _check(relation: Relation, unknown: Flags) -> None:
    n_wrong, n_facts = int(unknown.sum()), len(unknown)
    if min(n_wrong, n_facts - n_wrong) >= LEAST_OF_EACH:
        return
    raise ToolError(
        f"relation {relation.name!r}: the subject gets {n_facts - n_wrong} of {n_facts} facts "
        f"right; foreseeing errors needs at least {LEAST_OF_EACH} right and {LEAST_OF_EACH} wrong "
        "ones to fit and to test on: choose a relation that it knows in part"
    )


def _ask(ctx: ToolContext, question: Question, knowledge: Knowledge, among: Range) -> _Prompts:
    template = knowledge.rewrite
    if question == "prior":
        asked = ask_prior(template, knowledge.facts, among)
    else:
        asked = ask_contextual(template, contextual_records(knowledge, ctx.seed), among, ctx.seed)
    readings = read(ctx.subject, asked.prompts, among.ids, probe_layers(ctx.subject), step=ctx.step)
    return _Prompts(asked, readings, errs(readings.answers, asked.claims))


def contextual_records(knowledge: Knowledge, seed: int) -> list[EditRecord]:
    """One new object for every entity."""
    return swap_objects(
        knowledge.facts, knowledge.objects, knowledge.first_tokens, seed, per_entity=1
    )


def _for_editor(
    facts: Sequence[Sample], knowledge: Knowledge, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What the editor trains on and what chooses its weights: a quarter of the known facts."""
    known = [fact for fact in facts if knowledge.is_known(fact)]
    order = np.random.default_rng(seed).permutation(len(known))
    held = {known[int(at)].subject for at in order[: max(1, len(known) // 4)]}
    return (
        tuple(fact for fact in facts if fact.subject not in held),
        tuple(fact for fact in facts if fact.subject in held),
    )


def _editor(
    ctx: ToolContext,
    knowledge: Knowledge,
    split: FactSplit,
    relation: Relation,
    layers: tuple[int, ...],
    settings: TrainingSettings,
) -> tuple[Fit, str]:
    inputs: JsonObject = {
        "subject": ctx.subject.identity.digest,
        "relation": relation.content_id(),
        "name": relation.name,
        "layers": list(layers),
        "train": [fact.subject for fact in split.train],
        "validation": [fact.subject for fact in split.validation],
        "plan": EDITOR_PLAN.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "seed": ctx.seed,
        "code": tools_digest(),
    }
    editor_id = content_id(inputs)
    folder = ctx.cache / "editors" / editor_id
    stored = load_editor(folder, inputs, ctx.subject.device)
    if stored is not None:
        return stored, editor_id
    pool = build_pool(knowledge, split, EDITOR_PLAN, ctx.seed)
    fit = fit_editor(
        ctx.subject, knowledge, pool, layers, EDITOR_PLAN, settings, ctx.seed, ctx.step
    )
    save_editor(folder, fit, inputs)
    return fit, editor_id


def _rows(prompts: _Prompts, tested: set[str], seed: int) -> Split:
    groups = prompts.asked.groups
    fit = [at for at, group in enumerate(groups) if group not in tested]
    inner = by_group(prompts.wrong[fit], [groups[at] for at in fit], N_INNER, seed)
    return Split(
        tuple(fit),
        tuple(tuple(fold) for fold in inner),
        tuple(at for at, group in enumerate(groups) if group in tested),
    )
