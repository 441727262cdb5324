"""Named classes of tokens and lists of words by topic: the built-in proposer's vocabulary.

Every class has a noun ("capitalised words") and a qualifier ("that are capitalised"), from which
captions are put together, and a test over a whole `TokenTable` at once.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np

from dragoman.tools.captioning.tokens import Column, Lexicon, TokenTable, singular

NEAR_TOKENS = 16
"""How far back a text counts as being about a topic."""


class TokenClass(NamedTuple):
    """A property of tokens that has a name."""

    noun: str
    qualifier: str
    test: Callable[[TokenTable], Column]
    place: bool = False
    """It says where the token stands, and so nothing about the token itself."""


_FUNCTION_WORDS = {
    "articles": "a an the",
    "prepositions": "of in to for with on at by from into about over after under between through "
    "during against without within among across behind beyond upon toward towards per",
    "coordinating conjunctions": "and or but nor yet so",
    "subordinating conjunctions": "because although though while if unless until since whereas "
    "whether that when where",
    "first-person pronouns": "i me my mine myself we us our ours ourselves i'm i've i'd i'll we're",
    "second-person pronouns": "you your yours yourself yourselves you're you'll you've",
    "third-person pronouns": "he him his himself she her hers herself it its itself they them "
    "their theirs themselves it's he's she's",
    "possessives": "my your his her its our their whose mine yours ours theirs",
    "forms of 'to be'": "be is are was were been being am isn't aren't wasn't weren't it's",
    "forms of 'to have' and 'to do'": "have has had having do does did doing done",
    "modal verbs": "can could will would shall should may might must cannot can't won't",
    "negations": "not no never none nothing nobody neither nor don't doesn't didn't isn't wasn't "
    "can't won't couldn't wouldn't cannot without",
    "question words": "who whom whose what which when where why how",
    "demonstratives": "this that these those such",
    "quantifiers": "all some any many much few several each every both most more less least enough",
}
_PUNCTUATION = {
    "commas": ",",
    "full stops": ".",
    "question and exclamation marks": "?!",
    "colons and semicolons": ":;",
    "double quotation marks": '"\u201c\u201d',
    "apostrophes": "'\u2018\u2019",
    "hyphens and dashes": "-\u2013\u2014",
    "opening brackets": "([{",
    "closing brackets": ")]}",
    "slashes and underscores": "/\\_",
    "mathematical signs": "+=<>*^%~|",
    "currency signs": "$\u00a3\u20ac\u00a5",
    "hash, at and list signs": "#@&\u2022",
}
_SUFFIXES = """
ing ed ly tion sion ment ness ity er or est s al ous ive able ible ful less ist ism ence ance ize
ise en y ic
"""
_PREFIXES = """
un re pre dis in im con com de ex pro inter trans sub over
"""


@cache
def topics() -> dict[str, frozenset[str]]:
    """Lists of words by topic."""
    text = resources.files("dragoman.tools").joinpath("data/captioning/topics.json")
    return {name: frozenset(words) for name, words in json.loads(text.read_text("utf-8")).items()}


@cache
def classes() -> dict[str, TokenClass]:
    """All token classes by name; the name is also the noun."""
    listed = [*_by_shape(), *_by_script(), *_by_place()]
    for noun, words in _FUNCTION_WORDS.items():
        listed.append(TokenClass(noun, f"that are {noun}", _one_of(words)))
    for noun, characters in _PUNCTUATION.items():
        listed.append(TokenClass(noun, f"that hold {noun}", _made_of(characters)))
    for suffix in _SUFFIXES.split():
        listed.append(
            TokenClass(f'words ending in "-{suffix}"', f'ending in "-{suffix}"', _ending(suffix))
        )
    for prefix in _PREFIXES.split():
        listed.append(
            TokenClass(
                f'words beginning with "{prefix}-"',
                f'beginning with "{prefix}-"',
                _starting(prefix),
            )
        )
    for letter in "abcdefghijklmnopqrstuvwxyz":
        listed.append(
            TokenClass(
                f'words beginning with the letter "{letter}"',
                f'beginning with the letter "{letter}"',
                _starting(letter, at_least=1),
            )
        )
    return {each.noun: each for each in listed}


def in_topic(table: TokenTable, topic: str) -> Column:
    """Tokens of words on the topic's list, plurals included."""
    listed = topics()[topic]
    return table.words.where(lambda word: word in listed or singular(word) in listed)


