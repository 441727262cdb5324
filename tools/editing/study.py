"""A relation with its editor: what the subject knows, who is held out, training or the store."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, content_id
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.editor import Form
from dragoman.tools.editing.editors.catalogue import Kind
from dragoman.tools.editing.fitting import (
    Fit,
    Plan,
    Pool,
    build_pool,
    candidate_layers,
    fit_editor,
)
from dragoman.tools.editing.knowledge import Knowledge, probe_knowledge
from dragoman.tools.editing.records import N_FOLDS, EditRecord, Split, split_facts
from dragoman.tools.editing.store import load_editor, save_editor
from dragoman.tools.editing.training import TrainingSettings
from dragoman.tools.registry import tools_digest
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject

LEAST_TRAINING = 2
"""Facts: one has no other object to be swapped with."""


@dataclass(frozen=True)
class Study:
    """A relation with an editor that never saw its test entities."""

    relation: Relation
    knowledge: Knowledge
    split: Split
    pool: Pool
    fit: Fit
    plan: Plan
    form: Form
    """What the editor reads."""
    editor_id: str
    reused: bool
    """The editor was trained by an earlier call."""


class Survey(NamedTuple):
    """What the subject knows of a relation, and which facts are held out."""

    knowledge: Knowledge
    split: Split


def survey(
    ctx: ToolContext, relation: Relation, plan: Plan, *, held_out: Collection[str] = ()
) -> Survey:
    """Probe and split: the same facts for every kind of editor. `held_out` are test entities.

    Raises:
        ToolError: too few known facts.
    """
    ctx.step(0, 0, f"asking what the subject knows of {relation.name}")
    knowledge = probe_knowledge(
        ctx.subject,
        relation,
        max_facts=plan.max_facts,
        max_templates=plan.max_templates,
        seed=ctx.seed,
        keep=tuple(held_out),
    )
    known = [fact for fact in knowledge.facts if knowledge.is_known(fact)]
    unknown = [fact for fact in knowledge.facts if not knowledge.is_known(fact)]
    return Survey(knowledge, _split(known, unknown, ctx.seed, held_out))


def prepare(
    ctx: ToolContext,
    relation: Relation,
    plan: Plan,
    layer: int | None,
    *,
    form: Form = "contrast",
    kind: Kind = "linear",
    held_out: Collection[str] = (),
) -> Study:
    """Probe, split, train (or load). Entities `held_out` are kept out of all training.

    Raises:
        ToolError: a layer that the subject lacks, too few known facts, a loss that is no number.
    """
    subject = ctx.subject
    layers = candidate_layers(subject, plan, layer)
    knowledge, split = survey(ctx, relation, plan, held_out=held_out)
    pool = build_pool(knowledge, split, plan, ctx.seed)
    settings = TrainingSettings(form=form, kind=kind)
    inputs: JsonObject = {
        "subject": subject.identity.digest,
        "relation": relation.content_id(),
        "layers": list(layers),
        "split": {name: [fact.subject for fact in facts] for name, facts in _named(split)},
        "plan": plan.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "seed": ctx.seed,
        "code": tools_digest(),
    }
    editor_id = content_id(inputs)
    folder = ctx.cache / "editors" / editor_id
    stored = load_editor(folder, inputs, subject.device)
    fit = stored or fit_editor(subject, knowledge, pool, layers, plan, settings, ctx.seed, ctx.step)
    if stored is None:
        save_editor(folder, fit, inputs)
    return Study(relation, knowledge, split, pool, fit, plan, form, editor_id, stored is not None)


def find_fact(relation: Relation, entity: str) -> Sample:
    """The relation's fact about `entity`, whatever its case; `ToolError` names some entities."""
    wanted = entity.strip().casefold()
    for fact in relation.samples:
        if fact.subject.casefold() == wanted:
            return fact
    some = ", ".join(repr(fact.subject) for fact in relation.samples[:8])
    raise ToolError(
        f"entity {entity!r} does not occur in relation {relation.name!r}; its "
        f"{len(relation.samples)} entities are for example {some}"
    )


def wanted_edit(subject: LanguageSubject, fact: Sample, new_object: str) -> EditRecord:
    """The edit that gives the fact's entity `new_object`.

    Raises:
        ToolError: it is what the entity has already, or the subject cannot tell the two apart.
    """
    entity, old_object, wanted = fact.subject, fact.object, new_object.strip()
    if not wanted:
        raise ToolError(f"new_object of {entity!r} is empty; name another object")
    if wanted.casefold() == old_object.casefold():
        raise ToolError(
            f"new_object {wanted!r} is what {entity!r} has already; name another object"
        )
    check_told_apart(subject, old_object, wanted)
    return EditRecord(entity=entity, old_object=old_object, new_object=wanted)


def check_told_apart(subject: LanguageSubject, old_object: str, new_object: str) -> None:
    """`ToolError` if the subject's first tokens of the two objects are the same."""
    if subject.first_token(new_object) == subject.first_token(old_object):
        raise ToolError(
            f"new_object {new_object!r} and the true object {old_object!r} begin with the same "
            "token for this subject, so they cannot be told apart; name another object"
        )


def _split(
    known: list[Sample], unknown: list[Sample], seed: int, held_out: Collection[str]
) -> Split:
    """The fold that tests most of `held_out`; what it does not test joins the test facts."""
    wanted = set(held_out)
    folds = [split_facts(known, unknown, seed, fold) for fold in range(N_FOLDS)]
    split = max(
        folds,
        key=lambda one: sum(fact.subject in wanted for fact in (*one.test, *one.test_unknown)),
    )
    moved = [fact for fact in (*split.train, *split.validation) if fact.subject in wanted]
    if not moved:
        return split
    left = Split(
        train=tuple(fact for fact in split.train if fact not in moved),
        validation=tuple(fact for fact in split.validation if fact not in moved),
        test=(*split.test, *(fact for fact in moved if fact in known)),
        test_unknown=(*split.test_unknown, *(fact for fact in moved if fact not in known)),
    )
    if len(left.train) < LEAST_TRAINING or not left.validation:
        raise ToolError(
            f"relation: with {len(wanted)} entities held out, too few facts are left to train an "
            "editor and to choose its strength; edit fewer entities at once"
        )
    return left


def _named(split: Split) -> list[tuple[str, tuple[Sample, ...]]]:
    return [
        ("train", split.train),
        ("validation", split.validation),
        ("test", split.test),
        ("test_unknown", split.test_unknown),
    ]
