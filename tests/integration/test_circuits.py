"""`approximate_relation` as agent, person and script call it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from dragoman.core.errors import Interrupted, ToolError
from dragoman.core.files import file_sha256
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.circuits.tool import approximate_relation
from dragoman.tools.context import ToolContext
from dragoman.tools.relations import load_relation

_NAMES = "Ab Bo Cu Da Ef Fi Gu Ho Ig Jo Ku La Mo Na Op Pi Qu Ro Sa To Ul Va Wo Xi Ya Ze"
ENTITIES = tuple(_NAMES.split(" "))
OBJECTS = ("Paris", "Tokyo", "dog", "animal")


def _context(subject, folder: Path, **options) -> ToolContext:
    return ToolContext(
        network=subject,
        seed=0,
        home=folder,
        artifacts=folder / "artifacts" / "one",
        cache=folder / "cache",
        **options,
    )


def _run(subject, folder, arguments, **options):
    experiment = approximate_relation.experiment(
        approximate_relation.parse(arguments),
        subject_digest=subject.identity.digest,
        seed=0,
    )
    return approximate_relation.run(_context(subject, folder, **options), experiment)


def _strongest_simple_control(result) -> float:
    """Faithfulness of the best control that has no map of its own fitted or differentiated."""
    simple = {"shuffled relation", "bias alone", "logit lens", "translation", "majority object"}
    return max(
        each.value
        for each in result.controls
        if each.metric == "faithfulness" and each.scope in simple
    )


@pytest.fixture(scope="module")
def relation_file(tmp_path_factory) -> Path:
    """Facts about made-up entities, in the published format."""
    path = tmp_path_factory.mktemp("relations") / "made_up.json"
    samples = [
        {"subject": entity, "object": OBJECTS[i % len(OBJECTS)]}
        for i, entity in enumerate(ENTITIES)
    ]
    path.write_text(
        json.dumps({"name": "made <up> $x$", "prompt_templates": ["{} is"], "samples": samples})
    )
    return path


@pytest.fixture(scope="module")
def taught(make_tiny, relation_file):
    """A tiny Llama trained until it knows the made-up facts after any examples."""
    subject = make_tiny("llama", seed=3)
    samples = load_relation(str(relation_file)).samples
    subject.model.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=3e-3)
    for _ in range(120):
        orders = [torch.randperm(len(samples), generator=generator)[:7] for _ in range(8)]
        texts = []
        for order in orders:
            *examples, asked = [samples[i] for i in order.tolist()]
            texts.append(relation_prompt("{} is", examples, asked.subject).text)
            texts[-1] += f" {asked.object}"
        batch = subject.batch(texts)
        labels = batch.ids.masked_fill(batch.mask == 0, -100)
        loss = subject.forward(batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    subject.model.requires_grad_(False)
    return subject


def test_a_relation_that_the_subject_knows_is_measured_beside_its_controls(
    taught, relation_file, tmp_path
):
    seen = []
    result = _run(
        taught,
        tmp_path,
        {"relation": str(relation_file), "effort": "quick"},
        progress=lambda done, total, text: seen.append(text),
    )
    assert result.status == "ok", result.error
    faithfulness, causality, known = result.measurements
    assert [each.metric for each in result.measurements] == ["faithfulness", "causality", "known"]
    assert known.value > 0.9
    assert known.n == len(ENTITIES)
    for measured in (faithfulness, causality):
        assert measured.unit == "fraction"
        assert measured.n + measured.n_failed == len(result.output["split"]["test"])
        assert measured.baseline_ci95 is not None
        assert measured.control
    headline = max(each.value for each in result.controls if each.metric == "faithfulness")
    assert faithfulness.baseline == headline
    by_name = {each.scope: each for each in result.controls if each.metric == "faithfulness"}
    assert faithfulness.value > _strongest_simple_control(result)
    assert by_name["random twin"].value < 0.5
    scopes = {each.scope for each in result.controls}
    assert {"shuffled relation", "bias alone", "logit lens", "translation"} <= scopes
    assert {"linear regression", "embedding map", "majority object", "random twin"} <= scopes
    assert {"random direction of equal norm", "shuffled targets"} <= scopes
    assert {"whole h of the target", "z of the target in place of h"} <= scopes
    checks = {each.metric: each for each in result.controls}
    assert checks["faithfulness_whole_object"].value <= faithfulness.value
    assert checks["recall_at_5"].value >= checks["recall_at_2"].value >= faithfulness.value
    assert result.output["verdict"]["label"] in result.summary
    assert "one split of the facts" in " ".join(result.caveats)
    assert any("Jacobians of 2 layers" in text for text in seen)

    split = result.output["split"]
    parts = [{fact[0] for fact in split[part]} for part in ("estimation", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(ENTITIES)
    assert split["seed"] == 0
    chosen = result.output["chosen"]
    assert chosen["layer"] in {0, 1}
    assert chosen["edit_layer"] in {0, 1}
    assert [row["layer"] for row in result.output["validation"]["faithfulness"]] == [0, 1]
    named = sum(example["named"] for example in result.output["examples"]["read"])
    assert named == round(faithfulness.value * faithfulness.n)

    for artifact in result.artifacts:
        assert file_sha256(tmp_path / artifact.path) == artifact.sha256
    svg = (tmp_path / result.artifacts[1].path).read_text()
    assert "made &lt;up&gt; $x$ on tiny llama" in svg
    tensors = load((tmp_path / result.artifacts[2].path).read_bytes())
    assert tensors["weight"].shape == (32, 32)
    assert tensors["singular"].shape == (chosen["rank"],)
    again = _run(taught, tmp_path / "again", {"relation": str(relation_file), "effort": "quick"})
    assert again == result


def test_five_splits_are_pooled_by_fact_and_their_spread_is_shown(taught, relation_file, tmp_path):
    result = _run(taught, tmp_path, {"relation": str(relation_file), "effort": "full"})
    splits = result.output["splits"]
    assert len(splits) == 5
    assert len({split["seed"] for split in splits}) == 5
    faithfulness = result.measurement("faithfulness")
    assert faithfulness.scope.endswith("5 splits")
    assert faithfulness.n <= len(ENTITIES)
    shares = [split["faithfulness"] for split in splits]
    assert min(shares) <= faithfulness.value <= max(shares)
    assert f"{min(shares):.2f} to {max(shares):.2f}" in result.summary
    assert any(artifact.name == "ranks.svg" for artifact in result.artifacts)
    chosen = next(split for split in splits if split["seed"] == result.output["split"]["seed"])
    assert chosen["causality_by_rank"][str(chosen["rank"])] == pytest.approx(chosen["causality"])


def test_one_layer_on_request(taught, relation_file, tmp_path):
    arguments = {"relation": str(relation_file), "layer": 1, "effort": "quick"}
    result = _run(taught, tmp_path, arguments)
    assert result.output["chosen"]["layer"] == result.output["chosen"]["edit_layer"] == 1
    assert {each.scope for each in result.measurements[:2]} == {"layer 1"}


def test_an_unknown_relation_of_facts_gives_no_number(make_tiny, relation_file, tmp_path):
    result = _run(make_tiny("gpt2"), tmp_path, {"relation": str(relation_file), "effort": "quick"})
    assert [each.metric for each in result.measurements] == ["known"]
    assert "cannot be judged: 0 known of" in result.summary
    assert result.summary.endswith(result.caveats[-1])
    assert not result.artifacts


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"relation": "country_capital", "layer": 3}, "layer 3 is outside 0..2 of subject 'tiny"),
        ({"relation": "nonsense"}, "no relation 'nonsense': known relations: adj_"),
        ({"relation": "/nowhere/at/all.json"}, "no file '/nowhere/at/all.json'"),
    ],
)
def test_bad_arguments_are_named_with_what_would_be_right(tiny_subject, tmp_path, arguments, named):
    result = _run(tiny_subject, tmp_path, arguments)
    assert result.status == "error"
    assert named in result.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "'relation' is missing"),
        ({"relation": "x", "layer": -1}, "'layer': Input should be greater than or equal to 0"),
        ({"relation": "x", "effort": "some"}, "'effort': Input should be 'quick' or 'full'"),
    ],
)
def test_malformed_arguments_are_named(arguments, named):
    with pytest.raises(ToolError, match=named):
        approximate_relation.parse(arguments)


def test_a_request_to_stop_is_followed(taught, relation_file, tmp_path):
    with pytest.raises(Interrupted):
        _run(taught, tmp_path, {"relation": str(relation_file)}, cancelled=lambda: True)
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.weights
def test_capitals_are_linear_in_the_default_subject(smollm2, tmp_path):
    arguments = {"relation": "country_capital", "layer": 15, "effort": "quick"}
    result = _run(smollm2, tmp_path, arguments)
    faithfulness = result.measurement("faithfulness")
    assert result.measurement("known").value > 0.5
    assert faithfulness.ci95[0] > _strongest_simple_control(result) + 0.1
    assert faithfulness.value > faithfulness.baseline
