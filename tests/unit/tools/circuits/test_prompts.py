"""Leave-one-out prompts, and a split that is balanced and disjoint."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.tools.circuits.prompts import deal, leave_one_out, relation_prompt, round_robin
from dragoman.tools.relations import Sample


def _sample(subject, target):
    return Sample(subject=subject, object=target)


SAMPLES = [_sample(f"s{i}", "abcd"[i % 4]) for i in range(20)]


def test_a_fact_never_stands_in_its_own_prompt():
    prompts = leave_one_out("The size of {} is", SAMPLES[:4])
    assert prompts[1].text == (
        "The size of s0 is a\nThe size of s2 is c\nThe size of s3 is d\nThe size of s1 is"
    )


@pytest.mark.parametrize(
    ("template", "subject"), [("The past tense of {} is", "is"), ("{} is an is", "a"), ("{}", "x")]
)
def test_subject_end_marks_the_subject_that_is_asked(template, subject):
    prompt = relation_prompt(template, SAMPLES[:2], subject)
    before = template.partition("{}")[0]
    line = prompt.text.rindex("\n") + 1
    assert prompt.subject_end == line + len(before) + len(subject)
    assert prompt.text[: prompt.subject_end].endswith(before + subject)


def test_braces_in_a_subject_are_only_text():
    prompt = relation_prompt("{} is", [_sample("{}", "{x}")], "{0}")
    assert prompt.text == "{} is {x}\n{0} is"


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60), st.integers(0, 5))
def test_round_robin_keeps_every_fact_and_covers_objects_first(objects, seed):
    samples = [_sample(f"s{i}", each) for i, each in enumerate(objects)]
    ordered = round_robin(samples, seed)
    assert sorted(each.subject for each in ordered) == sorted(each.subject for each in samples)
    distinct = len(set(objects))
    assert len({each.object for each in ordered[:distinct]}) == distinct
    assert round_robin(samples, seed) == ordered


def test_another_seed_gives_another_order():
    assert round_robin(SAMPLES, 0) != round_robin(SAMPLES, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(0, 5))
def test_deal_is_disjoint_complete_and_balanced(facts, seed):
    samples = [_sample(f"s{i}", each) for i, (each, _) in enumerate(facts)]
    known = [each for _, each in facts]
    held = deal(samples, known, 0.4, seed)
    assert sorted([*held.validation, *held.test]) == list(range(len(samples)))
    for flag in (True, False):
        total = known.count(flag)
        share = sum(known[i] is flag for i in held.validation)
        assert abs(share - 0.4 * total) <= 1


def test_deal_gives_each_object_its_share_of_both_parts():
    samples = [_sample(f"s{i}", "xyz"[i % 3]) for i in range(60)]
    held = deal(samples, [True] * 60, 0.4, seed=3)
    counts = Counter(samples[i].object for i in held.validation)
    assert set(counts.values()) == {8}
