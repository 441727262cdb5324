"""Documents as columns of tokens: what predicates look at.

Every column runs over all tokens of all documents, one after the other, so that a predicate is one
boolean column and a unit's activations are one float column.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Column: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.object_]
Ints: TypeAlias = npt.NDArray[np.int64]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|\S")
_LONGEST_AFFIX = 8
_SENTENCE_END = frozenset(".!?")


_DERIVED = frozenset({"columns", "meanings", "stretches"})
"""Fields of a table that are no columns over its tokens."""


class Lexicon:
    """A column of strings by number: few distinct strings stand in many rows."""

    def __init__(self, column: Words) -> None:
        self._number: dict[str, int] = {}
        number = self._number
        self.codes = np.array(
            [number.setdefault(value, len(number)) for value in column], dtype=np.int32
        )

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """The distinct strings, by number."""
        return tuple(self._number)

    def equal(self, value: str) -> Column:
        """The rows in which `value` stands."""
        return np.asarray(self.codes == self._number.get(value, -1), dtype=bool)

    def beginning(self, letters: str) -> Column:
        """The rows whose string begins with `letters`."""
        return self._at(self._affixes[0].get(letters, ()))

    def ending(self, letters: str) -> Column:
        """The rows whose string ends in `letters`."""
        return self._at(self._affixes[1].get(letters, ()))

    def _at(self, codes: Sequence[int]) -> Column:
        chosen = np.zeros(len(self.strings), dtype=bool)
        chosen[list(codes)] = True
        return np.asarray(chosen[self.codes])

    @cached_property
    def _affixes(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        starts: dict[str, list[int]] = {}
        ends: dict[str, list[int]] = {}
        for code, value in enumerate(self.strings):
            for length in range(1, min(len(value), _LONGEST_AFFIX) + 1):
                starts.setdefault(value[:length], []).append(code)
                ends.setdefault(value[-length:], []).append(code)
        return starts, ends

    def where(self, holds: Callable[[str], bool]) -> Column:
        """The rows whose string satisfies `holds`; each distinct string is asked for once."""
        if not self.strings:
            return np.zeros(0, dtype=bool)
        answers = np.array([holds(value) for value in self.strings], dtype=bool)
        return np.asarray(answers[self.codes])


@dataclass(frozen=True)
class TokenTable:
    """Columns over the tokens of some documents; `n` tokens in all."""

    document: Ints
    """Index of the document, ascending."""
    index: Ints
    """Index within the document, 0 for its first token."""
    surface: Words
    """The token as it stands in the text, surrounding space included."""
    written: Words
    """The whole word that the token is part of, as written; '' for white space."""
    begins: Column
    """The token begins its word."""
    ends: Column
    """The token ends its word."""
    sentence_start: Column
    line_start: Column
    in_quotes: Column
    in_brackets: Column
    meanings: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)
    """The topics that a word is near to in meaning, where embeddings were asked."""
    columns: dict[str, Column] = field(default_factory=dict, repr=False, compare=False)
    """Columns of predicates that were evaluated before, by the predicate's JSON."""
    stretches: dict[tuple[int, int], "TokenTable"] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Tables of some of the documents, by the first and the end."""

    @property
    def n(self) -> int:
        """Number of tokens."""
        return len(self.document)

    @cached_property
    def word(self) -> Words:
        """`written` without regard to case."""
        return _mapped(self.written, str.casefold)

    @cached_property
    def piece(self) -> Words:
        """`surface` without the space around it."""
        return _mapped(self.surface, str.strip)

    @cached_property
    def words(self) -> Lexicon:
        """`word` by number."""
        return Lexicon(self.word)

    @cached_property
    def pieces(self) -> Lexicon:
        """`piece` by number."""
        return Lexicon(self.piece)

    @cached_property
    def spellings(self) -> Lexicon:
        """`written` by number."""
        return Lexicon(self.written)

    @cached_property
    def surfaces(self) -> Lexicon:
        """`surface` by number."""
        return Lexicon(self.surface)

    def previous(self, column: Column) -> Column:
        """`column` at the token before, false at the start of a document."""
        shifted = np.zeros_like(column)
        shifted[1:] = column[:-1]
        return shifted & (self.index > 0)

    def following(self, column: Column) -> Column:
        """`column` at the token that follows, false at the end of a document."""
        shifted = np.zeros_like(column)
        shifted[:-1] = column[1:] & (self.index[1:] > 0)
        return shifted

    def recently(self, column: Column, reach: int) -> Column:
        """`column` held at this token or at one of the `reach` tokens before it."""
        last = np.where(column, np.arange(self.n), -1)
        last = np.maximum.accumulate(last) if self.n else last
        document_start = np.arange(self.n) - self.index
        return (last >= document_start) & (np.arange(self.n) - last <= reach)

    def rows(self, chosen: Column) -> "TokenTable":
        """The table of some tokens, normally all those of some documents."""
        return TokenTable(
            **{
                name: getattr(self, name)[chosen]
                for name in self.__dataclass_fields__
                if name not in _DERIVED
            },
            meanings=self.meanings,
        )

    def followed_by(self, other: "TokenTable", first: int) -> "TokenTable":
        """The tokens of both; the documents of `other` are numbered from `first` on."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in self.__dataclass_fields__
            if name not in _DERIVED
        }
        columns["document"][self.n :] += first
        return TokenTable(**columns, meanings={**other.meanings, **self.meanings})

    def with_meanings(self, meanings: Mapping[str, tuple[str, ...]]) -> "TokenTable":
        """The same tokens, with the topics that their words are near to."""
        return replace(self, meanings=meanings, columns={}, stretches={})

    def stretch(self, first: int, end: int) -> "TokenTable":
        """The tokens of documents `first` to `end - 1`; the same table whenever it is asked for."""
        if (first, end) not in self.stretches:
            chosen = (self.document >= first) & (self.document < end)
            self.stretches[first, end] = self.rows(chosen)
        return self.stretches[first, end]


