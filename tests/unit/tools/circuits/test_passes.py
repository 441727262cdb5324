"""Cached passes read what whole passes read."""

import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.hooks import add_at

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]
SUBJECTS = ("Germany", "Peru", "the Dogland of animals", "I")
PROMPTS = [relation_prompt("The capital of {} is", EXAMPLES, each) for each in SUBJECTS]


def test_read_equals_a_whole_pass_of_each_prompt_alone(any_tiny):
    subject = any_tiny
    prompts = SharedPrompts(subject, PROMPTS)
    assert prompts.n_shared >= 15
    readout = prompts.read()
    sites = [Site(layer=layer) for layer in range(subject.n_layers)]
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            taken = subject.activations(subject.batch([prompt.text]), sites)
        at = subject.last_token(prompt.text, prompt.subject_end)
        expected = torch.stack([taken[site][0, at] for site in sites])
        torch.testing.assert_close(readout.entity[:, row], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            readout.final[row], taken[sites[-1]][0, -1], atol=1e-4, rtol=1e-4
        )
    again = prompts.read()
    assert torch.equal(again.final, readout.final)


def test_shifts_equal_edits_of_a_whole_pass(any_tiny):
    subject = any_tiny
    prompts = SharedPrompts(subject, PROMPTS)
    shifts = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    rows = [2, 0, 3, 2]
    final = prompts.read_shifted(rows, 1, shifts)
    for place, row in enumerate(rows):
        prompt = PROMPTS[row]
        at = subject.last_token(prompt.text, prompt.subject_end)
        edit = add_at(Site(layer=1), [at], shifts[place : place + 1])
        with torch.no_grad():
            expected = subject.logits(subject.batch([prompt.text]), [edit])[0]
            torch.testing.assert_close(subject.decode(final[place]), expected, atol=1e-3, rtol=1e-3)


def test_a_zero_shift_changes_nothing_and_the_whole_swap_at_the_end_is_the_target(make_tiny):
    subject = make_tiny("llama")
    prompts = SharedPrompts(subject, PROMPTS)
    readout = prompts.read()
    rows = list(range(len(PROMPTS)))
    still = prompts.read_shifted(rows, 0, torch.zeros(len(rows), 32))
    torch.testing.assert_close(still, readout.final, atol=1e-5, rtol=1e-5)
    moved = prompts.read_shifted(rows, 0, torch.ones(len(rows), 32))
    assert (moved - readout.final).abs().max() > 1e-3


def test_more_prompts_than_fit_one_pass_come_back_in_order(make_tiny, monkeypatch):
    subject = make_tiny("gpt_neox")
    prompts = SharedPrompts(subject, PROMPTS)
    whole = prompts.read()
    shifted = prompts.read_shifted([0, 1, 2, 3], 0, whole.final)
    monkeypatch.setattr("dragoman.tools.circuits.passes.ROWS", 3)
    torch.testing.assert_close(prompts.read().entity, whole.entity, atol=1e-5, rtol=1e-5)
    again = prompts.read_shifted([0, 1, 2, 3], 0, whole.final)
    torch.testing.assert_close(again, shifted, atol=1e-5, rtol=1e-5)


def test_a_prompt_longer_than_the_subject_can_read_is_refused(make_tiny):
    subject = make_tiny("gpt2")
    endless = relation_prompt("The capital of {} is", EXAMPLES * 40, "Peru")
    with pytest.raises(ToolError, match=r"longer than the subject's 256"):
        SharedPrompts(subject, [endless])
