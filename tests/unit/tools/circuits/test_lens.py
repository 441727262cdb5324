"""The attribute lens: on planted truth, under distraction, and where its arguments are wrong."""

import json
import math
from typing import Any

import pytest
import torch

from dragoman.core.records import Artifact
from dragoman.tools.circuits import approximation
from dragoman.tools.circuits.approximation import LowRankMap, RelationMap, invert
from dragoman.tools.circuits.fitted import fit_reader
from dragoman.tools.circuits.lens import (
    LensMap,
    distract,
    false_objects,
    read_text,
    recalled,
    shuffled_recall,
)
from dragoman.tools.circuits.lens_tool import attribute_lens, draw_lens, mentioned
from dragoman.tools.circuits.study import PLANS, gather_facts
from dragoman.tools.context import ToolContext
from dragoman.tools.relations import Sample, load_relation
from dragoman.tools.subjects.planted import plant


def make_context(subject, folder) -> ToolContext:
    return ToolContext(
        network=subject,
        seed=0,
        home=folder,
        artifacts=folder / "artifacts" / "one",
        cache=folder / "cache",
    )


def run_tool(tool, subject, folder, arguments):
    experiment = tool.experiment(
        tool.parse(arguments), subject_digest=subject.identity.digest, seed=0
    )
    return tool.run(make_context(subject, folder), experiment)


@pytest.fixture(scope="module")
def planted():
    return plant()


@pytest.fixture(scope="module")
def linear(planted, tmp_path_factory):
    return str(planted.write_relations(tmp_path_factory.mktemp("planted"))["linear"])


