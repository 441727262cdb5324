"""Edit records: who is held out, what is swapped, where the entity stands."""

import pytest

from dragoman.core.errors import ToolError
from dragoman.tools.editing.records import N_FOLDS, ask, split_facts, state, swap_objects
from dragoman.tools.relations import Sample


def _facts(count: int, prefix: str = "e") -> list[Sample]:
    return [Sample(subject=f"{prefix}{index}", object=f"o{index % 3}") for index in range(count)]


@pytest.mark.parametrize("count", [6, 7, 24, 67])
@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_no_entity_stands_in_two_parts_and_none_is_lost(count: int, fold: int) -> None:
    known, unknown = _facts(count), _facts(5, "u")
    split = split_facts(known, unknown, 3, fold)
    parts = [{fact.subject for fact in part} for part in split]
    assert all(part for part in parts)
    assert sum(map(len, parts)) == count + 5
    assert set().union(*parts) == {fact.subject for fact in (*known, *unknown)}


def test_every_entity_is_tested_in_one_fold_at_least() -> None:
    known, unknown = _facts(13), _facts(4, "u")
    tested = {
        fact.subject
        for fold in range(N_FOLDS)
        for part in split_facts(known, unknown, 0, fold)[2:]
        for fact in part
    }
    assert tested == {fact.subject for fact in (*known, *unknown)}


def test_the_seed_decides_the_split() -> None:
    known = _facts(24)
    assert split_facts(known, [], 1) == split_facts(known, [], 1)
    assert split_facts(known, [], 1) != split_facts(known, [], 2)


def test_too_few_known_facts_are_refused() -> None:
    with pytest.raises(ToolError, match=r"knows 5 of the 45 facts; at least 6"):
        split_facts(_facts(5), _facts(40, "u"), 0)


def test_objects_with_the_same_first_token_are_never_swapped() -> None:
    facts = [Sample(subject="a", object="New York"), Sample(subject="b", object="Paris")]
    tokens = {"New York": 1, "New Delhi": 1, "Paris": 2}
    records = swap_objects(facts, tuple(tokens), tokens, 0)
    assert {(one.entity, one.new_object) for one in records} == {
        ("a", "Paris"),
        ("b", "New York"),
        ("b", "New Delhi"),
    }


def test_objects_take_turns_and_limits_hold() -> None:
    facts = _facts(9)
    objects = [f"o{index}" for index in range(3)]
    tokens = {name: index for index, name in enumerate(objects)}
    assert len(swap_objects(facts, objects, tokens, 0, limit=5)) == 5
    records = swap_objects(facts, objects, tokens, 0, per_entity=1)
    assert len({one.entity for one in records}) == len(records) == 9
    counts = [sum(one.new_object == name for one in records) for name in objects]
    assert max(counts) - min(counts) <= 2
    assert all(one.new_object != one.old_object for one in records)


def test_positions_of_entity_and_attribute() -> None:
    prompt = ask("The capital of {} is", "France", before="A capital joke. ")
    assert prompt.text == "A capital joke. The capital of France is"
    assert prompt.text[: prompt.entity_end].endswith("of France")
    context = state("{} is governed from", "France", "New York")
    assert context.text == "France is governed from New York"
    assert context.text[context.start : context.end] == "New York"
