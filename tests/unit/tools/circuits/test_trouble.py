"""Relations that are awkward in the ways in which real ones are."""

import json

import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import deal, relation_prompt, round_robin
from dragoman.tools.circuits.study import PLANS, candidate_layers, gather_facts
from dragoman.tools.circuits.trial import Trial, run_trial
from dragoman.tools.circuits.trial_record import record
from dragoman.tools.circuits.verdicts import judge
from dragoman.tools.relations import Sample, load_relation

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]
NAMES = ("Ab", "Bo", "Cu", "Da", "Ef", "Fi", "Gu", "Ho", "Ig", "Jo", "Ku", "La", "Mo", "Na", "Op")


def _entity_of_a_whole_pass(subject, prompt, layer):
    """h where the asked entity's last character is, found by characters in a pass without cache."""
    ids = subject.token_ids(prompt.text)
    offsets = subject.tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
    start = len(ids) - len(offsets)
    covering = [
        start + place
        for place, (left, right) in enumerate(offsets)
        if left < prompt.subject_end <= right
    ]
    site = Site(layer=layer)
    with torch.no_grad():
        taken = subject.activations(subject.batch([prompt.text]), [site])
    return taken[site][0, covering[-1]]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{} is", "Japan"),  # opens the line, and stands in an example already
        ("{}", "Peru"),  # is the prompt's last token
        ("The capital of {} is", "is"),  # occurs again after itself
        ("The capital of {} is", "capital of the capital"),  # occurs before itself, in parts
        ("The capital of {}'s dog is", "Dog"),  # text joins it without a space
        ("A ({}) is", "Japan"),  # other tokens than after a space
    ],
)
def test_h_is_read_at_the_asked_entitys_own_last_token(any_tiny, template, name):
    subject = any_tiny
    prompt = relation_prompt(template, EXAMPLES, name)
    others = [relation_prompt(template, EXAMPLES, each) for each in ("Dogland", "I")]
    readout = SharedPrompts(subject, [prompt, *others]).read()
    for layer in range(subject.n_layers):
        expected = _entity_of_a_whole_pass(subject, prompt, layer)
        torch.testing.assert_close(readout.entity[layer, 0], expected, atol=1e-4, rtol=1e-4)


def test_an_entity_that_is_the_very_first_token_is_read_and_edited(make_tiny):
    subject = make_tiny("llama")
    subject.document_start = None
    prompts = [relation_prompt("{} is", [], each) for each in ("France", "Japan")]
    shared = SharedPrompts(subject, prompts)
    assert shared.n_shared == 0
    readout = shared.read(keep=True)
    expected = _entity_of_a_whole_pass(subject, prompts[0], 1)
    torch.testing.assert_close(readout.entity[1, 0], expected, atol=1e-4, rtol=1e-4)
    still = shared.read_shifted([0, 1], 1, torch.zeros(2, 32))
    torch.testing.assert_close(still, readout.final, atol=1e-5, rtol=1e-5)


def test_a_shifted_pass_that_starts_at_its_layer_ends_as_a_whole_one_does(any_tiny):
    subject = any_tiny
    prompts = [
        relation_prompt("The capital of {} is", EXAMPLES, each)
        for each in ("Peru", "the Dogland of animals", "I")
    ]
    whole, short = SharedPrompts(subject, prompts), SharedPrompts(subject, prompts)
    short.read(keep=True)
    shifts = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    for layer in range(subject.n_layers):
        expected = whole.read_shifted([2, 0, 1, 0], layer, shifts)
        found = short.read_shifted([2, 0, 1, 0], layer, shifts)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all("forward" not in block.__dict__ for block in subject.blocks)


def _file(folder, samples, **more):
    path = folder / "relation.json"
    document = {"name": "awkward", "prompt_templates": ["{} is"], "samples": samples, **more}
    path.write_text(json.dumps(document))
    return str(path)


def _facts(pairs):
    return [{"subject": subject, "object": target} for subject, target in pairs]


def test_duplicates_further_objects_and_escapes_are_put_right_before_the_split(
    tiny_subject, tmp_path
):
    pairs = [(name, "xy"[i % 2]) for i, name in enumerate(NAMES)]
    pairs += [("Ab", "x"), ("bo", "z"), ("Bras\\u00edlia", "Am\\u00e9rica")]
    relation = load_relation(_file(tmp_path, _facts(pairs)))
    assert any("repeats samples[0]" in note for note in relation.notes)
    assert any("further object 'z'" in note for note in relation.notes)
    facts = gather_facts(tiny_subject, relation, PLANS["quick"], 0)
    everyone = [*facts.estimation, *facts.samples]
    assert sorted(each.subject for each in everyone) == sorted([*NAMES, "Brasília"])
    assert {each.object for each in everyone if each.subject == "Brasília"} == {"América"}


