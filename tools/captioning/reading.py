"""Free-text captions read back as predicates, so that they can be judged without a chat model.

A caption says something checkable if it quotes words, names a class of tokens or names a topic; one
that does none of these cannot be judged and counts as failed. Deliberately literal: "food" in a
caption means our list of food words, whatever else its author had in mind.
"""

import re
from collections.abc import Callable
from functools import cache

from dragoman.tools.captioning.predicates import (
    After,
    Before,
    Kind,
    Near,
    Piece,
    Predicate,
    Topic,
    Word,
    either,
)
from dragoman.tools.captioning.vocabulary import classes, topics

_QUOTED = re.compile(
    r"[\"\u201c`«]([^\"\u201c\u201d`«»]{1,40})[\"\u201d`»]|(?<!\w)'([^']{1,40})'(?!\w)"
)
_AFTER = re.compile(r"\b(?:right after|after|following|preceded by)\b", re.IGNORECASE)
_BEFORE = re.compile(r"\b(?:right before|just before|preceding|followed by)\b", re.IGNORECASE)
_SIDES: tuple[tuple[type[After] | type[Before], re.Pattern[str]], ...] = (
    (After, _AFTER),
    (Before, _BEFORE),
)
_ABOUT = re.compile(
    r"\b(?:texts?|passages?|contexts?|sentences|documents) (?:about|on|related to)\b", re.IGNORECASE
)
_AFFIX = re.compile(r"(ending|end|beginning|begin|starting|start)s? (?:in|with)\b", re.IGNORECASE)
_MAX_PARTS = 4
# What people call the classes, beside the classes' own nouns.
_SYNONYMS = {
    "number": "numbers",
    "numeral": "numbers",
    "digit": "digits",
    "year": "years",
    "date": "years",
    "comma": "commas",
    "period": "full stops",
    "full stop": "full stops",
    "question mark": "question and exclamation marks",
    "exclamation mark": "question and exclamation marks",
    "colon": "colons and semicolons",
    "semicolon": "colons and semicolons",
    "quotation mark": "double quotation marks",
    "quote": "double quotation marks",
    "apostrophe": "apostrophes",
    "hyphen": "hyphens and dashes",
    "dash": "hyphens and dashes",
    "bracket": "opening brackets",
    "parenthes": "opening brackets",
    "punctuation": "punctuation",
    "newline": "line breaks",
    "line break": "line breaks",
    "capital": "capitalised words",
    "proper noun": "capitalised words inside a sentence",
    "name": "capitalised words inside a sentence",
    "article": "articles",
    "preposition": "prepositions",
    "conjunction": "coordinating conjunctions",
    "pronoun": "third-person pronouns",
    "possessive": "possessives",
    "modal": "modal verbs",
    "auxiliar": "forms of 'to be'",
    "negation": "negations",
    "question word": "question words",
    "determiner": "articles",
    "adverb": 'words ending in "-ly"',
    "past tense": 'words ending in "-ed"',
    "plural": 'words ending in "-s"',
    "start of a sentence": "first words of a sentence",
}
_NO_TOPIC_WORDS = """
a an the of and or in to for with that are is word words token tokens text texts about related
after before right part name names thing things sentence context same first last time one noun nouns
verb verbs adjective adjectives phrase phrases letter letters list common marked used use following
such as like by their its up down there here number
"""


def read(caption: str) -> Predicate | None:
    """What the caption says, as a predicate; None if nothing in it can be checked."""
    side, beside = next(
        ((side, found) for side, where in _SIDES if (found := where.search(caption))),
        (After, None),
    )
    claim = caption[beside.end() :] if beside else caption
    parts = (
        _quoted(claim)
        or _topics(claim, _named_topics)
        or _classes(claim)
        or _topics(claim, _listing_topics)
    )
    if not parts:
        return None
    if beside:
        inner = [part for part in parts if isinstance(part, Word | Piece | Kind | Topic)]
        parts = [side(of=part) for part in inner] or parts
    predicate, *rest = parts[:_MAX_PARTS]
    for part in rest:
        predicate = either(predicate, part)
    return predicate


def _quoted(caption: str) -> list[Predicate]:
    literals = [double or single for double, single in _QUOTED.findall(caption)]
    literals = [literal.strip() for literal in literals if literal.strip()]
    if not literals:
        return []
    affix = _AFFIX.search(caption)
    if affix:
        ending = affix.group(1).casefold().startswith("end")
        named = [
            f'words ending in "-{literal.strip("-").casefold()}"'
            if ending
            else f'words beginning with "{literal.strip("-").casefold()}-"'
            for literal in literals
        ]
        kinds: list[Predicate] = [Kind(name=name) for name in named if name in classes()]
        if kinds:
            return kinds
    return [
        Word(word=literal.casefold()) if literal.isalnum() else Piece(piece=literal)
        for literal in literals
    ]


def _classes(caption: str) -> list[Predicate]:
    lowered = caption.casefold()
    named = [name for name in classes() if name.casefold() in lowered]
    named += [name for word, name in _SYNONYMS.items() if re.search(rf"\b{word}", lowered)]
    return [Kind(name=name) for name in dict.fromkeys(named)]


def _topics(caption: str, topics_of: Callable[[str], tuple[str, ...]]) -> list[Predicate]:
    ignored = _NO_TOPIC_WORDS.split()
    words = [word for word in re.findall(r"[a-z]+", caption.casefold()) if word not in ignored]
    counted: dict[str, int] = {}
    for word in words:
        for topic in topics_of(word):
            counted[topic] = counted.get(topic, 0) + 1
    if not counted:
        return []
    most = max(counted.values())
    best = [topic for topic, count in counted.items() if count == most][:2]
    if _ABOUT.search(caption):
        return [Near(topic=topic) for topic in best]
    return [Topic(name=topic) for topic in best]


@cache
def _named_topics(word: str) -> tuple[str, ...]:
    """Topics that have the word in their name."""
    stems = _stems(word)
    return tuple(name for name in topics() if stems & set(name.split()))


@cache
def _listing_topics(word: str) -> tuple[str, ...]:
    """Topics that have the word on their list."""
    stems = _stems(word)
    return tuple(name for name, words in topics().items() if stems & words)


def _stems(word: str) -> set[str]:
    return {word, word.removesuffix("s"), word + "s"}
