"""Which tokens a caption names, and which sets of words have nothing to do with them."""

import numpy as np
import pytest

from dragoman.tools.captioning.predicates import Kind, Not, Predicate, Topic, Word, either, holds
from dragoman.tools.captioning.vocabulary import topics
from dragoman.tools.captioning.word_sets import (
    named_tokens,
    unrelated_sets,
    vocabulary_table,
    word_sets,
)
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted import plant


@pytest.fixture(scope="module")
def subject():
    return plant(0).subject


@pytest.fixture(scope="module")
def context(subject, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return ToolContext(subject, 0, home, home, home)


def _texts(subject, chosen):
    return {subject.token_text(int(token)).strip() for token in np.flatnonzero(chosen)}


def test_named_tokens_are_those_of_which_the_predicate_holds(subject):
    months = [word.capitalize() for word in topics()["months"]]
    predicate: Predicate = Word(word=months[0].casefold())
    for month in months[1:]:
        predicate = either(predicate, Word(word=month.casefold()))
    assert _texts(subject, named_tokens(subject, predicate)) == {*months, "may"}
    assert named_tokens(subject, None) is None
    assert named_tokens(subject, Not(of=Word(word="nonesuch"))) is None
    assert named_tokens(subject, Word(word="nonesuch")) is None
    assert not vocabulary_table(subject).columns


def test_word_sets_are_those_that_name_something(context, subject):
    sets = word_sets(context)
    assert word_sets(context) is sets
    assert sets.shape[1] == subject.d_vocab
    sizes = sets.sum(axis=1)
    assert sizes.min() >= 1
    assert sizes.max() <= subject.d_vocab / 10
    for predicate in (Topic(name="months"), Kind(name="articles")):
        named = named_tokens(subject, predicate)
        assert (sets == named).all(axis=1).sum() == 1


def test_who_names_too_many_tokens_names_none_in_particular(subject):
    capitals = Kind(name="capitalised words")
    share = holds(capitals, vocabulary_table(subject)).mean()
    assert share > 0.1
    assert named_tokens(subject, capitals) is None


def test_no_set_stands_twice(context):
    sets = word_sets(context)
    assert len({each.tobytes() for each in sets}) == len(sets)


def test_related_sets_are_left_out(context, subject):
    sets, months = word_sets(context), named_tokens(subject, Topic(name="months"))
    assert months is not None
    others = unrelated_sets(context, months)
    assert 60 < len(others) < len(sets)
    for other in others:
        common = int((other & months).sum())
        assert common <= 0.1 * months.sum()
        assert common <= 0.1 * other.sum()
    colours = named_tokens(subject, Topic(name="colours"))
    assert any((other == colours).all() for other in others)


def test_the_vocabulary_is_read_token_by_token(tiny_subject):
    table = vocabulary_table(tiny_subject)
    capital = table.document[table.written == "capital"]
    assert all("capital" in tiny_subject.token_text(int(token)) for token in capital)
    assert vocabulary_table(tiny_subject) is table
