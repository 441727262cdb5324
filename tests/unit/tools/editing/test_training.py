"""The loss, term by term, and that the best weights are the ones that come back."""

import math

import pytest
import torch
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.editors.catalogue import KINDS, Kind
from dragoman.tools.editing.loss import LossTerms, log_one_minus, loss_terms
from dragoman.tools.editing.records import Prompt, ask
from dragoman.tools.editing.training import (
    Examples,
    Material,
    Spared,
    TrainingSettings,
    spared_divergence,
    train_editor,
)
from dragoman.tools.subjects.language import LanguageSubject


def test_log_one_minus_at_both_ends() -> None:
    log_p = torch.tensor([-1e-9, -1e-6, -0.3, -math.log(2), -5.0, -80.0], requires_grad=True)
    value = log_one_minus(log_p)
    [slope] = torch.autograd.grad(value.sum(), log_p)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(slope).all())
    exact = torch.log(-torch.expm1(log_p.detach().double()))
    torch.testing.assert_close(value[1:].double(), exact[1:], rtol=1e-5, atol=1e-12)


def _random_log_probs(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, 11, generator=generator).log_softmax(-1)


MASK = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
NEW, OLD = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])


def _terms(edited: Tensor, original: Tensor) -> LossTerms:
    return loss_terms(edited, original, MASK, NEW, OLD, lambda_old=1.0, lambda_kl=2.0)


def test_the_loss_is_the_published_sum() -> None:
    edited, original = _random_log_probs(0), _random_log_probs(1)
    terms = _terms(edited, original)
    for row in range(3):
        final = edited[row, -1]
        divergence = sum(
            float((original[row, at].exp() * (original[row, at] - edited[row, at])).sum())
            for at in range(4)
            if MASK[row, at]
        )
        assert float(terms.target[row]) == pytest.approx(-float(final[NEW[row]]), rel=1e-5)
        assert float(terms.old[row]) == pytest.approx(
            -math.log1p(-math.exp(float(final[OLD[row]]))), rel=1e-5
        )
        assert float(terms.kl[row]) == pytest.approx(2.0 * divergence, rel=1e-5, abs=1e-7)
    assert float(terms.total()) == pytest.approx(
        float((terms.target + terms.old + terms.kl).mean()), rel=1e-6
    )


@pytest.mark.parametrize("row", [0, 1])
def test_every_sample_is_regularised(row: int) -> None:
    original = _random_log_probs(1)
    plain = _terms(original, original)
    assert float(plain.kl.abs().max()) < 1e-6
    edited = original.clone()
    edited[row, 1] = _random_log_probs(5)[row, 1]
    moved = _terms(edited, original)
    assert float(moved.total()) > float(plain.total()) + 1e-3
    assert [bool(value > 1e-6) for value in moved.kl] == [at == row for at in range(3)]


def test_positions_outside_the_mask_are_free() -> None:
    original = _random_log_probs(1)
    edited = original.clone()
    edited[0, 0] = _random_log_probs(5)[0, 0]
    edited[1, 3] = _random_log_probs(5)[1, 3]
    edited[2] = _random_log_probs(5)[2]
    assert float(_terms(edited, original).kl.abs().max()) < 1e-6


def _material(subject: LanguageSubject, seed: int, *, swap: bool = False) -> Material:
    prompts = [ask("The capital of {} is", name) for name in ("France", "Japan", "Tokyo")]
    generator = torch.Generator().manual_seed(seed)
    attributes = torch.randn(6, 2, subject.d_model, generator=generator)
    ids = torch.tensor([7, 8, 9, 7, 8, 9]), torch.tensor([17, 18, 19, 17, 18, 19])
    new, old = reversed(ids) if swap else ids
    examples = Examples(
        PromptCache(subject, prompts, [1]), (0, 1, 2, 1, 2, 0), attributes, new, old
    )
    mentions = [ask("{}. The capital of Japan is", "France")]
    neighbours = Spared(
        PromptCache(subject, mentions, [1], final_only=True), (0, 0), attributes[:2]
    )
    told = [Prompt("A dog is an animal in France", len("A dog"))]
    essence = Spared(PromptCache(subject, told, [1]), (0, 0, 0), attributes[2:5])
    return Material([examples], [neighbours], [essence])


def _quiet(done: int, total: int, text: str) -> None:
    pass


