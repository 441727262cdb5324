"""Many betas from two products: the same answers as decoding each."""

import torch
from torch import nn

from dragoman.tools.circuits.faithfulness import decode
from dragoman.tools.circuits.scaled_readout import decode_scaled

BETAS = (0.5, 1.0, 4.0, 10.0)


def _inputs():
    generator = torch.Generator().manual_seed(0)
    linear = 3 * torch.randn(70, 32, generator=generator)
    return linear, 2 * torch.randn(32, generator=generator), torch.arange(70)


def _assert_as_decoded(subject):
    linear, bias, wanted = _inputs()
    found = decode_scaled(subject, linear, bias, BETAS, wanted)
    for beta, each in zip(BETAS, found, strict=True):
        expected = decode(subject, beta * linear + bias, wanted)
        assert each.texts == expected.texts
        assert torch.equal(each.tokens, expected.tokens)
        torch.testing.assert_close(each.log_probs, expected.log_probs, atol=1e-4, rtol=1e-4)


def test_every_family_is_read_as_if_each_beta_were_decoded(any_tiny, monkeypatch):
    linear, bias, _ = _inputs()
    unembedded = []
    hook = any_tiny.anatomy.unembedding.register_forward_hook(
        lambda module, args, output: unembedded.append(args[0].shape)
    )
    decode_scaled(any_tiny, linear, bias, BETAS, torch.arange(70))
    hook.remove()
    if any_tiny.anatomy.project_out is None:
        # Two parts of the facts, with three products each however many betas there are.
        assert len(unembedded) == 6
    _assert_as_decoded(any_tiny)


def test_a_norm_that_is_not_linear_up_to_its_length_is_decoded_beta_by_beta(make_tiny):
    subject = make_tiny("llama")
    norm = subject.anatomy.final_norm
    usual = type(norm).forward
    squash = {"forward": lambda self, resid: nn.functional.silu(usual(self, resid))}
    norm.__class__ = type("Squashed", (type(norm),), squash)
    _assert_as_decoded(subject)
