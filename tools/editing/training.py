"""Training an editor on cached prompts: AdamW, early stopping, the best weights kept (`loss`)."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editor import Form
from dragoman.tools.editing.editors.base import Editor
from dragoman.tools.editing.editors.catalogue import Kind, make_editor
from dragoman.tools.editing.loss import LossTerms, divergence, loss_terms

PUBLISHED_KL = 10.0 / 16.0
"""Published: 10, but of each batch of 16 only the last sample's divergence was counted, and divided
by 16. Counted for every sample, this is what that weight came to."""


class TrainingSettings(Record):
    """What training depends on besides the data."""

    kind: Kind = "linear"
    """Of editor."""
    form: Form = "contrast"
    """Of what it reads."""
    learning_rate: float = 3e-3
    """For AdamW, at the start; it falls linearly to 0. Published: 1e-3 over 5,000 records, where
    here a few hundred are all there is."""
    weight_decay: float = 0.01
    batch_size: int = 16
    max_epochs: int = 20
    patience: int = 2
    """Epochs without a better validation loss after which training ends."""
    lambda_old: float = 1.0
    lambda_kl: float = 0.1
    """Less than `PUBLISHED_KL`, since the texts about the entity are spared as well: with both in
    full the subject kept its old answers (docs/decisions/0006)."""
    lambda_neighbour: float = 2.0
    lambda_essence: float = 0.05
    spared_per_batch: int = 4
    """Cases of each kind of spared text beside a batch of edits."""


@dataclass(frozen=True)
class Examples:
    """Records ready for training at one layer; all prompts share a template."""

    prompts: PromptCache
    rows: tuple[int, ...]
    """Which prompt each record is about."""
    inputs: Float[Tensor, "record part d_model"]
    """What the editor reads."""
    new_ids: Int[Tensor, " record"]
    old_ids: Int[Tensor, " record"]

    def first(self, count: int) -> "Examples":
        """The first `count` records; the prompts' cached passes are shared."""
        return Examples(
            self.prompts,
            self.rows[:count],
            self.inputs[:count],
            self.new_ids[:count],
            self.old_ids[:count],
        )


@dataclass(frozen=True)
class Spared:
    """Texts of one shape in which an edit acts and should change nothing."""

    prompts: PromptCache
    rows: tuple[int, ...]
    """Which text each case is about."""
    inputs: Float[Tensor, "case part d_model"]
    """Of the edit that acts in the text."""


class Material(NamedTuple):
    """What is trained or validated on, at one layer."""

    edits: Sequence[Examples]
    neighbours: Sequence[Spared]
    """Questions about other entities that mention an edited one; the answer is spared."""
    essence: Sequence[Spared] = ()
    """What the unedited subject writes about an edited entity; every token is spared."""

    def share(self, fraction: float) -> "Material":
        """That fraction of each template's records, first ones first; all that is spared."""
        few = [one.first(math.ceil(fraction * len(one.rows))) for one in self.edits]
        return self._replace(edits=few)


class Start(NamedTuple):
    """Directions that training begins with, and what the editor reads for each."""

    inputs: Float[Tensor, "record part d_model"]
    directions: Float[Tensor, "record d_model"]


class EpochMeasure(Record):
    """How an epoch ended; epoch 0 is before the first step."""

    epoch: int
    validation_loss: float
    validation_efficacy: float
    validation_spill_nats: float
    """Mean divergence of the answers about neighbours."""
    validation_essence_nats: float = 0.0
    """Mean divergence over the texts about edited entities."""


class Trained(NamedTuple):
    """An editor with its best validation weights, and how it got there."""

    editor: Editor
    history: tuple[EpochMeasure, ...]
    best: EpochMeasure


def train_editor(
    training: Material,
    validation: Material,
    layer: int,
    settings: TrainingSettings,
    seed: int,
    *,
    step: Callable[[int, int, str], None],
    start: Start | None = None,
) -> Trained:
    """Fit an editor; the weights of the best validation loss are the ones that come back.

    It starts from the map to `start`'s directions; without one, from the centred attribute.

    Raises:
        ToolError: the loss was not a number; nothing is kept then.
    """
    inputs = torch.cat([examples.inputs for examples in training.edits])
    editor = make_editor(settings.kind, inputs.shape[-1], seed).to(inputs.device)
    editor.standardise(inputs)
    # Inputs that are not numbers have no map; the loss will say so.
    if start is not None and bool(torch.isfinite(start.inputs).all()):
        editor.begin(*start)
    optimizer = torch.optim.AdamW(
        editor.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    per_epoch = sum(math.ceil(len(one.rows) / settings.batch_size) for one in training.edits)
    decay = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.02, total_iters=settings.max_epochs * per_epoch
    )
    generator = np.random.default_rng(seed)
    best = _measure(editor, validation, layer, 0, settings)
    history, weights = [best], copy.deepcopy(editor.state_dict())
    for epoch in range(1, settings.max_epochs + 1):
        batches = _batches(training.edits, settings.batch_size, generator)
        for done, (examples, chosen) in enumerate(batches):
            step(done, len(batches), f"layer {layer}, epoch {epoch}")
            loss = edit_loss(editor, examples, chosen, layer, settings).total()
            for weight, shapes in _weighted(training, settings):
                spared = shapes[int(generator.integers(len(shapes)))]
                some = generator.permutation(len(spared.rows))[: settings.spared_per_batch]
                moved = spared_divergence(editor, spared, [int(at) for at in some], layer)
                loss = loss + weight * moved.mean()
            optimizer.zero_grad()
            _finite(loss).backward()  # type: ignore[no-untyped-call]  # untyped in torch
            optimizer.step()
            decay.step()
        measured = _measure(editor, validation, layer, epoch, settings)
        history.append(measured)
        if measured.validation_loss < best.validation_loss:
            best, weights = measured, copy.deepcopy(editor.state_dict())
        elif epoch - best.epoch >= settings.patience:
            break
    editor.load_state_dict(weights)
    return Trained(editor.requires_grad_(False), tuple(history), best)


