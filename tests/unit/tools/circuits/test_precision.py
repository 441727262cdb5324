"""A subject held in half precision has the Jacobians of its weights in float32."""

import copy

import pytest
import torch

from dragoman.tools.circuits.faithfulness import decode
from dragoman.tools.circuits.jacobian import expand
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.precision import float32_maths, read_out
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]
PROMPT = relation_prompt("The capital of {} is", EXAMPLES, "Peru")


@pytest.fixture(params=["gpt2", "llama", "qwen2", "opt"])
def pair(request, make_tiny):
    """The same bfloat16 weights, held as they are and widened."""
    subject = make_tiny(request.param)
    narrow = copy.deepcopy(subject.model).to(torch.bfloat16)
    wide = copy.deepcopy(narrow).float()
    return (
        LanguageSubject(narrow, subject.tokenizer, "narrow"),
        LanguageSubject(wide, subject.tokenizer, "wide"),
    )


def test_jacobians_and_readouts_are_those_of_float32(pair):
    narrow, wide = pair
    assert narrow.is_narrow
    assert not wide.is_narrow
    ours, expected = expand(narrow, PROMPT), expand(wide, PROMPT)
    torch.testing.assert_close(ours.jacobian, expected.jacobian, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(ours.final, expected.final, atol=1e-4, rtol=1e-4)
    mine, theirs = (SharedPrompts(each, [PROMPT]).read() for each in pair)
    torch.testing.assert_close(mine.entity, theirs.entity, atol=1e-4, rtol=1e-4)
    logits = read_out(narrow, expected.final[None])
    torch.testing.assert_close(logits, wide.decode(expected.final[None]), atol=1e-3, rtol=1e-3)
    wanted = torch.tensor([3])
    said = decode(narrow, expected.final[None], wanted)
    assert said.log_probs.item() == pytest.approx(
        wide.decode(expected.final[None]).log_softmax(-1)[0, 3].item(), abs=1e-3
    )


def test_weights_and_forwards_are_put_back(pair):
    narrow, _ = pair
    before = {name: weight.clone() for name, weight in narrow.model.named_parameters()}
    with float32_maths(narrow):
        assert "forward" in narrow.blocks[0].__dict__
    expand(narrow, PROMPT)
    for name, weight in narrow.model.named_parameters():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, before[name])
    assert all("forward" not in block.__dict__ for block in narrow.blocks)
