"""From a relation to a trained editor: records, the layer's choice on validation data, training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.editing.editor import Form, read_inputs
from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.editors.catalogue import Kind
from dragoman.tools.editing.judging import Judge, token_of
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.material import build_material
from dragoman.tools.editing.metrics import harmonic_mean
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord, Split, swap_objects
from dragoman.tools.editing.training import (
    EpochMeasure,
    TrainingSettings,
    train_editor,
)
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.language import LanguageSubject

Step: TypeAlias = Callable[[int, int, str], None]


class Plan(Record):
    """How much is spent on one editor and on judging it."""

    depths: tuple[float, ...]
    """Candidate layers, as fractions of the subject's depth."""
    max_facts: int
    max_templates: int
    trial_records: int
    """Training records of the one epoch that each candidate layer gets."""
    train_records: int
    max_epochs: int
    validation_per_entity: int
    max_validation_entities: int
    max_test_entities: int
    test_per_entity: int
    neighbours_per_record: int
    generated_prompts: int
    generated_tokens: int


PLANS: dict[Effort, Plan] = {
    "quick": Plan(
        depths=(0.45, 0.6),
        max_facts=40,
        max_templates=3,
        trial_records=64,
        train_records=256,
        max_epochs=3,
        validation_per_entity=3,
        max_validation_entities=8,
        max_test_entities=10,
        test_per_entity=2,
        neighbours_per_record=1,
        generated_prompts=4,
        generated_tokens=24,
    ),
    "full": Plan(
        depths=(0.3, 0.4, 0.5, 0.6, 0.7),
        max_facts=120,
        max_templates=6,
        trial_records=160,
        train_records=640,
        max_epochs=5,
        validation_per_entity=4,
        max_validation_entities=16,
        max_test_entities=40,
        test_per_entity=4,
        neighbours_per_record=2,
        generated_prompts=12,
        generated_tokens=40,
    ),
}


_STRENGTHS = (1.0, 0.8, 0.6, 0.4)
_STRENGTH_RECORDS = 16


class LayerTrial(Record):
    """What one epoch on a few records reached at one layer, on validation entities."""

    layer: int
    validation_loss: float
    validation_efficacy: float


class StrengthTrial(Record):
    """What the trained editor does on validation entities at one strength."""

    strength: float
    efficacy: float
    neighbourhood_specificity: float

    @property
    def score(self) -> float:
        """Harmonic mean of the two."""
        return harmonic_mean([self.efficacy, self.neighbourhood_specificity])


@dataclass(frozen=True)
class Fit:
    """A trained editor and the account of how it came about."""

    editor: Editor
    kind: Kind
    layer: int
    trials: tuple[LayerTrial, ...]
    """Empty when the layer was given."""
    strengths: tuple[StrengthTrial, ...]
    """Empty when validation entities have no neighbours to spare."""
    history: tuple[EpochMeasure, ...]
    best: EpochMeasure


@dataclass(frozen=True)
class Pool:
    """The records of a relation's training and validation entities."""

    train: tuple[EditRecord, ...]
    validation: tuple[EditRecord, ...]


def candidate_layers(subject: LanguageSubject, plan: Plan, layer: int | None) -> tuple[int, ...]:
    """The given layer, or the plan's depths; never the last layer, where nothing can follow."""
    if layer is not None:
        subject.check_layer(layer)
        return (layer,)
    highest = max(0, subject.n_layers - 2)
    return tuple(
        sorted({min(highest, round(depth * (subject.n_layers - 1))) for depth in plan.depths})
    )


def build_pool(knowledge: Knowledge, split: Split, plan: Plan, seed: int) -> Pool:
    """Training and validation records; `ToolError` if the range leaves no other object."""
    tokens, objects = knowledge.first_tokens, knowledge.objects
    train = swap_objects(split.train, objects, tokens, seed, limit=plan.train_records)
    validation = swap_objects(
        split.validation[: plan.max_validation_entities],
        objects,
        tokens,
        seed + 1,
        per_entity=plan.validation_per_entity,
    )
    if not train or not validation:
        raise ToolError(
            "relation: the first tokens of its objects are all the same for this subject, so no "
            "object can be swapped for another; choose another relation"
        )
    return Pool(tuple(train), tuple(validation))


def fit_editor(
    subject: LanguageSubject,
    knowledge: Knowledge,
    pool: Pool,
    layers: Sequence[int],
    plan: Plan,
    settings: TrainingSettings,
    seed: int,
    step: Step,
) -> Fit:
    """Try each layer for one epoch, then train at the one of the lowest validation loss."""
    step(0, 0, "reading attributes and caching prompts")
    training = build_material(subject, knowledge, pool.train, layers, seed, settings.form)
    validation = build_material(subject, knowledge, pool.validation, layers, seed, settings.form)
    trials: list[LayerTrial] = []
    chosen = layers[0]
    if len(layers) > 1:
        brief = settings.model_copy(update={"max_epochs": 1})
        share = plan.trial_records / len(pool.train)
        for layer in layers:
            few = training[layer].share(min(1.0, share))
            reached = train_editor(few, validation[layer], layer, brief, seed, step=step).best
            trials.append(
                LayerTrial(
                    layer=layer,
                    validation_loss=reached.validation_loss,
                    validation_efficacy=reached.validation_efficacy,
                )
            )
        chosen = min(trials, key=lambda trial: trial.validation_loss).layer
    longer = settings.model_copy(update={"max_epochs": plan.max_epochs})
    trained = train_editor(training[chosen], validation[chosen], chosen, longer, seed, step=step)
    step(0, 0, f"choosing the strength at layer {chosen}")
    strengths = _try_strengths(
        subject, knowledge, pool, trained.editor, chosen, settings.form, seed
    )
    if strengths:
        # Of equal scores the strongest: strengths are tried from 1 downwards.
        trained.editor.strength.fill_(max(strengths, key=lambda trial: trial.score).strength)
    return Fit(
        trained.editor,
        settings.kind,
        chosen,
        tuple(trials),
        tuple(strengths),
        trained.history,
        trained.best,
    )


@torch.no_grad()
def _try_strengths(
    subject: LanguageSubject,
    knowledge: Knowledge,
    pool: Pool,
    editor: Editor,
    layer: int,
    form: Form,
    seed: int,
) -> list[StrengthTrial]:
    """Efficacy and specificity on validation entities, over a grid of strengths."""
    records = pool.validation[:_STRENGTH_RECORDS]
    entities = {record.entity for record in pool.validation}
    neighbours = [fact for fact in knowledge.facts if fact.subject in entities]
    token = token_of(subject, knowledge)
    spared = neighbour_probes(records, knowledge, token, neighbours, 1, seed)
    edits = Judge(
        subject, edit_probes(records, knowledge, [knowledge.rewrite]), records, token, layer
    )
    kept = [Judge(subject, spared[kind], records, token, layer) for kind in NEIGHBOUR_KINDS]
    held = [judge.ask(None).kept() for judge in kept if judge.probes]
    if not any(yes for one in held for yes in one):
        return []
    directions = editor(read_inputs(subject, knowledge.rewrite, records, [layer], form)[layer])
    trials = []
    for strength in _STRENGTHS:
        after = [judge.ask(strength * directions).kept() for judge in kept]
        keeps = [
            yes
            for one, had in zip(after, held, strict=True)
            for yes, before in zip(one, had, strict=True)
            if before
        ]
        changed = edits.ask(strength * directions).changed()
        trials.append(
            StrengthTrial(
                strength=strength,
                efficacy=sum(changed) / len(changed),
                neighbourhood_specificity=sum(keeps) / len(keeps),
            )
        )
    return trials