def test_objects_that_begin_alike_are_counted(tiny_subject, tmp_path):
    towns = ("New York", "New Delhi", "Paris")
    pairs = [(name, towns[i % 3]) for i, name in enumerate(NAMES)]
    relation = load_relation(_file(tmp_path, _facts(pairs)))
    facts = gather_facts(tiny_subject, relation, PLANS["quick"], 0)
    counted = record(Trial(0, facts))
    first = {tiny_subject.first_token(each) for each in towns}
    assert counted.n_objects == 3
    assert counted.n_sharing == (2 if len(first) == 2 else 0)
    assert tiny_subject.first_token("New York") == tiny_subject.first_token("New Delhi")


def test_a_relation_of_one_object_is_refused_with_the_reason(tmp_path):
    path = _file(tmp_path, _facts([(name, "x") for name in NAMES]))
    with pytest.raises(ToolError, match="at least 2 different objects are needed"):
        load_relation(path)


def test_one_object_among_the_known_facts_judges_nothing(tiny_subject, tmp_path):
    pairs = [(name, "x" if i < 13 else "y") for i, name in enumerate(NAMES)]
    relation = load_relation(_file(tmp_path, _facts(pairs)))
    facts = gather_facts(tiny_subject, relation, PLANS["quick"], 0)
    known = [each.object == "x" for each in facts.samples]
    held = deal(facts.samples, known, 0.4, 0)
    sure = facts._replace(known=known, validation=held.validation, test=held.test)
    assert not sure.judgeable
    assert sure.lacking.startswith("all ")
    assert "known test facts have the object 'x'" in sure.lacking


def test_objects_that_all_begin_alike_judge_nothing(tiny_subject, tmp_path):
    pairs = [(name, ("New York", "New Delhi", "New Jersey")[i % 3]) for i, name in enumerate(NAMES)]
    relation = load_relation(_file(tmp_path, _facts(pairs)))
    facts = gather_facts(tiny_subject, relation, PLANS["quick"], 0)
    known = [True] * len(facts.samples)
    held = deal(facts.samples, known, 0.4, 0)
    sure = facts._replace(known=known, validation=held.validation, test=held.test)
    assert "known test facts begin with the same token" in sure.lacking


def test_the_last_layer_is_refused_wherever_a_map_is_asked_for(tiny_subject):
    last = tiny_subject.n_layers - 1
    assert candidate_layers(tiny_subject, None)[-1] == last - 1
    assert candidate_layers(tiny_subject, 0) == [0]
    with pytest.raises(ToolError, match=f"layer {last} is the last: nothing moves"):
        candidate_layers(tiny_subject, last)
    with pytest.raises(ToolError, match="outside"):
        candidate_layers(tiny_subject, last + 1)


def test_too_few_known_facts_give_the_n_and_the_reason_and_no_number(tiny_subject, tmp_path):
    pairs = [(name, f"unheard-of {i}") for i, name in enumerate(NAMES)]
    relation = load_relation(_file(tmp_path, _facts(pairs)))
    trial = run_trial(tiny_subject, relation, PLANS["quick"], 0, lambda done, total, text: None)
    counted = record(trial)
    assert counted.named is None
    assert counted.succeeded is None
    assert counted.lacking.startswith("0 known of ")
    assert "at least 5 and 3 are needed" in counted.lacking
    verdict = judge([counted])
    assert verdict.label == "not known"
    assert "0.00 of 15 facts known" in verdict.reason


def test_the_split_is_balanced_over_objects_at_every_step():
    samples = [Sample(subject=f"s{i}", object="aaaabbc"[i % 7]) for i in range(70)]
    ordered = round_robin(samples, 1)
    assert {each.object for each in ordered[:3]} == {"a", "b", "c"}
    held = deal(ordered, [True] * 70, 0.4, 1)
    for target in "abc":
        total = sum(each.object == target for each in ordered)
        share = sum(ordered[place].object == target for place in held.validation)
        assert abs(share - 0.4 * total) <= 1