def _by_shape() -> list[TokenClass]:
    return [
        TokenClass("numbers", "that are numbers", _matching(r"\d+", whole_word=True)),
        TokenClass("years", "that are years", _matching(r"1[5-9]\d\d|20\d\d", whole_word=True)),
        TokenClass("numbers of one digit", "of one digit", _matching(r"\d", whole_word=True)),
        TokenClass("numbers of two digits", "of two digits", _matching(r"\d\d", whole_word=True)),
        TokenClass(
            "numbers of three digits", "of three digits", _matching(r"\d{3}", whole_word=True)
        ),
        TokenClass(
            "numbers of four digits or more",
            "of four digits or more",
            _matching(r"\d{4,}", whole_word=True),
        ),
        TokenClass("digits", "that hold a digit", _matching(r".*\d.*")),
        TokenClass(
            "words that mix letters and digits",
            "that mix letters and digits",
            _matching(r"(?=.*\d)(?=.*[^\W\d_]).+", whole_word=True),
        ),
        TokenClass(
            "capitalised words",
            "that are capitalised",
            lambda table: table.spellings.where(lambda word: word[:1].isupper()),
        ),
        TokenClass(
            "capitalised words inside a sentence",
            "that are capitalised inside a sentence",
            lambda table: (
                table.spellings.where(lambda word: word[:1].isupper() and word != "I")
                & ~table.sentence_start
            ),
        ),
        TokenClass(
            "words in capital letters",
            "in capital letters",
            lambda table: table.spellings.where(lambda word: len(word) > 1 and word.isupper()),
        ),
        TokenClass(
            "words with a capital letter inside",
            "with a capital letter inside",
            lambda table: table.spellings.where(
                lambda word: not word.isupper() and any(map(str.isupper, word[1:]))
            ),
        ),
        TokenClass(
            "single letters",
            "that are a single letter",
            lambda table: table.spellings.where(lambda word: len(word) == 1 and word.isalpha()),
        ),
        TokenClass(
            "long words of nine letters or more",
            "of nine letters or more",
            lambda table: table.words.where(lambda word: len(word) >= 9),
        ),
        TokenClass(
            "very long words of twelve letters or more",
            "of twelve letters or more",
            lambda table: table.words.where(lambda word: len(word) >= 12),
        ),
        TokenClass(
            "short words of one to three letters",
            "of one to three letters",
            lambda table: table.words.where(lambda word: word.isalpha() and len(word) <= 3),
        ),
        TokenClass(
            "words with a doubled letter",
            "with a doubled letter",
            _matching(r".*([^\W\d_])\1.*", whole_word=True),
        ),
        TokenClass(
            "punctuation",
            "that are punctuation",
            lambda table: table.pieces.where(
                lambda piece: piece != "" and not any(map(str.isalnum, piece))
            ),
        ),
        TokenClass(
            "line breaks",
            "that are line breaks",
            lambda table: table.surfaces.where(lambda surface: "\n" in surface),
        ),
        TokenClass(
            "white space",
            "that are white space",
            lambda table: table.surfaces.where(lambda surface: not surface.strip()),
        ),
        TokenClass(
            "letters outside English",
            "with letters outside English",
            lambda table: table.pieces.where(lambda piece: piece != "" and not piece.isascii()),
        ),
        TokenClass(
            "words with an apostrophe",
            "with an apostrophe",
            _matching(r".+['\u2019].*", whole_word=True),
        ),
    ]


_SCRIPTS = {
    "Cyrillic": ("CYRILLIC",),
    "Greek": ("GREEK",),
    "Arabic": ("ARABIC",),
    "Hebrew": ("HEBREW",),
    "Devanagari": ("DEVANAGARI",),
    "Thai": ("THAI",),
    "Korean": ("HANGUL",),
    "Japanese kana": ("HIRAGANA", "KATAKANA"),
    "Chinese characters": ("CJK",),
}
"""Scripts by how Unicode's names of their letters begin."""


def _by_script() -> list[TokenClass]:
    listed = [
        TokenClass(
            script if script.endswith("characters") else f"{script} letters",
            f"in {script}",
            _written_in(beginnings),
        )
        for script, beginnings in _SCRIPTS.items()
    ]
    return [
        *listed,
        TokenClass(
            "Latin letters with accents",
            "with accents",
            _written_in(("LATIN",), beyond_ascii=True),
        ),
        TokenClass(
            "emoji and pictures",
            "that are emoji or pictures",
            lambda table: table.pieces.where(
                lambda piece: any(unicodedata.category(character) == "So" for character in piece)
            ),
        ),
    ]


