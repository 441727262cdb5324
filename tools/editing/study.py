"""A relation with its editor: what the subject knows, who is held out, training or the store."""

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
from dragoman.tools.editing.records import N_FOLDS, Split, split_facts
from dragoman.tools.editing.store import load_editor, save_editor
from dragoman.tools.editing.training import TrainingSettings
from dragoman.tools.registry import tools_digest
from dragoman.tools.relations import Relation, Sample


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
    ctx: ToolContext, relation: Relation, plan: Plan, *, held_out: str | None = None
) -> Survey:
    """Probe and split: the same facts for every kind of editor. `held_out` is a test entity.

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
        keep=[] if held_out is None else [held_out],
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
    held_out: str | None = None,
) -> Study:
    """Probe, split, train (or load). An entity `held_out` is kept out of all training.

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


def _split(known: list[Sample], unknown: list[Sample], seed: int, held_out: str | None) -> Split:
    for fold in range(N_FOLDS):
        split = split_facts(known, unknown, seed, fold)
        tested = {fact.subject for fact in (*split.test, *split.test_unknown)}
        if held_out is None or held_out in tested:
            return split
    raise AssertionError(f"no fold tests {held_out!r}")


def _named(split: Split) -> list[tuple[str, tuple[Sample, ...]]]:
    return [
        ("train", split.train),
        ("validation", split.validation),
        ("test", split.test),
        ("test_unknown", split.test_unknown),
    ]
