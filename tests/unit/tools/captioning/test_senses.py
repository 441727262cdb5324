"""Senses are told apart wherever the alternatives stand in a caption."""

import pytest

from dragoman.tools.captioning.predicates import Ends, Starts, Topic, Word, both, either, without
from dragoman.tools.captioning.senses import by_disjuncts

HONEY, OMELETTE, UN, FOOD = (
    Word(word="honey"),
    Word(word="omelette"),
    Starts(letters="un"),
    Topic(name="food and drink"),
)


@pytest.mark.parametrize(
    "predicate",
    [
        either(either(HONEY, UN), OMELETTE),
        # An alternative that stands inside of what an exception is made from.
        either(without(either(HONEY, UN), Ends(letters="zzz")), OMELETTE),
        without(either(either(HONEY, OMELETTE), UN), Ends(letters="zzz")),
    ],
    ids=["flat", "inside of an alternative", "inside of the whole"],
)
def test_alternatives_are_found_inside_of_exceptions(planted, predicate):
    assert set(by_disjuncts(predicate, None, [planted])) == {either(HONEY, OMELETTE), UN}


def test_an_exception_that_makes_a_difference_stays(planted):
    excepted = without(either(Word(word="copper"), UN), Word(word="copper"))
    left = by_disjuncts(excepted, None, [planted])
    assert without(Word(word="copper"), Word(word="copper")) in left
    assert UN in left


def test_what_has_no_alternatives_is_one_sense(planted):
    one = both(FOOD, UN)
    assert by_disjuncts(one, None, [planted]) == (one,)
    assert by_disjuncts(without(FOOD, either(UN, HONEY)), None, [planted]) == (
        without(FOOD, either(UN, HONEY)),
    )
