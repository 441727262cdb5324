"""Passes that resume above the edit are the full passes, to rounding, and leave nothing behind."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.editing.cached import PromptCache, read_residuals
from dragoman.tools.editing.editor import edit_at_entity
from dragoman.tools.editing.records import Prompt, ask
from dragoman.tools.subjects.language import LanguageSubject

PROMPTS = [
    ask("The capital of {} is the city of", "France"),
    ask("{} is an animal", "A dog"),
    ask("The capital of {}", "Japan"),
]
ROWS = [0, 1, 2, 1]


def _full(subject: LanguageSubject, prompts: list[Prompt], layer: int, vectors: Tensor) -> Tensor:
    edit = edit_at_entity(subject, prompts, layer, vectors)
    texts = subject.batch([prompt.text for prompt in prompts])
    return subject.all_logits(texts, [edit]).log_softmax(-1)


def _directions(subject: LanguageSubject) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(ROWS), subject.d_model, generator=generator)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_values_and_gradients_are_those_of_full_passes(
    any_tiny: LanguageSubject, layer: int
) -> None:
    cache = PromptCache(any_tiny, PROMPTS, [0, 1, 2])
    directions = _directions(any_tiny).requires_grad_()
    mine = cache.edited_log_probs(layer, ROWS, directions)
    full = _full(any_tiny, [PROMPTS[row] for row in ROWS], layer, directions)[:, -cache.n_tail :]
    for at, row in enumerate(ROWS):
        start = int(cache.positions[row])
        torch.testing.assert_close(mine[at, start:], full[at, start:], atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 1, full.shape[-1])
    [mine_gradient] = torch.autograd.grad((mine[:, -1] * weights).sum(), directions)
    [full_gradient] = torch.autograd.grad((full[:, -1] * weights).sum(), directions)
    torch.testing.assert_close(mine_gradient, full_gradient, atol=1e-5, rtol=1e-4)
    assert mine_gradient.abs().max() > 1e-6
    assert all(weight.grad is None for weight in any_tiny.model.parameters())


def test_a_zero_edit_is_no_edit(any_tiny: LanguageSubject) -> None:
    cache = PromptCache(any_tiny, PROMPTS, [1])
    with torch.no_grad():
        edited = cache.edited_log_probs(1, [0, 1, 2], torch.zeros(3, any_tiny.d_model))
        plain = any_tiny.all_logits(any_tiny.batch([one.text for one in PROMPTS]))
    torch.testing.assert_close(edited, cache.log_probs, atol=1e-5, rtol=1e-5)
    expected = plain.log_softmax(-1)[:, -cache.n_tail :]
    for row in range(3):
        start = int(cache.positions[row])
        torch.testing.assert_close(
            cache.log_probs[row, start:], expected[row, start:], atol=1e-5, rtol=1e-5
        )


def test_an_edit_changes_no_earlier_position(any_tiny: LanguageSubject) -> None:
    prompts = [PROMPTS[0]]
    plain = any_tiny.all_logits(any_tiny.batch([prompts[0].text])).log_softmax(-1)
    edited = _full(any_tiny, prompts, 1, _directions(any_tiny)[:1])
    at = any_tiny.last_token(prompts[0].text, prompts[0].entity_end)
    torch.testing.assert_close(edited[:, :at], plain[:, :at])
    changed = (edited[0, at:] - plain[0, at:]).abs().amax(-1)
    assert bool((changed > 1e-4).all())


def test_the_final_position_alone(tiny_subject: LanguageSubject) -> None:
    directions = _directions(tiny_subject)
    with torch.no_grad():
        whole = PromptCache(tiny_subject, PROMPTS, [1])
        final = PromptCache(tiny_subject, PROMPTS, [1], final_only=True)
        edited = final.edited_log_probs(1, ROWS, directions)
        assert edited.shape[1] == final.log_probs.shape[1] == 1
        expected = whole.edited_log_probs(1, ROWS, directions)[:, -1]
    torch.testing.assert_close(edited[:, -1], expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(final.log_probs[:, -1], whole.log_probs[:, -1])


def test_only_positions_from_the_entity_to_before_the_end_are_held(
    tiny_subject: LanguageSubject,
) -> None:
    cache = PromptCache(tiny_subject, PROMPTS, [0])
    for row, prompt in enumerate(PROMPTS):
        position = tiny_subject.last_token(prompt.text, prompt.entity_end)
        held = [step - cache.n_tail for step in cache.kl_mask[row].nonzero()[:, 0].tolist()]
        assert held == list(range(position, -1))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_text_goes_on_from_an_edited_pass_as_from_a_full_one(
    any_tiny: LanguageSubject, layer: int
) -> None:
    prompts = [PROMPTS[row] for row in ROWS]
    directions = 20 * _directions(any_tiny)
    edit = edit_at_entity(any_tiny, prompts, layer, directions)
    whole = any_tiny.generate([one.text for one in prompts], 12, edits=[edit])
    cache = PromptCache(any_tiny, PROMPTS, [layer], final_only=True)
    for _ in range(2):  # the cache serves any number of passes
        resumed = any_tiny.generate_from(cache.edited_prompts(layer, ROWS, directions), 12)
        assert resumed == whole


def test_an_entity_at_the_very_start(tiny_subject: LanguageSubject) -> None:
    # Without a document start, such a prompt has no prefix at all: nothing to cache.
    bare = LanguageSubject(tiny_subject.model, tiny_subject.tokenizer, "bare")
    bare.document_start = None
    prompts = [ask("{} is", "A")]
    vectors = _directions(bare)[:1]
    with torch.no_grad():
        mine = PromptCache(bare, prompts, [1]).edited_log_probs(1, [0], vectors)
        torch.testing.assert_close(mine, _full(bare, prompts, 1, vectors), atol=1e-5, rtol=1e-5)
    edited = PromptCache(bare, prompts, [1]).edited_prompts(1, [0], vectors)
    edit = edit_at_entity(bare, prompts, 1, vectors)
    assert bare.generate_from(edited, 8) == bare.generate([prompts[0].text], 8, edits=[edit])


def test_blocks_that_return_tuples(tiny_subject: LanguageSubject) -> None:
    class Tupled(torch.nn.Module):
        """Answers as blocks of older families do."""

        def __init__(self, block: Any) -> None:
            super().__init__()
            self.block = block
            self.self_attn, self.mlp = block.self_attn, block.mlp

        def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, None]:
            return self.block(*args, **kwargs), None

    class Untupled(torch.nn.Module):
        """Lets a model of today read them."""

        def __init__(self, tupled: Tupled) -> None:
            super().__init__()
            self.tupled = tupled

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = self.tupled(*args, **kwargs)
            assert isinstance(output, tuple)
            assert output[1] is None
            return output[0]

    model = transformers.LlamaForCausalLM(tiny_subject.model.config)
    model.load_state_dict(tiny_subject.model.state_dict())
    tupled = [Tupled(block) for block in model.model.layers]
    subject = LanguageSubject(model, tiny_subject.tokenizer, "tuples")
    subject.anatomy = type(subject.anatomy)(
        blocks=tuple(
            dataclasses.replace(parts, block=block)
            for block, parts in zip(tupled, subject.anatomy.blocks, strict=True)
        ),
        final_norm=subject.anatomy.final_norm,
        project_out=None,
        unembedding=subject.anatomy.unembedding,
        logit_softcap=None,
    )
    model.model.layers = torch.nn.ModuleList(Untupled(block) for block in tupled)
    directions = _directions(subject)
    with torch.no_grad():
        mine = PromptCache(subject, PROMPTS, [1]).edited_log_probs(1, ROWS, directions)
        expected = PromptCache(tiny_subject, PROMPTS, [1]).edited_log_probs(1, ROWS, directions)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_left_behind_even_by_an_error(tiny_subject: LanguageSubject) -> None:
    cache = PromptCache(tiny_subject, PROMPTS, [1])
    with pytest.raises(RuntimeError):
        cache.edited_log_probs(1, ROWS, torch.zeros(len(ROWS), tiny_subject.d_model + 1))
    cache.edited_log_probs(1, ROWS, _directions(tiny_subject))
    for block in tiny_subject.blocks:
        assert "forward" not in vars(block)
        assert not block._forward_hooks


def test_residuals_are_those_of_a_whole_pass(any_tiny: LanguageSubject) -> None:
    texts = [prompt.text for prompt in PROMPTS]
    sites = [Site(layer=0), Site(layer=1)]
    with torch.no_grad():
        whole = any_tiny.activations(any_tiny.batch(texts), sites)
    read = read_residuals(any_tiny, texts, [0, 1])
    for site in sites:
        torch.testing.assert_close(read[site.layer], whole[site])
    assert not any_tiny.blocks[1]._forward_hooks


def test_a_layer_that_the_subject_lacks(make_tiny: Callable[..., LanguageSubject]) -> None:
    with pytest.raises(ToolError, match=r"layer 7 is outside 0\.\.2"):
        PromptCache(make_tiny(), PROMPTS, [7])
