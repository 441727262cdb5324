"""Planning without a chat model: what the words of a question decide."""

import json
from pathlib import Path

import pytest

from dragoman.agent.relation_words import named_fact, rank_relations
from dragoman.agent.router import fill, route
from dragoman.agent.slots import GROUPS, Scene
from dragoman.agent.templates import TEMPLATES
from dragoman.core.records import SubjectIdentity
from dragoman.tools.catalogue import TOOLS
from dragoman.tools.relations import list_relations


def make_scene(relations: tuple[str, ...] | None = None) -> Scene:
    subject = SubjectIdentity(
        name="tiny",
        digest="0" * 64,
        architecture="LlamaForCausalLM",
        n_layers=4,
        d_model=8,
        d_mlp=16,
        d_vocab=100,
        n_parameters=1000,
    )
    return Scene(subject, relations or list_relations(), 0, "quick", GROUPS)


def first(question: str) -> tuple[str, dict[str, object]]:
    choice = route(question, make_scene(), TEMPLATES)[0]
    return choice.template.name, dict(choice.slots)


@pytest.mark.parametrize(
    ("question", "template", "slots"),
    [
        ("Does it know what class an animal is?", "knows_relation", {"relation": "animal_class"}),
        (
            "Is the demonym of a country decoded linearly at layer 2?",
            "decodes_linearly",
            {"relation": "country_demonym", "layer": 2},
        ),
        (
            "Is the adverb of an adjective one affine map away?",
            "decodes_linearly",
            {"relation": "adj_adverb", "layer": None},
        ),
        (
            "Can the sentiment of a word be edited?",
            "edit_generalises",
            {"relation": "word_sentiment"},
        ),
        (
            "Make it believe that iron is a gas.",
            "single_edit_holds",
            {"relation": "substance_phase", "entity": "iron", "new_object": "gas"},
        ),
        ("What are neurons 1, 2 and 3 of block 0 for?", "unit_responds", {"neurons": [1, 2, 3]}),
        ("What is neuron 3.7?", "unit_responds", {"layer": 3, "neurons": [7]}),
        (
            "Is a lawyer rather a man or a woman to it?",
            "groups_treated_alike",
            {"groups": "men and women", "occupation": "lawyer"},
        ),
        (
            "Is neuron 3 of layer 2 needed to give an animal its class?",
            "units_needed",
            {"layer": 2, "neurons": [3], "relation": "animal_class"},
        ),
        (
            "What happens if I remove neurons 3 and 5 of layer 2?",
            "units_needed",
            {"layer": 2, "neurons": [3, 5], "relation": None},
        ),
        ("Which neurons respond to months?", "units_for_concept", {"concept": "months"}),
        ("Where in the network is the capital of a country decided?", "decided_where", {}),
        (
            "Told that iron is a gas, does it still hold that it is a solid?",
            "holds_truth_unsaid",
            {"relation": "substance_phase"},
        ),
        (
            "Do the plural of a noun and the past tense of a verb share a subspace?",
            "relations_share_directions",
            {"relations": ["verb_past_tense", "noun_plural"]},
        ),
        (
            "Can its mistakes about the currency of a country be foreseen?",
            "errors_foreseen",
            {"relation": "country_currency"},
        ),
        (
            "Can facts about the currency of a country be changed through the inverse of its map?",
            "edit_through_map",
            {"relation": "country_currency"},
        ),
        ("Are dancers female to it?", "groups_treated_alike", {"groups": "women and men"}),
        (
            "Does “Roses are red, violets are” go on with “blue”?",
            "predicts_answer",
            {"prompt": "Roses are red, violets are", "answer": "blue"},
        ),
        (
            "How does 'The dog's name is' go on?",
            "one_word_follows",
            {"prompt": "The dog's name is"},
        ),
    ],
)
def test_a_question_is_routed_by_its_words(
    question: str, template: str, slots: dict[str, object]
) -> None:
    name, filled = first(question)
    assert name == template
    assert {key: filled[key] for key in slots} == slots


def test_what_is_true_already_is_no_edit() -> None:
    assert first("Make sure that it says that iron is a solid.")[0] != "single_edit_holds"
    assert fill("single_edit_holds", "Make iron a solid.", make_scene()) is None


def test_the_new_object_is_the_last_one_named() -> None:
    fact = named_fact("Move France's capital from Paris to Rome.", ["country_capital"])
    assert fact == ("country_capital", "France", "Rome", False)


def test_a_question_without_any_word_of_ours_gets_a_first_look() -> None:
    names = [choice.template.name for choice in route("Hm?", make_scene(), TEMPLATES)]
    assert names == ["knows_relation", "decodes_linearly"]


def test_an_unclear_word_earns_no_second_test() -> None:
    question = "Does it know the right answer, in whatever layer?"
    choices = route(question, make_scene(), TEMPLATES)
    assert [choice.template.name for choice in choices] == ["knows_relation"]


def test_only_allowed_templates_are_chosen() -> None:
    allowed = {"predicts_answer": TEMPLATES["predicts_answer"]}
    assert route("Does it know capitals?", make_scene(), allowed) == []


def test_numbers_outside_the_subject_are_brought_inside() -> None:
    slots = fill("unit_responds", "neurons 3, 99 and 3 of layer 77", make_scene())
    assert slots == {"layer": 3, "neurons": [3]}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_filled_with_slots_and_arguments_that_its_tool_takes(name: str) -> None:
    question = "Make it believe that iron is a gas: neuron 3 of layer 1, women, 'Iron is a'" + (
        " 'gas'" if name == "predicts_answer" else ""
    )
    if name == "units_for_concept":  # looks for neurons, so that none may be named
        question = "Which neurons fire for months?"
    if name == "relations_share_directions":
        question = "Do noun_plural and verb_past_tense share directions?"
    scene, template = make_scene(), TEMPLATES[name]
    slots = fill(name, question, scene)
    assert slots is not None
    template.slots(scene).model_validate_json(json.dumps(slots))
    TOOLS[template.tool].parse(template.arguments(slots, scene))


def test_rare_words_decide_between_relations() -> None:
    ranked = rank_relations("To which country does the food belong?", list_relations())
    assert ranked[0] == "food_country"


def test_named_entities_point_at_their_relation() -> None:
    assert rank_relations("Where does Roger Federer fit in?", list_relations())[0] in {
        "athlete_sport"
    }


def test_a_persons_file_is_matched_by_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "rivers.json"
    samples = [{"subject": f"River{i}", "object": f"sea{i % 3}"} for i in range(12)]
    path.write_text(
        json.dumps({"name": "rivers", "prompt_templates": ["{} flows to"], "samples": samples})
    )
    names = (*list_relations(), str(path))
    assert rank_relations("Where does it think that River3 flows to?", names)[0] == str(path)


def test_a_file_that_is_no_relation_is_left_to_the_tool(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("[]")
    assert rank_relations("anything", [str(path)]) == [str(path)]
