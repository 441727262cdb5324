"""The speed benchmark compares like with like."""

from argparse import Namespace

import pytest
import torch

from dragoman.core.errors import UserError
from dragoman.evals import circuit_speed
from dragoman.evals.circuit_speed_rivals import edit_one_by_one, per_layer, run_library
from dragoman.tools.circuits.approximation import estimate_from
from dragoman.tools.circuits.prompts import leave_one_out
from dragoman.tools.relations import Sample

SAMPLES = [
    Sample(subject="France", object="Paris"),
    Sample(subject="Japan", object="Tokyo"),
    Sample(subject="Dogland", object="Dog"),
]
PROMPTS = leave_one_out("The capital of {} is", SAMPLES)


def test_a_layer_alone_gives_the_same_map(make_tiny):
    subject = make_tiny("llama")
    together = estimate_from(subject, PROMPTS[:1], [0, 1])
    for layer in (0, 1):
        alone = per_layer(subject, PROMPTS[0], layer)
        torch.testing.assert_close(together.maps[layer].weight, alone, atol=1e-5, rtol=1e-4)


def test_rows_say_the_largest_difference_and_whether_the_goal_is_met(make_tiny):
    options = Namespace(layer_stride=1)
    rows = circuit_speed.sweep_rows(make_tiny("llama"), PROMPTS, None, options)
    assert len(rows) == 2
    assert "largest relative difference" in rows[0].remark
    assert float(rows[0].remark.rsplit(" ", 1)[1]) < circuit_speed.TOLERANCE
    assert rows[0].met is (rows[0].ratio >= 8)
    assert rows[1].ours > 0
    assert rows[1].theirs > 0


def test_loops_leave_the_subject_as_it_was(make_tiny):
    subject = make_tiny("gpt2")
    before = subject.log_probs([PROMPTS[0].text])
    edit_one_by_one(subject, PROMPTS, 1, torch.ones(3, 32), 4)
    assert torch.equal(subject.log_probs([PROMPTS[0].text]), before)


def test_the_library_is_compared_on_llama_alone(make_tiny):
    with pytest.raises(UserError, match="Llama subjects only"):
        run_library(make_tiny("gpt2"), PROMPTS, [0], "python")
