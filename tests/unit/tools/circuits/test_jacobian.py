"""Jacobians of all layers against torch's own Jacobian of the subject's real forward pass."""

import pytest
import torch

from dragoman.core.records import Site
from dragoman.tools.circuits.approximation import estimate, estimate_from
from dragoman.tools.circuits.jacobian import expand, jacobian_products
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import RelationPrompt, relation_prompt
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.hooks import Edit

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]
PROMPT = relation_prompt("The capital of {} is", EXAMPLES, "Dogland")


def _suffix_function(subject, prompt, layer):
    """z as a function of h at `layer`, by a whole forward pass without any cache."""
    batch = subject.batch([prompt.text])
    at = subject.last_token(prompt.text, prompt.subject_end)
    top = Site(layer=subject.n_layers - 1)

    def function(entity):
        def put(resid):
            changed = resid.clone()
            changed[0, at] = entity
            return changed

        edit = Edit(Site(layer=layer), put)
        with subject.editing([edit]), subject.capture([top]) as taken:
            subject.forward(batch)
        return taken[top][0, -1]

    return function


def test_every_layer_equals_torchs_jacobian_of_the_uncached_pass(any_tiny):
    subject = any_tiny
    expansion = expand(subject, PROMPT, chunk=13)
    assert expansion.jacobian.shape == (3, 32, 32)
    for layer in range(subject.n_layers):
        function = _suffix_function(subject, PROMPT, layer)
        entity = expansion.entity[layer]
        torch.testing.assert_close(function(entity), expansion.final, atol=1e-5, rtol=1e-5)
        expected = torch.autograd.functional.jacobian(function, entity)
        error = (expansion.jacobian[layer] - expected).abs().max()
        assert error <= 1e-4 * max(1.0, float(expected.abs().max()))
    assert expansion.jacobian[0].abs().max() > 0.01


def test_a_small_step_moves_z_as_the_jacobian_says(make_tiny):
    subject = make_tiny("llama")
    expansion = expand(subject, PROMPT)
    function = _suffix_function(subject, PROMPT, 1)
    direction = torch.nn.functional.normalize(
        torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0
    )
    step = 1e-2
    entity = expansion.entity[1]
    moved = (function(entity + step * direction) - function(entity - step * direction)) / (2 * step)
    torch.testing.assert_close(expansion.jacobian[1] @ direction, moved, atol=5e-3, rtol=5e-3)


def test_after_the_last_block_only_the_prompts_own_last_token_counts(make_tiny):
    subject = make_tiny("gpt2")
    text = "The capital of France"
    at_the_end = expand(subject, RelationPrompt(text, len(text)))
    torch.testing.assert_close(at_the_end.jacobian[-1], torch.eye(32))
    assert torch.equal(at_the_end.entity[-1], at_the_end.final)
    earlier = expand(subject, RelationPrompt(text, len("The capital")))
    assert not earlier.jacobian[-1].any()
    assert earlier.jacobian[0].any()


def test_layers_can_be_taken_in_part_and_chunks_do_not_matter(make_tiny):
    subject = make_tiny("qwen2")
    whole, part = expand(subject, PROMPT), expand(subject, PROMPT, first_layer=1, last_layer=1)
    assert part.jacobian.shape == (1, 32, 32)
    torch.testing.assert_close(part.jacobian[0], whole.jacobian[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(part.entity[0], whole.entity[1])


def test_rows_are_told_as_they_come_and_the_listener_may_stop(make_tiny):
    subject = make_tiny("llama")
    rows: list[int] = []
    expand(subject, PROMPT, chunk=12, on_row=rows.append)
    assert rows == [0, 12, 24]

    def stop(row):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        expand(subject, PROMPT, on_row=stop)
    assert all(not block._forward_hooks for block in subject.blocks)


def test_an_entity_that_is_the_first_token_has_a_jacobian(make_tiny):
    subject = make_tiny("llama")
    subject.document_start = None
    prompt = RelationPrompt("France is", len("France"))
    assert SharedPrompts(subject, [RelationPrompt("F is", 1)]).n_shared == 0
    expansion = expand(subject, prompt)
    function = _suffix_function(subject, prompt, 0)
    expected = torch.autograd.functional.jacobian(function, expansion.entity[0])
    torch.testing.assert_close(expansion.jacobian[0], expected, atol=1e-4, rtol=1e-4)


def test_nothing_stays_behind_on_the_subject(make_tiny):
    subject = make_tiny("llama")
    before = subject.log_probs([PROMPT.text])
    expand(subject, PROMPT)
    assert all(not block._forward_hooks for block in subject.blocks)
    assert all(weight.grad is None for weight in subject.model.parameters())
    assert torch.equal(subject.log_probs([PROMPT.text]), before)


def test_products_equal_the_mean_jacobian_times_the_vectors(any_tiny):
    subject = any_tiny
    prompts = [PROMPT, relation_prompt("The capital of {} is", EXAMPLES, "Peru")]
    fitted = estimate([expand(subject, prompt) for prompt in prompts], range(3))
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    products = jacobian_products(subject, prompts, Site(layer=1), vectors)
    wanted = fitted.maps[1]
    torch.testing.assert_close(products.linear, wanted.linear(vectors), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(products.bias, wanted.bias, atol=1e-4, rtol=1e-4)


def test_after_the_last_block_products_are_zero_unless_the_entity_ends_the_prompt(make_tiny):
    subject = make_tiny("llama")
    vectors = torch.ones(2, 32)
    nothing = jacobian_products(subject, [PROMPT], Site(layer=2), vectors)
    assert not nothing.linear.any()
    text = "The capital of France"
    itself = jacobian_products(subject, [RelationPrompt(text, len(text))], Site(layer=2), vectors)
    torch.testing.assert_close(itself.linear, vectors)


def test_adding_up_as_it_goes_equals_averaging_whole_expansions(make_tiny, monkeypatch):
    subject = make_tiny("qwen2")
    prompts = [PROMPT, relation_prompt("The capital of {} is", EXAMPLES, "the Dogland")]
    whole = estimate([expand(subject, prompt) for prompt in prompts], range(3))
    seen = []
    # The sum goes to a mapped file and the copies become few: neither may change a number.
    monkeypatch.setattr("dragoman.tools.circuits.jacobian.ROOM_BYTES", 1)
    monkeypatch.setattr("dragoman.tools.circuits.jacobian.GRAPH_BYTES", 1)
    part = estimate_from(
        subject, prompts, [0, 2], embedding=True, on_row=lambda place, row: seen.append(place)
    )
    assert list(part.maps) == [0, 2]
    for layer in (0, 2):
        torch.testing.assert_close(part.maps[layer].weight, whole.maps[layer].weight)
        torch.testing.assert_close(part.maps[layer].bias, whole.maps[layer].bias)
    torch.testing.assert_close(part.final, whole.final)
    assert part.entity is not None
    assert whole.entity is not None
    torch.testing.assert_close(part.entity[1], whole.entity[2])
    assert sorted(set(seen)) == [0, 1]
    assert len(seen) == 2 * 8  # four copies at least, 32 rows


def test_the_embedding_map_is_the_expansion_from_what_enters_the_first_block(make_tiny):
    subject = make_tiny("llama")
    fitted = estimate_from(subject, [PROMPT], [0], embedding=True)
    readout = SharedPrompts(subject, [PROMPT]).read()
    assert fitted.embedding is not None
    torch.testing.assert_close(
        fitted.embedding(readout.embedding)[0], readout.final[0], atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(fitted.embedding.weight, fitted.maps[0].weight)
