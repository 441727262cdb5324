"""What a relation is about, in words, and which one a question is about.

All of it is read from the relation's own file, so that a person's file is matched as ours are.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dragoman.core.errors import ToolError
from dragoman.tools.relations import Relation, list_relations, load_relation

_WORD = re.compile(r"[a-z]+")
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("s", ""))
_FUNCTION_WORDS = frozenset(
    {
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "called",
        "do",
        "does",
        "for",
        "from",
        "how",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "probably",
        "than",
        "that",
        "the",
        "this",
        "to",
        "typically",
        "was",
        "what",
        "which",
        "who",
        "will",
        "with",
        "word",
        "words",
    }
)
_OWN_NAME, _ASKED_FOR, _SENTENCE = 2.0, 3.0, 1.0


class NamedFact(NamedTuple):
    """An entity and an object of one relation that a text names, spelled as the file has them."""

    relation: str
    entity: str
    object: str
    true: bool
    """Whether the object is the entity's own."""


class _Words(NamedTuple):
    weights: dict[str, float]
    entities: tuple[str, ...]
    relation: Relation | None


def stems(text: str) -> frozenset[str]:
    """The words of a text without their plural endings and without function words."""
    return frozenset(_stem(word) for word in _WORD.findall(text.lower())) - _FUNCTION_WORDS


def rank_relations(question: str, names: Sequence[str]) -> list[str]:
    """`names`, that first which shares the rarest words with the question; ties stay in order."""
    return list(score_relations(question, names))


def score_relations(question: str, names: Sequence[str]) -> dict[str, float]:
    """How much of the question each of `names` shares, the most first; 0 where nothing.

    A word counts the more, the fewer relations have it. The last word of a name is what is asked
    for (country_capital, noun_plural) and counts most. An entity that is named with a capital
    letter or in quotation marks counts as a rare word, and with an object of the same relation as
    two.
    """
    described = {name: _words(name) for name in names}
    having = Counter(word for words in described.values() for word in words.weights)
    asked = stems(question)
    rare = math.log(len(described) + 1)

    def score(name: str) -> float:
        words = described[name]
        shared = sum(
            weight * math.log((len(described) + 1) / having[word])
            for word, weight in words.weights.items()
            if word in asked
        )
        if _fact_in(question, name, words) is not None:
            shared += 4 * rare
        elif any(_named(question, entity) for entity in words.entities):
            shared += 2 * rare
        return shared

    scores = {name: score(name) for name in names}
    return dict(sorted(scores.items(), key=lambda each: each[1], reverse=True))


def named_fact(question: str, names: Iterable[str]) -> NamedFact | None:
    """The first of `names` of which the question names an entity and an object, true or not."""
    facts = (_fact_in(question, name, _words(name)) for name in names)
    return next((fact for fact in facts if fact is not None), None)


def _fact_in(question: str, name: str, words: _Words) -> NamedFact | None:
    if words.relation is None:
        return None
    folded = question.casefold()
    entities = [each for each in words.relation.samples if _position(folded, each.subject) >= 0]
    if not entities:
        return None
    entity = max(entities, key=lambda each: len(each.subject))
    rest = folded.replace(entity.subject.casefold(), "")
    places = {each: _position(rest, each) for each in words.relation.objects}
    found = [each for each, place in places.items() if place >= 0]
    if not found:
        return None
    # "from Paris to Rome": what it is to become comes last.
    new = max(found, key=lambda each: places[each])
    return NamedFact(name, entity.subject, new, new == entity.object)


def _named(question: str, entity: str) -> bool:
    """Whether the entity stands in the question as a name does: capitalised, or in quotes."""
    bare = entity.removeprefix("The ")
    if bare not in question:
        return False
    if not entity[:1].isupper():
        return bool(re.search(rf"[\"“'\u2018]{re.escape(entity)}[\"”'\u2019]", question))
    # The first word of a sentence has a capital letter whatever it is.
    place = re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", question)
    return place is not None and (place.start() > 0 or " " in entity)


def _position(folded: str, text: str) -> int:
    """Where `text` stands in the folded text as whole words, last; -1 if nowhere."""
    wanted = text.casefold()
    if wanted not in folded:
        return -1
    places = [each.start() for each in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", folded)]
    return places[-1] if places else -1


def _words(name: str) -> _Words:
    # A person's file may change between two questions; ours do not.
    return _packaged_words(name) if name in list_relations() else _read_words(name)


@functools.cache
def _packaged_words(name: str) -> _Words:
    return _read_words(name)


def _read_words(name: str) -> _Words:
    weights: dict[str, float] = {}
    relation = _read(name)
    if relation is not None:
        weights.update(dict.fromkeys(stems(relation.prompt_templates[0]), _SENTENCE))
        about = f"{relation.domain_name} {relation.range_name}"
        weights.update(dict.fromkeys(stems(about), _OWN_NAME))
    spoken = name.rpartition("/")[2].removesuffix(".json").replace("_", " ")
    weights.update(dict.fromkeys(stems(spoken), _OWN_NAME))
    parts = _WORD.findall(spoken.lower())
    if parts:
        weights[_stem(parts[-1])] = _ASKED_FOR
    entities = () if relation is None else tuple(each.subject for each in relation.samples)
    return _Words(weights, entities, relation)


def _read(name: str) -> Relation | None:
    """None for a file that is no relation: the tool that is to use it will say so."""
    try:
        return load_relation(name)
    except ToolError:
        return None


def _stem(word: str) -> str:
    for ending, short in _ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) > len(ending) + 2:
            return word[: -len(ending)] + short
    return word
