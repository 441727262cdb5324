"""From a relation to a trained editor: records, the layer's choice on validation data, training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editor import AffineEditor, read_attributes
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.records import EditRecord, Split, ask, state, swap_objects
from dragoman.tools.editing.training import (
    EpochMeasure,
    Examples,
    TrainingSettings,
    train_editor,
)
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.language import LanguageSubject

Step = Callable[[int, int, str], None]


class Plan(Record):
    """How much is spent on one editor and on judging it."""

    depths: tuple[float, ...]
    """Candidate layers, as fractions of the subject's depth."""
    max_facts: int
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
        max_facts=48,
        trial_records=96,
        train_records=288,
        max_epochs=2,
        validation_per_entity=3,
        max_validation_entities=8,
        max_test_entities=12,
        test_per_entity=2,
        neighbours_per_record=1,
        generated_prompts=4,
        generated_tokens=24,
    ),
    "full": Plan(
        depths=(0.2, 0.35, 0.45, 0.55, 0.65, 0.75),
        max_facts=120,
        trial_records=160,
        train_records=1200,
        max_epochs=6,
        validation_per_entity=4,
        max_validation_entities=16,
        max_test_entities=40,
        test_per_entity=4,
        neighbours_per_record=2,
        generated_prompts=12,
        generated_tokens=40,
    ),
}


class LayerTrial(Record):
    """What one epoch on a few records reached at one layer, on validation entities."""

    layer: int
    validation_loss: float
    validation_efficacy: float


@dataclass(frozen=True)
class Fit:
    """A trained editor and the account of how it came about."""

    editor: AffineEditor
    layer: int
    trials: tuple[LayerTrial, ...]
    """Empty when the layer was given."""
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
    trials: list[LayerTrial] = []
    chosen = layers[0]
    if len(layers) > 1:
        few = pool.train[: plan.trial_records]
        training = _examples(subject, knowledge, few, layers)
        validation = _examples(subject, knowledge, pool.validation, layers)
        brief = settings.model_copy(update={"max_epochs": 1})
        for layer in layers:
            reached = train_editor(
                training[layer], validation[layer], layer, brief, seed, step=step
            ).best
            trials.append(
                LayerTrial(
                    layer=layer,
                    validation_loss=reached.validation_loss,
                    validation_efficacy=reached.validation_efficacy,
                )
            )
        chosen = min(trials, key=lambda trial: trial.validation_loss).layer
    step(0, 0, f"reading attributes at layer {chosen}")
    trained = train_editor(
        _examples(subject, knowledge, pool.train, [chosen])[chosen],
        _examples(subject, knowledge, pool.validation, [chosen])[chosen],
        chosen,
        settings.model_copy(update={"max_epochs": plan.max_epochs}),
        seed,
        step=step,
    )
    return Fit(trained.editor, chosen, tuple(trials), trained.history, trained.best)


def training_templates(knowledge: Knowledge) -> tuple[str, ...]:
    """The rewrite template, then those beyond the second, which is held out for paraphrases."""
    return (knowledge.rewrite, *knowledge.templates[2:])


def held_out_template(knowledge: Knowledge) -> str | None:
    """The template that no training prompt uses; None if the relation has only one."""
    return knowledge.templates[1] if len(knowledge.templates) > 1 else None


def _examples(
    subject: LanguageSubject,
    knowledge: Knowledge,
    records: Sequence[EditRecord],
    layers: Sequence[int],
) -> dict[int, list[Examples]]:
    """By layer: the records, half of them asked through the rewrite template, half through others.

    One prompt cache serves all layers of a template.
    """
    templates = training_templates(knowledge)
    contexts = [state(knowledge.rewrite, one.entity, one.new_object) for one in records]
    attributes = read_attributes(subject, contexts, layers)
    shares = np.array([_template_of(index, len(templates)) for index in range(len(records))])
    examples: dict[int, list[Examples]] = {layer: [] for layer in layers}
    for number, template in enumerate(templates):
        mine = [int(index) for index in np.flatnonzero(shares == number)]
        if not mine:
            continue
        entities = list(dict.fromkeys(records[index].entity for index in mine))
        cache = PromptCache(subject, [ask(template, entity) for entity in entities], layers)
        rows = tuple(entities.index(records[index].entity) for index in mine)
        new = [knowledge.token(records[index].new_object) for index in mine]
        old = [knowledge.token(records[index].old_object) for index in mine]
        for layer in layers:
            examples[layer].append(
                Examples(
                    cache,
                    rows,
                    attributes[layer][mine],
                    torch.tensor(new, device=subject.device),
                    torch.tensor(old, device=subject.device),
                )
            )
    return examples


def _template_of(index: int, n_templates: int) -> int:
    """Every other record goes to template 0; the rest take turns."""
    if n_templates == 1 or index % 2 == 0:
        return 0
    return 1 + index // 2 % (n_templates - 1)