@pytest.fixture(scope="module")
def found(planted, linear, tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    result = run_tool(
        attribute_lens, planted.subject, folder, {"relation": linear, "effort": "quick"}
    )
    return folder, result


def test_the_planted_relation_is_read_although_the_output_says_otherwise(found):
    _, result = found
    assert result.status == "ok", result.error
    for scope in ("no distraction", "repetition", "instruction"):
        lens = result.measurement("lens_recall_at_1", scope)
        assert lens.value == 1.0
        assert lens.baseline < 0.3
        assert lens.n + lens.n_failed == 24
    assert {each.scope for each in result.controls} >= {"logit lens, repetition"}


def test_nothing_is_read_in_the_twin_that_knows_the_same_facts(planted, linear, tmp_path):
    result = run_tool(
        attribute_lens, planted.twin, tmp_path, {"relation": linear, "effort": "quick"}
    )
    plain = result.measurement("output_recall_at_1", "no distraction")
    assert plain.value == 1.0  # the facts are as well known
    for scope in ("no distraction", "repetition", "instruction"):
        lens = result.measurement("lens_recall_at_1", scope)
        low, high = lens.baseline_ci95
        assert low <= lens.value <= high


def test_the_map_shows_the_object_at_the_entity_in_the_planted_layers_alone(planted, tmp_path):
    subject, truth = planted.subject, planted.truth
    relation = truth.linear
    facts = gather_facts(subject, relation, PLANS["quick"], 0)
    reader = fit_reader(make_context(subject, tmp_path), relation.prompt_templates[0], facts)
    fact = facts.samples[facts.test[0]]
    text = f"the old road and {fact.subject} by the sea"
    read = read_text(subject, reader.maps, reader.betas, text, fact=fact)
    entity = read.tokens.index(fact.subject)
    for place, layer in enumerate(read.layers):
        assert read.object_probability is not None
        cells = read.object_probability[place]
        if layer in truth.linear_layers:
            assert read.read[place][entity][0] == fact.object
            assert cells[entity] > 0.9
            assert all(cell < 0.3 for at, cell in enumerate(cells) if at != entity)
    # The second time, maps come from the cache, and are the same.
    again = fit_reader(make_context(subject, tmp_path), relation.prompt_templates[0], facts)
    for layer, each in reader.maps.items():
        same = again.maps[layer]
        assert isinstance(each, RelationMap)
        assert isinstance(same, RelationMap)
        assert torch.equal(each.weight, same.weight)


def test_maps_of_a_large_subject_are_kept_as_factors(planted, tmp_path, monkeypatch):
    subject, relation = planted.subject, planted.truth.linear
    facts = gather_facts(subject, relation, PLANS["quick"], 0)
    whole = fit_reader(make_context(subject, tmp_path / "a"), relation.prompt_templates[0], facts)
    monkeypatch.setattr(approximation, "_LARGEST", 0)
    monkeypatch.setattr(approximation, "KEPT_RANK", 24)
    context = make_context(subject, tmp_path / "b")
    made = fit_reader(context, relation.prompt_templates[0], facts)
    kept = fit_reader(context, relation.prompt_templates[0], facts)
    assert kept.chosen.layer == whole.chosen.layer
    assert kept.chosen.share == whole.chosen.share
    for layer, each in kept.maps.items():
        assert isinstance(each, LowRankMap)
        assert each.factors.singular.shape == (24,)
        before = made.maps[layer]
        assert isinstance(before, LowRankMap)
        assert torch.equal(each.factors.left, before.factors.left)
        assert torch.equal(invert(each, 8).left, each.factors.left[:, :8])


def test_a_damaged_cache_is_estimated_again(planted, tmp_path):
    subject, relation = planted.subject, planted.truth.linear
    facts = gather_facts(subject, relation, PLANS["quick"], 0)
    context = make_context(subject, tmp_path)
    first = fit_reader(context, relation.prompt_templates[0], facts)
    (path,) = (tmp_path / "cache" / "relation_maps").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    second = fit_reader(context, relation.prompt_templates[0], facts)
    assert second.sweep == first.sweep


def test_an_identity_map_is_the_logit_lens_and_its_last_row_the_output(tiny_subject):
    subject = tiny_subject
    identity = RelationMap(torch.eye(subject.d_model), torch.zeros(subject.d_model))
    last = subject.n_layers - 1
    read = read_text(subject, {last: identity}, {last: 1.0}, "The capital of France is")
    assert tuple(cell[0] for cell in read.read[0]) == read.output
    said = subject.next_tokens(["The capital of France is"], 1)[0][0]
    assert read.output[-1] == said.token
    assert math.isclose(read.probability[0][-1], said.probability, abs_tol=1e-4)
    assert read.object_probability is None


def test_artifacts_hold_the_whole_map(found):
    folder, result = found
    by_name: dict[str, Artifact] = {each.name: each for each in result.artifacts}
    read = LensMap.model_validate_json((folder / by_name["lens.json"].path).read_bytes())
    assert len(read.read) == len(read.layers) == 5
    assert all(len(row) == len(read.tokens) for row in read.read)
    svg = (folder / by_name["lens.svg"].path).read_bytes()
    assert svg == draw_lens(read)
    assert draw_lens(read, "png").startswith(b"\x89PNG")
    assert json.dumps(result.output["lens"])
    heat: Any = read.heat()
    assert result.output["heat"] == heat
    assert heat["what"] == f"probability of {read.object!r}"
    at = read.layers.index(max(read.layers))
    cells = read.object_probability
    assert cells is not None
    assert [int(digit) for digit in heat["tenths"][at]] == [min(9, int(10 * c)) for c in cells[at]]


def test_a_distraction_claims_the_false_object_and_asks_about_the_last_entity():
    prompt = distract("repetition", "The capital of {} is", "Peru", "Oslo")
    assert prompt.text == (
        "The capital of Peru is Oslo. The capital of Peru is Oslo. The capital of Peru is"
    )
    assert prompt.text[: prompt.subject_end].endswith("capital of Peru")
    assert prompt.text[prompt.subject_end :] == " is"
    prompt = distract("instruction", "{} lives in", "Ann", "Rome")
    assert prompt.text == "Repeat exactly: Ann lives in Rome. Ann lives in"
    assert prompt.text[prompt.subject_end :] == " lives in"


def test_false_objects_are_false(tiny_subject):
    samples = [Sample(subject=str(i), object=name) for i, name in enumerate(["Paris", "dog"] * 5)]
    lies = false_objects(tiny_subject, samples, ["Paris", "dog", "Tokyo"], 0)
    assert all(lie != sample.object for lie, sample in zip(lies, samples, strict=True))
    assert lies == false_objects(tiny_subject, samples, ["Paris", "dog", "Tokyo"], 0)


def test_recall_counts_up_to_k_and_chance_counts_other_objects():
    samples = [Sample(subject="a", object="Paris"), Sample(subject="b", object="Tokyo")]
    texts = [[" Rome", " Par"], [" Par", " x"]]
    assert recalled(texts, samples, 1) == [False, False]
    assert recalled(texts, samples, 2) == [True, False]
    assert shuffled_recall(texts, ["Paris", "Tokyo"], 1) == [0.0, 1.0]


def test_the_entity_mentioned_last_is_asked_about_and_the_longest():
    relation = load_relation("country_capital")
    for text, entity in (("From France to Peru.", "Peru"), ("Peruvians in France", "France")):
        fact = mentioned(relation, text)
        assert fact is not None
        assert fact.subject == entity
    assert mentioned(relation, "nothing here") is None


def test_a_text_that_is_too_long_is_refused_with_the_range(tiny_subject, tmp_path):
    result = run_tool(
        attribute_lens,
        tiny_subject,
        tmp_path,
        {"relation": "country_capital", "text": "word " * 200},
    )
    assert result.status == "error"
    assert "text has" in result.error
    assert "1..96 tokens" in result.error


def test_a_relation_that_is_not_known_gives_no_number(tiny_subject, tmp_path):
    result = run_tool(
        attribute_lens, tiny_subject, tmp_path, {"relation": "country_capital", "effort": "quick"}
    )
    assert result.status == "ok"
    assert not result.measurements
    assert "cannot be judged: 2 known of " in result.summary
