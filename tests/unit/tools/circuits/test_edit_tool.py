"""Edits through the inverse: on planted truth, beside REMEDI, and where arguments are wrong."""

import pytest
import torch

from dragoman.tools.circuits.edit_tool import REMEDI, SWAPPED, edit_through_relation
from dragoman.tools.circuits.inverse_editing import Held, changes, choose_donors, swaps
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.records import EditRecord
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.planted import plant


def run_tool(subject, folder, arguments):
    experiment = edit_through_relation.experiment(
        edit_through_relation.parse({"effort": "quick", **arguments}),
        subject_digest=subject.identity.digest,
        seed=0,
    )
    context = ToolContext(
        network=subject,
        seed=0,
        home=folder,
        artifacts=folder / "artifacts" / "one",
        cache=folder / "cache",
    )
    return edit_through_relation.run(context, experiment)


@pytest.fixture(scope="module")
def planted():
    return plant()


@pytest.fixture(scope="module")
def linear(planted, tmp_path_factory):
    return str(planted.write_relations(tmp_path_factory.mktemp("planted"))["linear"])


def test_the_planted_relation_is_edited_and_neighbours_are_spared(planted, linear, tmp_path):
    result = run_tool(planted.subject, tmp_path, {"relation": linear, "with_remedi": True})
    assert result.status == "ok", result.error
    assert result.output["layer"] in planted.truth.linear_layers
    efficacy = result.measurement("efficacy")
    assert efficacy.value == 1.0
    assert efficacy.baseline == 0.0
    assert result.measurement("neighbourhood_specificity", "").value == 1.0
    assert result.measurement("paraphrase_efficacy").value == 1.0
    assert result.measurement("fluency").unit == "bit"
    others = {each.scope: each.value for each in result.controls if each.metric == "efficacy"}
    assert others[SWAPPED] == 1.0
    assert REMEDI in others
    assert others["no edit"] == 0.0
    assert {each.name for each in result.artifacts} == {"methods.svg", "examples.json"}
    estimation = {subject for subject, _ in result.output["estimation"]}
    assert not estimation & {each["entity"] for each in result.output["examples"]}


def test_nothing_is_edited_in_the_twin_that_knows_the_same_facts(planted, linear, tmp_path):
    result = run_tool(planted.twin, tmp_path, {"relation": linear})
    assert result.measurement("efficacy").value == 0.0
    assert result.measurement("new_object_probability").value < 0.05


def test_one_entity_gets_another_object(planted, linear, tmp_path):
    fact = planted.truth.linear.samples[7]
    wanted = next(o for o in planted.truth.linear.objects if o != fact.object)
    result = run_tool(
        planted.subject,
        tmp_path,
        {"relation": linear, "entity": fact.subject.upper(), "new_object": wanted.lower()},
    )
    assert result.status == "ok", result.error
    probability = result.measurement("new_object_probability")
    assert probability.value > 0.9 > 0.1 > probability.baseline
    example = result.output["examples"][0]
    assert (example["entity"], example["new_object"]) == (fact.subject, wanted)
    assert example["after"].split()[0] == wanted
    assert [fact.subject, fact.object] not in result.output["estimation"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"entity": "Nobody", "new_object": "x"}, "entity 'Nobody' does not occur"),
        ({"entity": "Nobody"}, "argument 'new_object' is missing"),
        ({"relation": "country_capitol"}, "did you mean 'country_capital'"),
    ],
)
def test_bad_arguments_are_named(planted, linear, tmp_path, given, told):
    result = run_tool(planted.subject, tmp_path, {"relation": linear, **given})
    assert result.status == "error"
    assert told in result.error


def test_an_object_outside_the_range_is_refused_with_the_range(planted, linear, tmp_path):
    fact = planted.truth.linear.samples[0]
    told = run_tool(
        planted.subject,
        tmp_path,
        {"relation": linear, "entity": fact.subject, "new_object": "Atlantis"},
    ).error
    assert "new_object 'Atlantis' is no object of the relation" in told
    assert repr(planted.truth.linear.objects[0]) in told
    told = run_tool(
        planted.subject,
        tmp_path,
        {"relation": linear, "entity": fact.subject, "new_object": fact.object},
    ).error
    assert "begin with the same token" in told


def test_donors_have_the_new_object_and_are_known_where_possible():
    facts = tuple(
        Sample(subject=name, object=thing) for name, thing in zip("abcd", "xyyz", strict=True)
    )
    held = Held(facts, torch.arange(8.0).view(1, 4, 2), torch.eye(4), [True, False, True, False])
    records = [
        EditRecord(entity="a", old_object="x", new_object="y"),
        EditRecord(entity="c", old_object="y", new_object="z"),
    ]
    donors = choose_donors(held, records, 0)
    assert donors == [2, 3]
    assert torch.equal(changes(held, records, donors), held.final[[2, 3]] - held.final[[0, 2]])
    assert torch.equal(swaps(held, records, donors, 0), torch.tensor([[4.0, 4.0], [2.0, 2.0]]))
