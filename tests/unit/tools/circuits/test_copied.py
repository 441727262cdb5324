"""Copies of one suffix: what is multiplied out once gives the derivatives of the plain passes."""

import pytest
import torch
from torch import nn

from dragoman.core.records import Site
from dragoman.tools.circuits.copied_attention import copied_attention
from dragoman.tools.circuits.copied_mlp import copied_mlps
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.hooks import Edit

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]
PROMPT = relation_prompt("The capital of {} is known to be", EXAMPLES, "Peru")
BOTTOM, TOP = Site(layer=0), Site(layer=2)
COPIES = 4


def _gradient(subject, *contexts):
    """Of a fixed function of the last block's output by the first's, for each copy and token."""
    start = Edit(BOTTOM, lambda resid: resid.detach().requires_grad_())
    weights = torch.randn(COPIES, 32, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad(), subject.editing([start]), subject.capture([BOTTOM, TOP]) as taken:
        shared = SharedPrompts(subject, [PROMPT])
        for context in contexts:
            context.__enter__()
        shared.run([0] * COPIES)
        for context in contexts:
            context.__exit__(None, None, None)
    assert len(shared.rests[0]) > 2
    (gradient,) = torch.autograd.grad(taken[TOP][:, -1], taken[BOTTOM], weights)
    return taken[TOP].detach(), gradient


@pytest.mark.parametrize("way", [copied_attention, copied_mlps])
def test_values_and_gradients_of_every_copy_and_token_are_those_of_plain_passes(any_tiny, way):
    plain, gradient = _gradient(any_tiny)
    value, found = _gradient(any_tiny, way(any_tiny))
    torch.testing.assert_close(value, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, gradient, atol=1e-5, rtol=1e-4)
    assert gradient[:, 1:].any()  # tokens between the entity and the last one carry some too


def test_the_usual_attention_is_not_differentiated_at_all(make_tiny, monkeypatch):
    subject = make_tiny("llama")
    shared = SharedPrompts(subject, [PROMPT])
    start = Edit(BOTTOM, lambda resid: resid.detach().requires_grad_())
    kernel, differentiated = nn.functional.scaled_dot_product_attention, []

    def watched(query, *args, **kwargs):
        differentiated.append(query.requires_grad)
        return kernel(query, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    with torch.enable_grad(), subject.editing([start]), copied_attention(subject):
        shared.run([0] * COPIES)
    assert differentiated == [False]  # block 0 alone, below the site where gradients start


def test_nothing_stays_behind_also_after_an_error(make_tiny):
    subject = make_tiny("llama")
    implementation = subject.model.config._attn_implementation

    def fail():
        with copied_attention(subject), copied_mlps(subject):
            assert subject.model.config._attn_implementation != implementation
            assert all("forward" in block.mlp.__dict__ for block in subject.blocks)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert subject.model.config._attn_implementation == implementation
    assert all("forward" not in block.mlp.__dict__ for block in subject.blocks)


def test_a_gated_mlp_that_does_more_than_its_formula_is_left_alone(make_tiny):
    subject = make_tiny("llama")
    mlp = subject.blocks[1].mlp
    usual = type(mlp).forward
    twice = {"forward": lambda self, resid: 2 * usual(self, resid)}
    mlp.__class__ = type("Doubled", (type(mlp),), twice)
    plain, gradient = _gradient(subject)
    value, found = _gradient(subject, copied_mlps(subject))
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(found, gradient)