def token_table(
    documents: Sequence[str], tokenizer: Any, *, limit: int | None = None
) -> TokenTable:
    """Tokenise `documents` (fast tokenizer, no special tokens), one after the other."""
    encoded = tokenizer(list(documents), add_special_tokens=False, return_offsets_mapping=True)
    rows = [
        row
        for number, (text, offsets) in enumerate(
            zip(documents, encoded["offset_mapping"], strict=True)
        )
        for row in _rows(number, text, offsets)
    ]
    document, index, surface, written, *flags = list(zip(*rows, strict=True)) or [()] * 10
    begins, ends, sentence_start, line_start, in_quotes, in_brackets = (
        np.array(flag, dtype=bool) for flag in flags
    )
    return TokenTable(
        document=np.array(document, dtype=np.int64),
        index=np.array(index, dtype=np.int64),
        surface=_objects(surface),
        written=_objects(written),
        begins=begins,
        ends=ends,
        sentence_start=sentence_start,
        line_start=line_start,
        in_quotes=in_quotes,
        in_brackets=in_brackets,
    )


def _rows(number: int, text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[Any, ...]]:
    span_at = np.full(len(text) + 1, -1)
    spans = [match.span() for match in _WORD.finditer(text)]
    for which, (start, end) in enumerate(spans):
        span_at[start:end] = which
    rows = []
    surroundings = _Surroundings(text)
    for index, (start, end) in enumerate(offsets):
        surface = text[start:end]
        stripped = surface.strip()
        if not stripped:
            rows.append(
                (
                    number,
                    index,
                    surface,
                    "",
                    True,
                    True,
                    False,
                    False,
                    *surroundings.before(start)[2:],
                )
            )
            continue
        first = start + len(surface) - len(surface.lstrip())
        last = end - (len(surface) - len(surface.rstrip()))
        word_start, word_end = spans[span_at[last - 1]]
        rows.append(
            (
                number,
                index,
                surface,
                text[word_start:word_end],
                first <= word_start,
                last >= word_end,
                *surroundings.before(first),
            )
        )
    return rows


class _Surroundings:
    """What stands before a character; asked in ascending order, so the text is read once."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._sentence, self._line, self._quoted, self._depth = True, True, False, 0

    def before(self, position: int) -> tuple[bool, bool, bool, bool]:
        for character in self._text[self._at : position]:
            if character == "\n":
                self._sentence = self._line = True
                self._quoted = False
            elif character in _SENTENCE_END:
                self._sentence = True
            elif not character.isspace():
                self._line = False
                if character not in "\"'\u201c\u201d)]":
                    self._sentence = False
            if character == '"':
                self._quoted = not self._quoted
            elif character in "\u201c\u201d":
                self._quoted = character == "\u201c"
            elif character in "([{":
                self._depth += 1
            elif character in ")]}":
                self._depth = max(0, self._depth - 1)
        self._at = max(self._at, position)
        return self._sentence, self._line, self._quoted, self._depth > 0


def _objects(values: Sequence[str]) -> Words:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _mapped(column: Words, change: Callable[[str], str]) -> Words:
    return _objects([change(value) for value in column])


def singular(word: str) -> str:
    """`word` without a plural's ending: a rough stem for looking words up in lists."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
