"""The sixty units that are planted, each with the rival that it must be told apart from.

What a seed draws (`{word1}` and so on) is different words and different members of each group, so
that no list of the captioner's can be the planted one by luck.
"""

from typing import NamedTuple

import numpy as np

from dragoman.tools.subjects.planted_units_words import (
    CLOSING,
    OPENING,
    Feature,
    Lexicon,
    Rule,
    is_one_of,
    rule,
)

_LITERALS = 12
_SUBSETS = (
    *("colours", "animals", "metals", "foods", "vehicles", "body", "instruments", "names"),
    *("places", "months", "weekdays"),
)
"""Groups of which a seed plants some words; the rest of the words stay in the texts."""
_LEFT_OUT = 2

# Name, rule, rival: units whose rule needs no composition.
_PLAIN = (
    ("the word {word1}", "word1", "word2"),
    ("the word {word2}", "word2", "word1"),
    ("the word {word3}", "word3", "word4"),
    ("the word {word4}", "word4", "word3"),
    ("a function word", "of", "prepositions"),
    ("a name", "a name", "names"),
    ("numbers", "numbers", "currency"),
    ("years", "years", "short numbers"),
    ("short numbers", "short numbers", "years"),
    ("prepositions", "prepositions", "auxiliaries"),
    ("auxiliaries", "auxiliaries", "pronouns"),
    ("pronouns", "pronouns", "articles"),
    ("negations", "negations", "un-words"),
    ("conjunctions", "conjunctions", "commas"),
    ("words in -ing", "-ing", "-ed"),
    ("words in -ed", "-ed", "-ing"),
    ("words in -tion", "-tion", "-ment"),
    ("words in -ly", "-ly", "-ment"),
    ("words that begin with un-", "un-words", "negations"),
    ("commas", "commas", "stops"),
    ("full stops and question marks", "stops", "commas"),
    ("currency signs", "currency", "numbers"),
    ("Cyrillic", "cyrillic", "greek"),
    ("Chinese characters", "chinese", "cyrillic"),
    ("months", "months", "weekdays"),
    ("weekdays", "weekdays", "months"),
    ("colours", "colours", "metals"),
    ("animals", "animals", "foods"),
    ("metals", "metals", "colours"),
    ("vehicles", "vehicles", "instruments"),
    ("quotation marks", "quotes", "commas"),
    ("inside quotation marks", "quoted & !quotes", "after an opening quote"),
    ("capital letters", "capitalised", "in capitals"),
    ("words in capital letters", "in capitals", "names"),
    ("the first token", "first 1", "first 4 & !first 1"),
    ("the first four tokens", "first 4", "first 16 & !first 4"),
)
_COMPOSED = (
    ("or: two words", "word5 | word6", "word7"),
    ("or: three words", "word7 | word8 | word9", "word5"),
    ("or: months, weekdays", "months | weekdays", "numbers"),
    ("or: colours, numbers", "colours | numbers", "metals"),
    ("or: two endings", "-ing | -ly", "-ed"),
    ("after: of", "after of", "after the"),
    ("after: a number", "after a number", "after a comma"),
    ("after: an opening quotation mark", "after an opening quote", "quoted & !quotes"),
    ("after: a colour", "after a colour", "after a number"),
    ("near: metals", "near metals", "metals"),
    ("and: capitalised after of", "capitalised & after of", "after of & !capitalised"),
    ("and: numbers in the first sixteen", "numbers & first 16", "numbers & !first 16"),
    ("and: plain words in quotes", "-ing & quoted", "-ing & !quoted"),
    ("and: first word of a sentence, capitalised", "capitalised & after a stop",
     "capitalised & !after a stop"),
    ("and: animals after the", "animals & after the", "animals & !after the"),
    ("not: numbers but no years", "numbers & !years", "years"),
    ("not: capitalised inside a sentence", "capitalised & !after a stop & !first 1",
     "capitalised & after a stop"),
    ("not: colours, not after the", "colours & !after the", "colours & after the"),
    ("not: prepositions but of", "prepositions & !of", "of"),
    ("not: -ed outside quotes", "-ed & !quoted", "-ed & quoted"),
    ("two senses: animals, question", "animals | question", "stops"),
    ("two senses: months, a word", "months | word10", "weekdays"),
    ("two senses: a name, Cyrillic", "a name | cyrillic", "names"),
    ("two senses: foods, un-words", "foods | un-words", "negations"),
)  # fmt: skip


