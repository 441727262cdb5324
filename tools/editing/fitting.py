"""From a relation to a trained editor: records, the layer's choice on validation data, training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.editing.directions import Centroids
from dragoman.tools.editing.editor import Form, read_records
from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.editors.catalogue import Kind
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.material import build_material
from dragoman.tools.editing.records import EditRecord, Split, swap_objects
from dragoman.tools.editing.selection import Bench, StrengthTrial, best
from dragoman.tools.editing.training import EpochMeasure, Start, TrainingSettings, train_editor
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
    spared_cases: int
    """Texts of each shape, at most, that training spares, and as many that validation looks at."""
    max_epochs: int
    validation_per_entity: int
    max_validation_entities: int
    validation_texts: int
    """Entities that are written about at each strength."""
    validation_tokens: int
    strengths: tuple[float, ...]
    """Tried of the editor and of the mean difference alike."""
    max_test_entities: int
    test_per_entity: int
    neighbour_records: int
    """Test records, of every entity first one, whose neighbours are asked."""
    neighbours_per_record: int
    unrelated_per_entity: int
    """Prompts that ask nothing of the relation, three at most."""
    generated_prompts: int
    generated_tokens: int


PLANS: dict[Effort, Plan] = {
    "quick": Plan(
        depths=(0.45,),
        max_facts=40,
        max_templates=3,
        trial_records=64,
        train_records=128,
        spared_cases=8,
        max_epochs=3,
        validation_per_entity=1,
        max_validation_entities=6,
        validation_texts=3,
        validation_tokens=16,
        strengths=(1.4, 1.0, 0.7, 0.45),
        max_test_entities=10,
        test_per_entity=2,
        neighbour_records=10,
        neighbours_per_record=1,
        unrelated_per_entity=1,
        generated_prompts=5,
        generated_tokens=16,
    ),
    "full": Plan(
        depths=(0.3, 0.4, 0.5, 0.6, 0.7),
        max_facts=120,
        max_templates=6,
        trial_records=160,
        train_records=640,
        spared_cases=16,
        max_epochs=5,
        validation_per_entity=4,
        max_validation_entities=16,
        validation_texts=8,
        validation_tokens=24,
        strengths=(1.4, 1.0, 0.7, 0.45),
        max_test_entities=40,
        test_per_entity=4,
        neighbour_records=160,
        neighbours_per_record=2,
        unrelated_per_entity=3,
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

    editor: Editor
    kind: Kind
    layer: int
    trials: tuple[LayerTrial, ...]
    """Empty when the layer was given."""
    strengths: tuple[StrengthTrial, ...]
    difference_strength: float
    """What multiplies the mean difference, chosen in the same way."""
    centroids: Centroids
    """Mean attribute vectors of the objects at the layer, from training entities alone."""
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
    read = [
        read_records(subject, knowledge.rewrite, some, layers)
        for some in (pool.train, pool.validation)
    ]
    training, validation = (
        build_material(
            subject,
            knowledge,
            some,
            readings.inputs(settings.form),
            seed,
            spared=plan.spared_cases,
        )
        for some, readings in zip((pool.train, pool.validation), read, strict=True)
    )
    centroids = {layer: Centroids.of(pool.train, read[0].attributes(layer)) for layer in layers}
    starts = {
        layer: start_at(pool.train, read[0].inputs(settings.form)[layer], each, settings.form)
        for layer, each in centroids.items()
    }
    trials: list[LayerTrial] = []
    chosen = layers[0]
    if len(layers) > 1:
        brief = settings.model_copy(update={"max_epochs": 1})
        share = plan.trial_records / len(pool.train)
        for layer in layers:
            few = training[layer].share(min(1.0, share))
            reached = train_editor(
                few, validation[layer], layer, brief, seed, step=step, start=starts[layer]
            ).best
            trials.append(
                LayerTrial(
                    layer=layer,
                    validation_loss=reached.validation_loss,
                    validation_efficacy=reached.validation_efficacy,
                )
            )
        chosen = min(trials, key=lambda trial: trial.validation_loss).layer
    longer = settings.model_copy(update={"max_epochs": plan.max_epochs})
    trained = train_editor(
        training[chosen],
        validation[chosen],
        chosen,
        longer,
        seed,
        step=step,
        start=starts[chosen],
    )
    step(0, 0, f"choosing the strength at layer {chosen}")
    bench = open_bench(subject, knowledge, pool, chosen, plan, seed)
    with torch.no_grad():
        directions = trained.editor(read[1].inputs(settings.form)[chosen])
    difference = centroids[chosen].differences(pool.validation)
    strengths, *others = bench.try_strengths(
        [directions] if difference is None else [directions, difference], plan.strengths
    )
    trained.editor.strength.fill_(best(strengths).strength)
    return Fit(
        trained.editor,
        settings.kind,
        chosen,
        tuple(trials),
        tuple(strengths),
        best(others[0]).strength if others else 1.0,
        centroids[chosen],
        trained.history,
        trained.best,
    )


def start_at(
    records: Sequence[EditRecord],
    inputs: Float[Tensor, "record part d_model"],
    centroids: Centroids,
    form: Form,
) -> Start | None:
    """Where training begins at one layer; None where an object has no centroid."""
    directions = centroids.start(records, form)
    return None if directions is None else Start(inputs, directions)


def open_bench(
    subject: LanguageSubject,
    knowledge: Knowledge,
    pool: Pool,
    layer: int,
    plan: Plan,
    seed: int,
) -> Bench:
    """The validation records at one layer; their neighbours are validation entities too."""
    entities = {record.entity for record in pool.validation}
    return Bench(
        subject,
        knowledge,
        pool.validation,
        [fact for fact in knowledge.facts if fact.subject in entities],
        layer,
        seed,
        n_texts=plan.validation_texts,
        n_tokens=plan.validation_tokens,
    )
