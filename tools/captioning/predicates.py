"""Statements about a token that can be checked: atoms and their compositions by and, or, not.

A predicate travels with the caption it gave rise to (as JSON) and predicts where the unit is
active; after "Compositional Explanations of Neurons" (Mu & Andreas 2020, arXiv:2006.14032).
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, TypeAdapter

from dragoman.core.records import Record
from dragoman.tools.captioning.composition import joined
from dragoman.tools.captioning.tokens import Column, TokenTable
from dragoman.tools.captioning.vocabulary import NEAR_TOKENS, classes, in_topic


class Word(Record):
    """The token is part of this word, whatever its case."""

    op: Literal["word"] = "word"
    word: str


class Piece(Record):
    """The token is this very piece of text, space aside: a part of a word or a sign."""

    op: Literal["piece"] = "piece"
    piece: str


class Kind(Record):
    """The token belongs to a class of the vocabulary."""

    op: Literal["kind"] = "kind"
    name: str


class Topic(Record):
    """The token's word is on a topic's list."""

    op: Literal["topic"] = "topic"
    name: str


class Near(Record):
    """A word on the topic's list stands here or shortly before."""

    op: Literal["near"] = "near"
    topic: str


class Starts(Record):
    """The token's word begins with these letters, whatever their case."""

    op: Literal["starts"] = "starts"
    letters: Annotated[str, Field(min_length=1, max_length=8)]


class Ends(Record):
    """The token's word ends in these letters, whatever their case."""

    op: Literal["ends"] = "ends"
    letters: Annotated[str, Field(min_length=1, max_length=8)]


class Like(Record):
    """The token's word is nearer in meaning to the topic's words than to any other topic's."""

    op: Literal["like"] = "like"
    topic: str


class Amid(Record):
    """A word near to the topic in meaning stands here or shortly before."""

    op: Literal["amid"] = "amid"
    topic: str


class After(Record):
    """The token before satisfies an atom."""

    op: Literal["after"] = "after"
    of: Annotated[Word | Piece | Kind | Topic | Starts | Ends | Like, Field(discriminator="op")]


class Before(Record):
    """The token that follows satisfies an atom.

    A subject that reads from left to right cannot have seen it, but its units take part in
    predicting it.
    """

    op: Literal["before"] = "before"
    of: Annotated[Word | Piece | Kind | Topic | Starts | Ends | Like, Field(discriminator="op")]


class Not(Record):
    """The part does not hold; says something only beside another part."""

    op: Literal["not"] = "not"
    of: "Predicate"


class Both(Record):
    """All of the parts hold."""

    op: Literal["and"] = "and"
    of: tuple["Predicate", ...]


class Either(Record):
    """One of the parts holds, or several."""

    op: Literal["or"] = "or"
    of: tuple["Predicate", ...]


Predicate: TypeAlias = Annotated[
    Word
    | Piece
    | Kind
    | Topic
    | Starts
    | Ends
    | Like
    | Near
    | Amid
    | After
    | Before
    | Not
    | Both
    | Either,
    Field(discriminator="op"),
]
Not.model_rebuild()
Both.model_rebuild()
Either.model_rebuild()
PREDICATE: TypeAdapter[Predicate] = TypeAdapter(Predicate)


def holds(predicate: Predicate, table: TokenTable) -> Column:
    """Where in `table` the predicate is true.

    What the vocabulary names is remembered by the table; literals and compositions, of which there
    is no end, are not.
    """
    if not _named(predicate):
        return _evaluated(predicate, table)
    key = predicate.model_dump_json()
    column = table.columns.get(key)
    if column is None:
        column = table.columns[key] = _evaluated(predicate, table)
    return column


def _named(predicate: Predicate) -> bool:
    named = (Kind, Topic, Like, Near, Amid)
    return isinstance(predicate.of if isinstance(predicate, After | Before) else predicate, named)


def _evaluated(predicate: Predicate, table: TokenTable) -> Column:
    match predicate:
        case Word(word=word):
            return table.words.equal(word)
        case Piece(piece=piece):
            return table.pieces.equal(piece)
        case Starts(letters=letters):
            return table.words.beginning(letters)
        case Ends(letters=letters):
            return table.words.ending(letters)
        case Kind(name=name):
            return classes()[name].test(table)
        case Topic(name=name):
            return in_topic(table, name)
        case Like(topic=topic):
            return table.words.where(lambda word: topic in table.meanings.get(word, ()))
        case Near(topic=topic):
            return table.recently(holds(Topic(name=topic), table), NEAR_TOKENS)
        case Amid(topic=topic):
            return table.recently(holds(Like(topic=topic), table), NEAR_TOKENS)
        case After(of=atom):
            return table.previous(holds(atom, table))
        case Before(of=atom):
            return table.following(holds(atom, table))
        case Not(of=part):
            return ~holds(part, table)
        case Both(of=parts):
            return np.asarray(np.stack([holds(part, table) for part in parts]).all(axis=0))
        case Either(of=parts):
            return np.asarray(np.stack([holds(part, table) for part in parts]).any(axis=0))


def both(first: Predicate, second: Predicate) -> Predicate:
    """Their conjunction, flat and in a fixed order, so that equal predicates are equal records."""
    return _composed(Both, first, second)


def either(first: Predicate, second: Predicate) -> Predicate:
    """Their disjunction, flat and in a fixed order."""
    return _composed(Either, first, second)


