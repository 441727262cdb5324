import numpy as np
import pytest

from dragoman.tools.captioning.predicates import (
    PREDICATE,
    After,
    Before,
    Kind,
    Near,
    Piece,
    Topic,
    Word,
    both,
    either,
    holds,
    phrase,
)
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.vocabulary import classes

TEXT = 'In May 1987 the old man said, "Bread (and cheese) is GOOD." He walked.\nThen bread'


@pytest.fixture(scope="module")
def table(word_tokenizer):
    return token_table([TEXT, "Walked home."], word_tokenizer)


def _tokens(predicate, table):
    return [str(token) for token in table.piece[holds(predicate, table)]]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (Word(word="bread"), ["Bread", "bread"]),
        (Piece(piece="bread"), ["bread"]),
        (Topic(name="months"), ["May"]),
        (Topic(name="food and drink"), ["Bread", "cheese", "bread"]),
        (Kind(name="years"), ["1987"]),
        (Kind(name="numbers"), ["1987"]),
        (Kind(name="words in capital letters"), ["GOOD"]),
        (Kind(name="capitalised words inside a sentence"), ["May", "Bread", "GOOD"]),
        (Kind(name='words ending in "-ed"'), ["walked", "Walked"]),
        (Kind(name="articles"), ["the"]),
        (Kind(name="commas"), [","]),
        (Kind(name="words inside brackets"), ["and", "cheese"]),
        (Kind(name="first words of a line"), ["In", "Then", "Walked"]),
        (Kind(name="first words of a sentence"), ["In", "He", "Then", "Walked"]),
        (Kind(name="the first token of the text"), ["In", "Walked"]),
        (Kind(name="words that occurred before in the text"), ["bread"]),
        (After(of=Word(word="the")), ["old"]),
        (Before(of=Word(word="man")), ["old"]),
        (both(Word(word="bread"), Kind(name="capitalised words")), ["Bread"]),
        (either(Topic(name="months"), Kind(name="articles")), ["May", "the"]),
    ],
)
def test_a_predicate_holds_at_the_tokens_it_speaks_of(predicate, expected, table):
    found = _tokens(predicate, table)
    if predicate == Kind(name="words inside brackets"):
        found = [token for token in found if token.isalpha()]
    assert found == expected


def test_quotes_open_and_close(table):
    inside = _tokens(Kind(name="words inside quotation marks"), table)
    assert "Bread" in inside
    assert "GOOD" in inside
    assert "walked" not in inside
    assert "said" not in inside


def test_near_looks_back_a_little_and_never_into_another_document(word_tokenizer):
    table = token_table(["cheese " + "the " * 30, "the the"], word_tokenizer)
    near = holds(Near(topic="food and drink"), table)
    assert near[:17].all()
    assert not near[17:].any()


def test_nothing_precedes_the_first_token_of_a_document(word_tokenizer):
    table = token_table(["cheese the", "the the"], word_tokenizer)
    assert holds(After(of=Word(word="cheese")), table).tolist() == [False, True, False, False]


def test_nothing_follows_the_last_token_of_a_document(word_tokenizer):
    table = token_table(["the cheese", "cheese the"], word_tokenizer)
    assert holds(Before(of=Word(word="cheese")), table).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (
            either(Word(word="a"), either(Word(word="c"), Word(word="b"))),
            'the words "a", "b" or "c"',
        ),
        (
            both(Kind(name="capitalised words"), After(of=Word(word="of"))),
            'capitalised words right after the word "of"',
        ),
        (
            both(Topic(name="months"), Kind(name="first words of a sentence")),
            "words about months opening a sentence",
        ),
        (
            either(After(of=Word(word="in")), After(of=Word(word="of"))),
            'tokens right after the words "in" or "of"',
        ),
        (
            either(Word(word="a"), either(Before(of=Word(word="x")), Before(of=Word(word="y")))),
            'the word "a" or tokens right before the words "x" or "y"',
        ),
        (
            both(Kind(name="numbers"), Near(topic="money and business")),
            "numbers in text about money and business",
        ),
    ],
)
def test_predicates_are_put_into_words(predicate, words):
    assert phrase(predicate) == words


def test_compositions_do_not_depend_on_the_order_of_their_parts():
    one, two, three = Word(word="x"), Kind(name="commas"), Topic(name="months")
    assert either(one, either(two, three)) == either(either(three, one), two)
    assert both(one, one) == one


def test_a_predicate_survives_json():
    predicate = either(both(Word(word="x"), Near(topic="months")), After(of=Piece(piece="\u00e9")))
    assert PREDICATE.validate_json(PREDICATE.dump_json(predicate)) == predicate


def test_every_class_can_be_evaluated_on_every_table(table):
    for name in classes():
        assert holds(Kind(name=name), table).shape == (table.n,)
        assert holds(Kind(name=name), table).dtype == np.bool_