class UnitRule(NamedTuple):
    """A unit's rule in words, and whether it takes a composition to say it."""

    name: str
    rule: Rule
    rival: Rule
    composed: bool
    senses: tuple[Rule, ...] = ()
    """The rules of a two-sense unit's senses."""


class Planned(NamedTuple):
    """All features and units of one seed."""

    features: dict[str, Feature]
    units: tuple[UnitRule, ...]


def plan(lexicon: Lexicon, generator: np.random.Generator) -> Planned:
    """What is planted with this generator."""
    groups = {
        name: tuple(generator.permutation(words).tolist()) for name, words in lexicon.groups.items()
    }
    chosen = {
        name: groups[name][: max(5, len(groups[name]) - _LEFT_OUT)] if name in _SUBSETS else words
        for name, words in groups.items()
    }
    words = {f"word{number}": groups["plain"][number] for number in range(1, _LITERALS)}
    features = {each.name: each for each in _features(chosen, words)}
    units = tuple(
        UnitRule(
            name.format(**words),
            rule(text),
            rule(rival),
            composed,
            tuple(rule(part) for part in text.split(" | "))
            if name.startswith("two senses")
            else (),
        )
        for listed, composed in ((_PLAIN, False), (_COMPOSED, True))
        for name, text, rival in listed
    )
    return Planned(features, units)


def _features(groups: dict[str, tuple[str, ...]], words: dict[str, str]) -> list[Feature]:
    tokens = {name: is_one_of([word]) for name, word in words.items()}
    tokens |= {
        name: is_one_of(groups[name])
        for name in (
            *("months", "weekdays", "colours", "animals", "metals", "foods", "vehicles"),
            *("instruments", "names", "auxiliaries", "pronouns"),
            *("negations", "conjunctions", "currency", "stops", "commas", "cyrillic", "chinese"),
            "greek",
        )
    }
    tokens |= {
        "articles": is_one_of([*groups["the"], *groups["articles"]]),
        "prepositions": is_one_of([*groups["of"], *groups["prepositions"]]),
        "of": is_one_of(groups["of"]),
        "the": is_one_of(["the", "The"]),
        "a name": is_one_of(groups["names"][:1]),
        "question": is_one_of(["?"]),
        "opening": is_one_of([OPENING]),
        "quotes": is_one_of([OPENING, CLOSING]),
        "numbers": str.isdigit,
        "years": lambda word: word.isdigit() and len(word) == 4,
        "short numbers": lambda word: word.isdigit() and len(word) < 3,
        "-ing": lambda word: word.endswith("ing"),
        "-ed": lambda word: word.endswith("ed") and len(word) > 4,
        "-tion": lambda word: word.endswith("tion"),
        "-ment": lambda word: word.endswith("ment"),
        "-ly": lambda word: word.endswith("ly"),
        "un-words": lambda word: word.startswith("un") and len(word) > 5,
        "capitalised": lambda word: word[:1].isupper() and word.isascii(),
        "in capitals": lambda word: word.isupper() and len(word) > 1 and word.isascii(),
    }
    features = [Feature(name, "token", test) for name, test in tokens.items()]
    for name, before in (
        ("after of", "of"),
        ("after the", "the"),
        ("after a comma", "commas"),
        ("after a number", "numbers"),
        ("after a colour", "colours"),
        ("after an opening quote", "opening"),
        ("after a stop", "stops"),
    ):
        features.append(Feature(name, "previous", tokens[before]))
    features += [Feature(f"first {limit}", "first", limit=limit) for limit in (1, 4, 16)]
    features.append(Feature("quoted", "quoted"))
    features.append(Feature("near metals", "near", tokens["metals"]))
    return features