def without(first: Predicate, second: Predicate) -> Predicate:
    """The first, except where the second holds."""
    return both(first, Not(of=second))


def _composed(kind: type[Both] | type[Either], first: Predicate, second: Predicate) -> Predicate:
    ordered = joined(kind, first, second)
    return ordered[0] if len(ordered) == 1 else kind(of=ordered)


def atoms(predicate: Predicate) -> tuple[Predicate, ...]:
    """The parts that are no compositions; what is denied counts as well."""
    if isinstance(predicate, Not):
        return atoms(predicate.of)
    if isinstance(predicate, Both | Either):
        return tuple(atom for part in predicate.of for atom in atoms(part))
    return (predicate,)


def phrase(predicate: Predicate) -> str:
    """The predicate as a noun phrase: 'capitalised words right after the word "of"'."""
    match predicate:
        case Word(word=word):
            return f'the word "{word}"'
        case Piece(piece=piece):
            return f'the token "{piece}"'
        case Starts(letters=letters):
            return f'words beginning with "{letters}-"'
        case Ends(letters=letters):
            return f'words ending in "-{letters}"'
        case Kind(name=name):
            return classes()[name].noun
        case Topic(name=name):
            return f"words about {name}"
        case Like(topic=topic):
            return f"words that have to do with {topic}"
        case Near(topic=topic):
            return f"text about {topic}"
        case Amid(topic=topic):
            return f"text that has to do with {topic}"
        case After(of=atom):
            return f"tokens right after {phrase(atom)}"
        case Before(of=atom):
            return f"tokens right before {phrase(atom)}"
        case Not(of=part):
            return f"tokens other than {phrase(part)}"
        case Both(of=parts):
            return _conjunction(parts)
        case Either(of=parts):
            return _alternatives(parts)


_HEADSHIP: tuple[type[Record], ...] = (
    *(Either, Word, Piece, Topic, Like, Starts, Ends, Kind, After, Before, Near, Amid, Not),
)


def _headship(predicate: Predicate) -> tuple[int, bool]:
    """The most concrete part of a conjunction is its noun; the others qualify it."""
    rank = next(rank for rank, kind in enumerate(_HEADSHIP) if isinstance(predicate, kind))
    # "numbers in the first four tokens" reads better than the reverse.
    return rank, isinstance(predicate, Kind) and classes()[predicate.name].place


def _conjunction(parts: Sequence[Predicate]) -> str:
    """A noun, what it has to be, and what it must not be."""
    head, *rest = sorted(parts, key=_headship)
    affirmed = [_qualifier(part) for part in rest if not isinstance(part, Not)]
    denied = [_exception(part.of) for part in rest if isinstance(part, Not)]
    said = phrase(head)
    if affirmed:
        said = f"{said} {_listed(affirmed, 'and')}"
    if denied:
        said = f"{said}, but {_listed(denied, 'and')}"
    return said


def _qualifier(predicate: Predicate) -> str:
    match predicate:
        case Kind(name=name):
            return classes()[name].qualifier
        case Starts(letters=letters):
            return f'beginning with "{letters}-"'
        case Ends(letters=letters):
            return f'ending in "-{letters}"'
        case After(of=atom):
            return f"right after {phrase(atom)}"
        case Before(of=atom):
            return f"right before {phrase(atom)}"
        case Near() | Amid():
            return f"in {phrase(predicate)}"
        case Topic() | Like():
            return f"among {phrase(predicate)}"
        case _:
            return f"that are {phrase(predicate)}"


def _exception(predicate: Predicate) -> str:
    """What is denied of the noun: 'not right after commas', 'not the word "of"'."""
    match predicate:
        case Kind(name=name):
            return _denied(classes()[name].qualifier)
        case Topic() | Like():
            return f"not {phrase(predicate)}"
        case Word() | Piece():
            return f"not {phrase(predicate)}"
        case _:
            return f"not {_qualifier(predicate)}"


def _denied(qualifier: str) -> str:
    for start, denial in (("that are ", "not "), ("with ", "without "), ("that ", "not any that ")):
        if qualifier.startswith(start):
            return denial + qualifier.removeprefix(start)
    return f"not {qualifier}"


_GATHERED = (Word, Piece, After, Before)


def _alternatives(parts: Sequence[Predicate]) -> str:
    """One list for all literal words, for all literal tokens, the rest, then the neighbours."""
    phrases = []
    neighbours = {
        side: [part.of for part in parts if isinstance(part, side)] for side in (After, Before)
    }
    for literals, noun, nouns in (
        ([part.word for part in parts if isinstance(part, Word)], "the word", "the words"),
        ([part.piece for part in parts if isinstance(part, Piece)], "the token", "the tokens"),
    ):
        if literals:
            quoted = _listed([f'"{literal}"' for literal in literals], "or")
            phrases.append(f"{noun if len(literals) == 1 else nouns} {quoted}")
    phrases += [phrase(part) for part in parts if not isinstance(part, _GATHERED)]
    for side, name in ((After, "after"), (Before, "before")):
        if neighbours[side]:
            inner = neighbours[side]
            told = _alternatives(inner) if len(inner) > 1 else phrase(inner[0])
            phrases.append(f"tokens right {name} {told}")
    return _listed(phrases, "or")


def _listed(phrases: Sequence[str], conjunction: str) -> str:
    if len(phrases) <= 1:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} {conjunction} {phrases[-1]}"
