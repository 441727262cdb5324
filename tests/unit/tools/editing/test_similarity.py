"""TF-IDF cosines by hand."""

import math

import pytest

from dragoman.tools.editing.similarity import TfIdf, words


def test_words_and_marks_in_lower_case() -> None:
    assert words("It's Rome, 3 times.") == ["it", "'", "s", "rome", ",", "3", "times", "."]


def test_the_cosine_is_the_one_of_the_definition() -> None:
    weigh = TfIdf(["the cat", "the dog"])
    common, rare = math.log(3 / 3) + 1, math.log(3 / 2) + 1
    expected = common * common / (common**2 + rare**2)
    assert weigh.cosine("the cat", "the dog") == pytest.approx(expected)
    assert weigh.cosine("cat", "dog") == 0.0
    assert weigh.cosine("the cat", "cat the") == pytest.approx(1.0)


def test_a_word_of_no_reference_weighs_most_and_a_text_without_words_is_like_none() -> None:
    weigh = TfIdf(["a b", "a c"])
    assert weigh.cosine("a new", "new") > weigh.cosine("a b", "b") > weigh.cosine("a b", "a")
    assert weigh.cosine("", "a") == weigh.cosine("", "") == 0.0