def edit_loss(
    editor: Editor,
    examples: Examples,
    chosen: Sequence[int],
    layer: int,
    settings: TrainingSettings,
) -> LossTerms:
    """REMEDI's loss of the chosen records; only what lies above the layer is computed."""
    return _terms(_edited(editor, examples, chosen, layer), examples, chosen, settings)


def spared_divergence(
    editor: Editor, spared: Spared, chosen: Sequence[int], layer: int
) -> Float[Tensor, " case"]:
    """KL(p || p') in nats: of the answer, or summed over the text where the cache holds all of it.

    A text is spared from the entity's last token on, the final position included.
    """
    rows = [spared.rows[index] for index in chosen]
    after = spared.prompts.edited_log_probs(layer, rows, editor(spared.inputs[chosen]))
    before = spared.prompts.log_probs[rows]
    mask = spared.prompts.from_entity[rows][:, -after.shape[1] :]
    return divergence(before, after, mask)


def _weighted(
    material: Material, settings: TrainingSettings
) -> list[tuple[float, Sequence[Spared]]]:
    both = (
        (settings.lambda_neighbour, material.neighbours),
        (settings.lambda_essence, material.essence),
    )
    return [(weight, shapes) for weight, shapes in both if weight and shapes]


def _batches(
    training: Sequence[Examples], size: int, generator: np.random.Generator
) -> list[tuple[Examples, list[int]]]:
    """Every record once, in batches of one template each, shuffled."""
    batches = []
    for examples in training:
        order = [int(index) for index in generator.permutation(len(examples.rows))]
        batches += [(examples, order[at : at + size]) for at in range(0, len(order), size)]
    return [batches[int(index)] for index in generator.permutation(len(batches))]


def _edited(
    editor: Editor, examples: Examples, chosen: Sequence[int], layer: int
) -> Float[Tensor, "row tail d_vocab"]:
    rows = [examples.rows[index] for index in chosen]
    return examples.prompts.edited_log_probs(layer, rows, editor(examples.inputs[chosen]))


def _terms(
    edited: Float[Tensor, "row tail d_vocab"],
    examples: Examples,
    chosen: Sequence[int],
    settings: TrainingSettings,
) -> LossTerms:
    rows = [examples.rows[index] for index in chosen]
    return loss_terms(
        edited,
        examples.prompts.log_probs[rows],
        examples.prompts.kl_mask[rows],
        examples.new_ids[chosen],
        examples.old_ids[chosen],
        lambda_old=settings.lambda_old,
        lambda_kl=settings.lambda_kl,
    )


def _finite(loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    if not bool(torch.isfinite(loss)):
        raise ToolError(
            "training the editor gave a loss that is not a finite number; nothing was kept: "
            "choose another layer"
        )
    return loss


@torch.no_grad()
def _measure(
    editor: Editor,
    validation: Material,
    layer: int,
    epoch: int,
    settings: TrainingSettings,
) -> EpochMeasure:
    losses: list[float] = []
    wins: list[bool] = []
    for examples in validation.edits:
        for start in range(0, len(examples.rows), settings.batch_size):
            chosen = list(range(start, min(start + settings.batch_size, len(examples.rows))))
            edited = _edited(editor, examples, chosen, layer)
            losses += _terms(edited, examples, chosen, settings).per_sample().tolist()
            final, row = edited[:, -1], torch.arange(len(chosen))
            new, old = examples.new_ids[chosen], examples.old_ids[chosen]
            wins += (final[row, new] > final[row, old]).tolist()
    spilled = _mean_divergence(editor, validation.neighbours, layer)
    strayed = _mean_divergence(editor, validation.essence, layer)
    loss = torch.tensor(
        float(np.mean(losses))
        + settings.lambda_neighbour * spilled
        + settings.lambda_essence * strayed
    )
    return EpochMeasure(
        epoch=epoch,
        validation_loss=float(_finite(loss)),
        validation_efficacy=float(np.mean(wins)),
        validation_spill_nats=spilled,
        validation_essence_nats=strayed,
    )


def _mean_divergence(editor: Editor, shapes: Sequence[Spared], layer: int) -> float:
    moved = [
        value
        for spared in shapes
        for value in spared_divergence(editor, spared, range(len(spared.rows)), layer).tolist()
    ]
    return float(np.mean(moved)) if moved else 0.0
