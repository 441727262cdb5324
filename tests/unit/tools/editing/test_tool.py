"""`edit_representation` on a subject whose truth is known, and what it refuses."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import torch

from dragoman.core.errors import Interrupted, ToolError
from dragoman.core.records import JsonObject, ToolResult, ToolSuccess
from dragoman.tools.context import ToolContext
from dragoman.tools.editing import editor, fitting
from dragoman.tools.editing.directions import (
    EDITED,
    IDENTITY,
    MEAN_DIFFERENCE,
    NO_EDIT,
    PREFIX,
    RANDOM,
    REPLACED,
    TUNED_DIFFERENCE,
)
from dragoman.tools.editing.editor import read_states
from dragoman.tools.editing.records import Context
from dragoman.tools.editing.tool import edit_representation
from dragoman.tools.editing.training_tools import sweep_edit_layer, train_editor
from dragoman.tools.relations import Relation
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted

MakeContext = Callable[[LanguageSubject], ToolContext]


def _call(ctx: ToolContext, **arguments: object) -> ToolSuccess:
    given: JsonObject = json.loads(json.dumps({"effort": "quick", **arguments}))
    return edit_representation.function(ctx, **edit_representation.parse(given))


def _value(result: ToolSuccess, metric: str, scope: str = "") -> float:
    found = [
        one.value
        for one in (*result.measurements, *result.controls)
        if (one.metric, one.scope) == (metric, scope)
    ]
    assert len(found) == 1, (metric, scope)
    return found[0]


class Shared(NamedTuple):
    """One call at layer 2, for the tests that only look at it."""

    ctx: ToolContext
    relation: str
    result: ToolSuccess
    left_random_state_alone: bool


@pytest.fixture(scope="module")
def shared(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    home = tmp_path_factory.mktemp("shared")
    relation = str(planted.write_relations(home / "relations")["linear"])
    ctx = ToolContext(
        network=planted.subject, seed=0, home=home, artifacts=home / "run", cache=home / "cache"
    )
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    result = _call(ctx, relation=relation, layer=2)
    return Shared(ctx, relation, result, bool((torch.rand(3) == expected).all()))


def test_what_is_stored_at_the_entity_is_edited_there_and_only_there(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    result = _call(context(planted.subject), relation=str(files["linear"]))
    efficacy, *_ = result.measurements
    assert efficacy.metric == "efficacy"
    assert efficacy.control == RANDOM
    assert efficacy.value >= 0.9
    assert efficacy.ci95[0] > efficacy.baseline
    assert _value(result, "paraphrase_efficacy") >= 0.9
    specificity = next(
        one for one in result.measurements if one.metric == "neighbourhood_specificity"
    )
    assert specificity.value >= 0.9
    # The same direction at the neighbour itself changes the neighbour: the measure can fail.
    assert specificity.baseline <= 0.2
    for baseline in (NO_EDIT, IDENTITY, PREFIX):
        assert _value(result, "efficacy", baseline) < 0.2
    assert result.output["layer"] in planted.truth.linear_layers
    assert _value(result, "new_object_probability") > 0.9


def test_what_is_stored_elsewhere_cannot_be_edited_at_the_entity(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    result = _call(context(planted.subject), relation=str(files["looked_up"]))
    assert _value(result, "efficacy") <= 0.1
    # Nothing moves anywhere: specificity is no higher than its control, and so supports nothing.
    specificity = next(
        one for one in result.measurements if one.metric == "neighbourhood_specificity"
    )
    assert specificity.value == specificity.baseline == 1.0


def test_test_entities_are_in_no_training_record(shared: Shared) -> None:
    ctx, result = shared.ctx, shared.result
    [folder] = (ctx.cache / "editors").iterdir()
    split = json.loads((folder / "editor.json").read_text())["inputs"]["split"]
    examples = json.loads((ctx.home / result.artifacts[1].path).read_text())
    edited = {example["entity"] for example in examples}
    assert edited
    assert edited <= set(split["test"])
    assert not edited & {*split["train"], *split["validation"]}


def test_a_second_call_reuses_the_editor_and_measures_the_same(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(fitting, "train_editor", refuse)
    first, second = shared.result, _call(shared.ctx, relation=shared.relation, layer=2)
    assert second.measurements == first.measurements
    assert second.controls == first.controls
    assert [one.sha256 for one in second.artifacts] == [one.sha256 for one in first.artifacts]
    # `train_editor` finds the same editor, and its efficacy is the same figure.
    trained = train_editor.function(
        shared.ctx,
        **train_editor.parse({"relation": shared.relation, "layer": 2, "effort": "quick"}),
    )
    assert trained.summary.startswith("planted home: found a linear editor at layer 2")
    assert trained.measurements[0] == first.measurements[0]
    baselines = {one.scope for one in trained.controls if one.metric == "efficacy"}
    assert baselines == {one.scope for one in first.controls if one.metric == "efficacy"}


def test_every_metric_stands_beside_every_baseline(shared: Shared) -> None:
    result = shared.result
    metrics = {
        "efficacy",
        "paraphrase_efficacy",
        "neighbourhood_specificity",
        "essence",
        "fluency",
        "consistency",
        "magnitude",
        "collateral_kl",
        "harmonic_mean",
    }
    assert metrics <= {one.metric for one in result.measurements}
    for metric in metrics:
        scopes = {one.scope for one in result.controls if one.metric == metric}
        assert {PREFIX, REPLACED, IDENTITY, MEAN_DIFFERENCE, TUNED_DIFFERENCE, RANDOM} <= scopes
    for one in (*result.measurements, *result.controls):
        assert one.ci95[0] <= one.value <= one.ci95[1]
    # A direction that does nothing is itself, and that is all it is.
    assert _value(result, "essence", NO_EDIT) == pytest.approx(1.0)
    assert _value(result, "harmonic_mean", NO_EDIT) == 0.0
    assert _value(result, "magnitude") > 0.8
    assert _value(result, "harmonic_mean") > _value(result, "harmonic_mean", RANDOM)


def test_artifacts_are_a_plot_and_examples(shared: Shared) -> None:
    plot, examples = (shared.ctx.home / one.path for one in shared.result.artifacts)
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")
    shown = json.loads(examples.read_text())
    for example in shown:
        assert example["probabilities"]["new_after"] > example["probabilities"]["new_before"]
        assert set(example["baselines"]) >= {PREFIX, REPLACED, RANDOM}
    # Texts are drawn: what is likely is written most of the time.
    for text, wanted in (("after", "new_object"), ("before", "old_object")):
        named = [one[text].strip().startswith(one[wanted]) for one in shown]
        assert sum(named) >= 0.8 * len(named)


def test_the_process_wide_random_state_is_left_alone(shared: Shared) -> None:
    assert shared.left_random_state_alone


def test_one_edit_of_an_entity_that_training_never_saw(
    planted: Planted, files: dict[str, Path], linear: Relation, context: MakeContext
) -> None:
    ctx = context(planted.subject)
    fact = linear.samples[0]
    new = next(name for name in linear.objects if name != fact.object)
    result = _call(
        ctx, relation=str(files["linear"]), entity=fact.subject.upper(), new_object=new, layer=2
    )
    probability = result.measurements[0]
    assert probability.metric == "new_object_probability"
    assert probability.value > 0.9
    assert probability.baseline < 0.1
    assert probability.n == 3  # The relation's templates.
    output = result.output
    assert (output["entity"], output["old_object"]) == (fact.subject, fact.object)
    assert str(output["before"]).strip().startswith(fact.object)
    assert str(output["after"]).strip().startswith(new)
    [folder] = (ctx.cache / "editors").iterdir()
    split = json.loads((folder / "editor.json").read_text())["inputs"]["split"]
    assert fact.subject in split["test"]
    assert _value(result, "neighbourhood_specificity") >= 0.9
    assert set(json.loads(json.dumps(output["methods"]))) >= {EDITED, NO_EDIT, PREFIX, RANDOM}


def test_as_the_agent_calls_it(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    ctx = context(planted.subject)
    arguments = edit_representation.parse(
        {"relation": str(files["linear"]), "layer": 2, "effort": "quick"}
    )
    experiment = edit_representation.experiment(
        arguments, subject_digest=planted.subject.identity.digest, seed=0
    )
    result = edit_representation.run(ctx, experiment)
    assert result.status == "ok"
    assert ToolResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relation": "no such relation"}, "no such relation"),
        ({"layer": 6}, r"layer 6 is outside 0\.\.5"),
        ({"entity": "Nobody", "new_object": "x"}, "entity 'Nobody' does not occur"),
        ({"entity": "{first}"}, "argument 'new_object' is missing"),
        ({"new_object": "x"}, "argument 'entity' is missing"),
        ({"entity": "{first}", "new_object": "{true}"}, "has already"),
        ({"relation": "{absent}"}, "at least 6 known facts are needed"),
    ],
)
def test_what_is_refused(
    arguments: dict[str, object],
    message: str,
    planted: Planted,
    files: dict[str, Path],
    linear: Relation,
    context: MakeContext,
) -> None:
    fact = linear.samples[0]
    holes = {"{first}": fact.subject, "{true}": fact.object, "{absent}": str(files["absent"])}
    given = {name: holes.get(str(value), value) for name, value in arguments.items()}
    ctx = context(planted.subject)
    with pytest.raises(ToolError, match=message):
        _call(ctx, **{"relation": str(files["linear"]), **given})
    assert not (ctx.cache / "editors").exists()


def test_objects_that_begin_alike_are_refused(
    tiny_subject: LanguageSubject, tmp_path: Path, context: MakeContext
) -> None:
    samples = [{"subject": f"s{index}", "object": f"o {index % 2}"} for index in range(12)]
    path = tmp_path / "alike.json"
    path.write_text(json.dumps({"prompt_templates": ["{} is"], "samples": samples}))
    with pytest.raises(ToolError, match="begin with the same token"):
        _call(context(tiny_subject), relation=str(path), entity="s0", new_object="o 1")
    with pytest.raises(ToolError, match="first tokens of its objects are all the same"):
        _call(context(tiny_subject), relation=str(path))


def test_nothing_is_kept_of_a_training_that_broke_down(
    planted: Planted, files: dict[str, Path], context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(
        subject: LanguageSubject, contexts: Sequence[Context], layers: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        return {
            layer: each * math.nan for layer, each in read_states(subject, contexts, layers).items()
        }

    monkeypatch.setattr(editor, "read_states", poisoned)
    ctx = context(planted.subject)
    with pytest.raises(ToolError, match="not a finite number"):
        _call(ctx, relation=str(files["linear"]), layer=2)
    assert not (ctx.cache / "editors").exists()


def test_a_stop_leaves_nothing_half_done(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    whole = context(planted.subject)
    seen: list[str] = []
    ctx = ToolContext(
        network=planted.subject,
        seed=0,
        home=whole.home,
        artifacts=whole.artifacts,
        cache=whole.cache,
        progress=lambda done, total, text: seen.append(text),
        cancelled=lambda: any("epoch 2" in text for text in seen),
    )
    with pytest.raises(Interrupted):
        _call(ctx, relation=str(files["linear"]), layer=2)
    assert not (ctx.cache / "editors").exists()
    assert not ctx.artifacts.exists()
    assert all("forward" not in vars(block) for block in planted.subject.blocks)


def test_a_sweep_finds_the_layers_where_the_fact_is_stored(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    ctx = context(planted.subject)
    last = planted.subject.n_layers - 1
    arguments: JsonObject = {
        "relation": str(files["linear"]),
        "layers": [2, last],
        "strengths": [0.5, 1.0],
    }
    result = sweep_edit_layer.function(ctx, **sweep_edit_layer.parse(arguments))
    assert result.output["layer"] == 2
    sweep = json.loads((ctx.home / result.artifacts[1].path).read_text())
    assert [row["layer"] for row in sweep] == [2, last]
    assert [trial["strength"] for trial in sweep[0]["editor"]] == [1.0, 0.5]
    scores = [max(trial["score"] for trial in row["editor"]) for row in sweep]
    # Above the last block nothing reads the entity any more.
    assert scores[0] > 0.5 > scores[1]
    assert ElementTree.fromstring((ctx.home / result.artifacts[0].path).read_text()) is not None
    assert result.measurements[0].value > 0.9


def test_a_sweep_over_a_layer_that_is_not_there(
    planted: Planted, files: dict[str, Path], context: MakeContext
) -> None:
    arguments: JsonObject = {"relation": str(files["linear"]), "layers": [2, 41]}
    with pytest.raises(ToolError, match=r"layer 41 is outside 0\.\.5"):
        sweep_edit_layer.function(context(planted.subject), **sweep_edit_layer.parse(arguments))
