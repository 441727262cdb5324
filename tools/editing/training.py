"""Training an editor: REMEDI's loss, with every sample regularised and the best weights kept.

loss = -log p'(t_new) - lambda_u log(1 - p'(t_old)) + lambda_KL sum_pos KL(p || p'), averaged over
the batch; p' is the edited subject, the positions run from the entity's last token up to, but
excluding, the prompt's final token. Targets are first tokens.

One term is ours: + lambda_n KL(p || p') of the answers about other entities, in prompts where the
edit acts on an entity that is merely mentioned. Without it an edited entity drags its neighbours
along, which the published evaluation could not see: it never measured them.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editor import AffineEditor, Form


class TrainingSettings(Record):
    """What training depends on besides the data."""

    form: Form = "contrast"
    """Of the editor."""
    learning_rate: float = 3e-3
    """For AdamW, at the start; it falls linearly to 0. Published: 1e-3 over 5,000 records, where
    here a few hundred are all there is."""
    weight_decay: float = 0.01
    batch_size: int = 16
    max_epochs: int = 20
    patience: int = 2
    """Epochs without a better validation loss after which training ends."""
    lambda_old: float = 1.0
    lambda_kl: float = 10.0 / 16.0
    """Published: 10, but of each batch of 16 only the last sample's divergence was counted, and
    divided by 16. Counted for every sample, 10/16 is what that weight came to; with a full 10 the
    divergence outweighs the target and the subject keeps its old answer."""
    lambda_neighbour: float = 3.0
    neighbours_per_batch: int = 8


class LossTerms(NamedTuple):
    """The loss of each sample, term by term, in nats; the weights are in already."""

    target: Float[Tensor, " row"]
    old: Float[Tensor, " row"]
    kl: Float[Tensor, " row"]

    def per_sample(self) -> Float[Tensor, " row"]:
        """The sum of the terms for each sample."""
        return self.target + self.old + self.kl

    def total(self) -> Float[Tensor, ""]:
        """Its mean over the batch: every sample counts, in every term."""
        return self.per_sample().mean()


@dataclass(frozen=True)
class Examples:
    """Records ready for training at one layer; all prompts share a template."""

    prompts: PromptCache
    rows: tuple[int, ...]
    """Which prompt each record is about."""
    inputs: Float[Tensor, "record d_model"]
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
class Neighbours:
    """Questions about other entities in prompts that mention an edited one; one shape of prompt."""

    prompts: PromptCache
    rows: tuple[int, ...]
    """Which prompt each case is about."""
    inputs: Float[Tensor, "case d_model"]
    """Of the edit that acts in the prompt."""


class Material(NamedTuple):
    """What is trained or validated on, at one layer."""

    edits: Sequence[Examples]
    neighbours: Sequence[Neighbours]

    def share(self, fraction: float) -> "Material":
        """That fraction of each template's records, first ones first; all neighbours."""
        return Material(
            [one.first(math.ceil(fraction * len(one.rows))) for one in self.edits],
            self.neighbours,
        )


class EpochMeasure(Record):
    """How an epoch ended; epoch 0 is before the first step."""

    epoch: int
    validation_loss: float
    validation_efficacy: float
    validation_spill_nats: float
    """Mean divergence of the answers about neighbours."""


class Trained(NamedTuple):
    """An editor with its best validation weights, and how it got there."""

    editor: AffineEditor
    history: tuple[EpochMeasure, ...]
    best: EpochMeasure


def log_one_minus(log_p: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    """log(1 - p) from log p, without cancellation at either end (Maechler 2012)."""
    # At p = 1 the value is -inf and its slope too: held just below, where both are finite.
    safe = log_p.clamp(max=-1e-7)
    near_one = safe > -math.log(2)
    # Each branch sees only values it is good for, else the unused one's gradient would be NaN.
    from_expm1 = torch.log(-torch.expm1(torch.where(near_one, safe, safe.new_tensor(-1.0))))
    from_log1p = torch.log1p(-torch.exp(torch.where(near_one, safe.new_tensor(-1.0), safe)))
    return torch.where(near_one, from_expm1, from_log1p)


def loss_terms(
    edited: Float[Tensor, "row tail d_vocab"],
    original: Float[Tensor, "row tail d_vocab"],
    kl_mask: Bool[Tensor, "row tail"],
    new_ids: Int[Tensor, " row"],
    old_ids: Int[Tensor, " row"],
    settings: TrainingSettings,
) -> LossTerms:
    """The terms of the loss from log-probabilities with and without the edit."""
    final = edited[:, -1]
    log_new = final.gather(1, new_ids[:, None])[:, 0]
    log_old = final.gather(1, old_ids[:, None])[:, 0]
    # The mask picks positions before any arithmetic: most of the tail may be another row's.
    before, after = original[kl_mask], edited[kl_mask]
    divergence = (before.exp() * (before - after)).sum(-1)
    row = kl_mask.nonzero()[:, 0]
    kl = torch.zeros_like(log_new).index_add(0, row, divergence)
    return LossTerms(
        target=-log_new,
        old=-settings.lambda_old * log_one_minus(log_old),
        kl=settings.lambda_kl * kl,
    )


def train_editor(
    training: Material,
    validation: Material,
    layer: int,
    settings: TrainingSettings,
    seed: int,
    *,
    step: Callable[[int, int, str], None],
) -> Trained:
    """Fit an editor; the weights of the best validation loss are the ones that come back.

    Raises:
        ToolError: the loss was not a number; nothing is kept then.
    """
    inputs = torch.cat([examples.inputs for examples in training.edits])
    editor = AffineEditor(inputs.shape[1]).to(inputs.device)
    editor.standardise(inputs)
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
            edited = _edited(editor, examples, chosen, layer)
            loss = _terms(edited, examples, chosen, settings).total()
            if training.neighbours:
                spared = training.neighbours[int(generator.integers(len(training.neighbours)))]
                some = generator.permutation(len(spared.rows))[: settings.neighbours_per_batch]
                moved = neighbour_divergence(editor, spared, [int(at) for at in some], layer)
                loss = loss + settings.lambda_neighbour * moved.mean()
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


def neighbour_divergence(
    editor: AffineEditor, neighbours: Neighbours, chosen: Sequence[int], layer: int
) -> Float[Tensor, " case"]:
    """KL(p || p') of the answer about the neighbour, in nats."""
    rows = [neighbours.rows[index] for index in chosen]
    directions = editor(neighbours.inputs[chosen])
    after = neighbours.prompts.edited_log_probs(layer, rows, directions)[:, -1]
    before = neighbours.prompts.log_probs[rows, -1]
    return (before.exp() * (before - after)).sum(-1)


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
    editor: AffineEditor, examples: Examples, chosen: Sequence[int], layer: int
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
        settings,
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
    editor: AffineEditor,
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
    moved = [
        value
        for spared in validation.neighbours
        for value in neighbour_divergence(editor, spared, range(len(spared.rows)), layer).tolist()
    ]
    spilled = float(np.mean(moved)) if moved else 0.0
    loss = torch.tensor(float(np.mean(losses)) + settings.lambda_neighbour * spilled)
    return EpochMeasure(
        epoch=epoch,
        validation_loss=float(_finite(loss)),
        validation_efficacy=float(np.mean(wins)),
        validation_spill_nats=spilled,
    )