def _written_in(
    beginnings: tuple[str, ...], *, beyond_ascii: bool = False
) -> Callable[[TokenTable], Column]:
    def written(piece: str) -> bool:
        return any(
            character.isalpha()
            and not (beyond_ascii and character.isascii())
            and unicodedata.name(character, "").startswith(beginnings)
            for character in piece
        )

    return lambda table: table.pieces.where(written)


def _by_place() -> list[TokenClass]:
    listed = [
        TokenClass(
            "continuations of a word that is split into pieces",
            "inside a word",
            lambda table: ~table.begins,
        ),
        TokenClass(
            "first pieces of a word that is split into pieces",
            "at the start of a split word",
            lambda table: table.begins & ~table.ends,
        ),
        TokenClass(
            "last pieces of a word that is split into pieces",
            "at the end of a split word",
            lambda table: table.ends & ~table.begins,
        ),
        TokenClass(
            "first words of a sentence",
            "opening a sentence",
            lambda table: table.sentence_start & (table.word != ""),
        ),
        TokenClass(
            "first words of a line",
            "opening a line",
            lambda table: table.line_start & (table.word != ""),
        ),
        TokenClass(
            "words inside quotation marks", "inside quotation marks", lambda table: table.in_quotes
        ),
        TokenClass("words inside brackets", "inside brackets", lambda table: table.in_brackets),
        TokenClass(
            "words that occurred before in the text", "that occurred before in the text", _repeated
        ),
    ]
    listed += [
        TokenClass(noun, qualifier, _standing(first, end))
        for noun, qualifier, first, end in _POSITIONS
    ]
    return [each._replace(place=True) for each in listed]


_ENDLESS = 1 << 40
_POSITIONS = (
    ("the first token of the text", "at the very start of the text", 0, 1),
    ("the second token of the text", "in the second place of the text", 1, 2),
    ("the third token of the text", "in the third place of the text", 2, 3),
    ("the first four tokens of the text", "among the first four tokens of the text", 0, 4),
    ("the first eight tokens of the text", "among the first eight tokens of the text", 0, 8),
    ("the first sixteen tokens of the text", "near the start of the text", 0, 16),
    ("tokens after the first sixteen", "after the first sixteen tokens", 16, _ENDLESS),
    ("tokens after the first thirty-two", "after the first thirty-two tokens", 32, _ENDLESS),
    ("tokens after the first forty-eight", "after the first forty-eight tokens", 48, _ENDLESS),
)
"""Stretches of a text: noun, qualifier, and the indices of the first token and of the end."""


def _repeated(table: TokenTable) -> Column:
    seen: set[tuple[int, str]] = set()
    column = np.zeros(table.n, dtype=bool)
    for row, key in enumerate(zip(table.document.tolist(), table.word, strict=True)):
        if not table.begins[row]:
            column[row] = row > 0 and column[row - 1]
        elif key[1][:1].isalnum():
            column[row] = key in seen
            seen.add(key)
    return column


def _standing(first: int, end: int) -> Callable[[TokenTable], Column]:
    return lambda table: (table.index >= first) & (table.index < end)


def _lexicon(table: TokenTable, whole_word: bool) -> Lexicon:
    return table.spellings if whole_word else table.pieces


def _one_of(words: str) -> Callable[[TokenTable], Column]:
    listed = frozenset(words.split())
    return lambda table: table.words.where(lambda word: word in listed)


def _made_of(characters: str) -> Callable[[TokenTable], Column]:
    return lambda table: table.pieces.where(
        lambda piece: any(character in characters for character in piece)
    )


def _matching(pattern: str, *, whole_word: bool = False) -> Callable[[TokenTable], Column]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda table: _lexicon(table, whole_word).where(
        lambda value: compiled.fullmatch(value) is not None
    )


def _ending(suffix: str) -> Callable[[TokenTable], Column]:
    return lambda table: table.words.where(
        lambda word: word.endswith(suffix) and len(word) >= len(suffix) + 2 and word.isalpha()
    )


def _starting(prefix: str, *, at_least: int = 5) -> Callable[[TokenTable], Column]:
    return lambda table: table.words.where(
        lambda word: word.startswith(prefix) and len(word) >= at_least and word[:1].isalpha()
    )
