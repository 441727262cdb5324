"""Behaviour tools: exact against the subject itself, controls that say nothing when nothing is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragoman.core.records import JsonObject, ToolResult
from dragoman.tools.behaviour.contrast import compare_prompts, sign_flip_p
from dragoman.tools.behaviour.knowledge import probe_knowledge
from dragoman.tools.behaviour.openings import OPENINGS, opened
from dragoman.tools.behaviour.prediction import continue_text, predict_next
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Tool
from dragoman.tools.relations import is_prefix

PROMPT = "The capital of France is"


@pytest.fixture
def run(tiny_subject: Any, tmp_path: Path) -> Any:
    def run_tool(tool: Tool, arguments: JsonObject, subject: Any = tiny_subject) -> ToolResult:
        context = ToolContext(
            network=subject, seed=3, home=tmp_path, artifacts=tmp_path / "a", cache=tmp_path / "c"
        )
        parsed = tool.parse(arguments)
        experiment = tool.experiment(parsed, subject_digest=subject.identity.digest, seed=3)
        return tool.run(context, experiment)

    return run_tool


def test_probability_is_the_mean_over_openings(run: Any, tiny_subject: Any) -> None:
    result = run(predict_next, {"prompt": PROMPT, "answer": "Paris"})
    token = tiny_subject.first_token("Paris")
    expected = tiny_subject.log_probs(opened(PROMPT)).exp()[:, token].mean()
    measurement = result.measurement("probability")
    assert measurement.value == pytest.approx(float(expected), rel=1e-5)
    assert measurement.n == len(OPENINGS)


def test_the_unrelated_prompt_itself_measures_as_its_control(run: Any) -> None:
    measurement = run(predict_next, {"prompt": "The"}).measurement("probability")
    assert measurement.value == pytest.approx(measurement.baseline)


def test_greedy_text_is_more_probable_after_its_own_prompt(run: Any, tiny_subject: Any) -> None:
    result = run(continue_text, {"prompt": PROMPT, "max_new_tokens": 8, "samples": 2})
    assert result.output["greedy"] == tiny_subject.generate([PROMPT], 8)[0]
    measurement = result.measurement("log_probability")
    assert measurement.value > measurement.baseline


def test_exchanging_the_sides_flips_the_sign(run: Any) -> None:
    first, second = ["A dog is", "A cat is", "One is"], ["The dog", "The cat", "The one"]
    there = run(compare_prompts, {"first": first, "second": second, "answer": "an"})
    back = run(compare_prompts, {"first": second, "second": first, "answer": "an"})
    metric = "log_probability_difference"
    assert there.measurement(metric).value == pytest.approx(
        -back.measurement(metric).value, abs=1e-5
    )
    assert there.measurement(metric).value != pytest.approx(0, abs=1e-3)


def test_equal_sides_differ_by_nothing(run: Any) -> None:
    result = run(compare_prompts, {"first": ["A dog"] * 3, "second": ["A dog"] * 3, "answer": "is"})
    assert result.measurement("log_probability_difference").value == pytest.approx(0, abs=1e-6)
    assert result.output["p_value"] > 0.9


def test_sides_of_unequal_length_are_named(run: Any) -> None:
    result = run(compare_prompts, {"first": ["a", "b"], "second": ["c"], "answer": "d"})
    assert result.status == "error"
    assert "'first' holds 2 prompts and 'second' 1" in result.error


def test_sign_flip_p_is_small_only_for_a_real_difference() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 24)
    assert sign_flip_p(noise + 2, 0) < 0.001
    assert sign_flip_p(noise - noise.mean(), 0) > 0.9


@pytest.mark.parametrize(
    ("predicted", "known"),
    [(" Par", True), (" PARIS", True), ("", False), (" ", False), (" B", False)],
)
def test_the_published_rule(predicted: str, known: bool) -> None:
    assert is_prefix(predicted, "Paris") is known


def _relation_file(folder: Path) -> str:
    path = folder / "letters.json"
    samples = [{"subject": f"item{i}", "object": f"{'abcd'[i % 4]}{i}"} for i in range(16)]
    path.write_text(
        json.dumps(
            {
                "name": "letters",
                "prompt_templates": ["{} gives"],
                "prompt_templates_zs": ["{} gives"],
                "properties": {"relation_type": "factual"},
                "samples": samples,
            }
        )
    )
    return str(path)


def test_a_random_subject_knows_nothing(run: Any, tmp_path: Path) -> None:
    result = run(probe_knowledge, {"relation": _relation_file(tmp_path)})
    accuracy = result.measurement("accuracy")
    assert accuracy.n == 10
    assert accuracy.value <= 0.3
    assert {each["subject"] for each in result.output["answers"]}.isdisjoint(
        each["subject"] for each in result.output["examples"]
    )


def test_an_unknown_relation_names_the_known_ones(run: Any) -> None:
    result = run(probe_knowledge, {"relation": "country_capitol"})
    assert result.status == "error"
    assert "country_capital" in result.error


@pytest.mark.weights
def test_the_default_subject_knows_capitals_and_exchange_hurts(run: Any, smollm2: Any) -> None:
    with torch.no_grad():
        result = run(probe_knowledge, {"relation": "country_capital"}, smollm2)
    accuracy = result.measurement("accuracy")
    assert accuracy.ci95[0] > accuracy.baseline_ci95[1]