def test_training_lowers_the_loss_and_leaves_the_subject_alone(
    tiny_subject: LanguageSubject,
) -> None:
    before = {name: value.clone() for name, value in tiny_subject.model.state_dict().items()}
    material = _material(tiny_subject, 0)
    settings = TrainingSettings(max_epochs=12, patience=12, learning_rate=0.05, batch_size=2)
    trained = train_editor(material, material, 1, settings, 0, step=_quiet)
    assert trained.history[0].epoch == 0
    assert trained.best.validation_loss < trained.history[0].validation_loss - 0.1
    assert trained.best.validation_loss == min(one.validation_loss for one in trained.history)
    for name, value in tiny_subject.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(weight.grad is None for weight in tiny_subject.model.parameters())


def test_a_run_that_gets_worse_gives_back_the_weights_from_before(
    tiny_subject: LanguageSubject,
) -> None:
    training = _material(tiny_subject, 0)
    # What training makes probable, validation wants improbable: it only gets worse.
    validation = _material(tiny_subject, 0, swap=True)
    settings = TrainingSettings(max_epochs=5, patience=2, learning_rate=0.05, lambda_essence=0.0)
    trained = train_editor(training, validation, 1, settings, 0, step=_quiet)
    losses = [one.validation_loss for one in trained.history]
    assert min(losses[1:]) > losses[0]
    assert trained.best.epoch == 0
    assert len(losses) == 3  # Epochs 0, 1, 2: then patience is at an end.
    assert all(float(each.abs().max()) == 0 for each in trained.editor.parameters())


def test_the_same_seed_gives_the_same_editor(tiny_subject: LanguageSubject) -> None:
    material = _material(tiny_subject, 0)
    settings = TrainingSettings(max_epochs=2)
    first, second = (
        train_editor(material, material, 1, settings, 5, step=_quiet).editor.state_dict()
        for _ in range(2)
    )
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=0, atol=0)


def test_not_a_number_is_an_error_and_no_editor(tiny_subject: LanguageSubject) -> None:
    material = _material(tiny_subject, 0)
    broken = material.edits[0].inputs.clone()
    broken[0, 0] = math.nan
    [edits] = material.edits
    bad = Material([Examples(edits.prompts, edits.rows, broken, edits.new_ids, edits.old_ids)], [])
    with pytest.raises(ToolError, match="not a finite number; nothing was kept"):
        train_editor(bad, material, 1, TrainingSettings(), 0, step=_quiet)


def test_neighbours_diverge_only_under_an_edit(tiny_subject: LanguageSubject) -> None:
    material = _material(tiny_subject, 0)
    settings = TrainingSettings(max_epochs=1)
    editor = train_editor(material, material, 1, settings, 0, step=_quiet).editor
    [spared] = material.neighbours
    moved = spared_divergence(editor, spared, [0, 1], 1)
    assert bool((moved > 1e-6).all())
    editor.strength.fill_(0.0)
    assert float(spared_divergence(editor, spared, [0, 1], 1).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_editor_learns(tiny_subject: LanguageSubject, kind: Kind) -> None:
    material = _material(tiny_subject, 0)
    settings = TrainingSettings(kind=kind, max_epochs=6, patience=6, learning_rate=0.03)
    trained = train_editor(material, material, 1, settings, 0, step=_quiet)
    assert trained.best.validation_loss < trained.history[0].validation_loss - 0.1


def test_the_text_about_an_entity_is_spared_from_the_entity_on(
    tiny_subject: LanguageSubject,
) -> None:
    material = _material(tiny_subject, 0)
    editor = train_editor(
        material, material, 1, TrainingSettings(max_epochs=1), 0, step=_quiet
    ).editor
    [told] = material.essence
    moved = spared_divergence(editor, told, [1], 1)
    after = told.prompts.edited_log_probs(1, [0], editor(told.inputs[1:2]))
    before = told.prompts.log_probs[:1]
    by_position = (before.exp() * (before - after)).sum(-1)[0]
    start = int(told.prompts.positions[0])
    torch.testing.assert_close(moved[0], by_position[start:].sum())
    # Weighted, the term is felt: the editor strays less than one trained without it.
    strays = [
        train_editor(
            material,
            material,
            1,
            TrainingSettings(max_epochs=8, patience=8, learning_rate=0.05, lambda_essence=weight),
            0,
            step=_quiet,
        )
        .history[-1]
        .validation_essence_nats
        for weight in (0.0, 30.0)
    ]
    assert strays[1] < 0.7 * strays[0]


def test_a_share_of_the_material(tiny_subject: LanguageSubject) -> None:
    material = _material(tiny_subject, 0)
    [few] = material.share(0.4).edits
    assert few.rows == material.edits[0].rows[:3]
    assert few.inputs.shape[0] == few.new_ids.shape[0] == few.old_ids.shape[0] == 3
    assert few.prompts is material.edits[0].prompts
