import pytest

from dragoman.tools.captioning.predicates import (
    After,
    Before,
    Kind,
    Near,
    Piece,
    Topic,
    Word,
    both,
    either,
    phrase,
    without,
)
from dragoman.tools.captioning.reading import read


@pytest.mark.parametrize(
    ("caption", "predicate"),
    [
        ('the word "Gold"', Word(word="gold")),
        ('the words "gold" or "silver"', either(Word(word="gold"), Word(word="silver"))),
        ("the word 'gold' in prices", Word(word="gold")),
        ('the sign "%"', Piece(piece="%")),
        ('words ending in "ing"', Kind(name='words ending in "-ing"')),
        ('words that start with "un-"', Kind(name='words beginning with "un-"')),
        ("Numbers and years", either(Kind(name="numbers"), Kind(name="years"))),
        ("commas", Kind(name="commas")),
        ("tokens right after commas", After(of=Kind(name="commas"))),
        ("tokens right before commas", Before(of=Kind(name="commas"))),
        ('what is followed by "of"', Before(of=Word(word="of"))),
        ("names of months", Topic(name="months")),
        ("words related to cooking", Topic(name="food and drink")),
        ("texts about war", Near(topic="war and weapons")),
        ("words in the past tense", Kind(name='words ending in "-ed"')),
    ],
)
def test_what_a_caption_says_is_read(caption, predicate):
    assert read(caption) == predicate


@pytest.mark.parametrize("place", ["first words of a sentence", "first words of a line"])
def test_a_place_that_a_caption_adds_is_no_class_of_its_own(place):
    # Places are said by a qualifier, which is left unread: not as an alternative, nor denied.
    for make in (both, without):
        assert read(phrase(make(Kind(name="digits"), Kind(name=place)))) == Kind(name="digits")


@pytest.mark.parametrize("caption", ["mysterious vibes", "they have the same thing", "???", ""])
def test_a_caption_that_says_nothing_checkable_is_not_read(caption):
    assert read(caption) is None
