"""From words to a concept that can be checked: 'red circles', 'vertical stripes or dogs'.

Proposers that see pictures write captions in words. A caption counts as far as it can be read as a
composition of the concepts that a patch table knows; every word has to be understood, or be one of
the few that say nothing about what is shown.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from dragoman.tools.captioning.vision.concepts import (
    Colour,
    Concept,
    Not,
    Object,
    OfClass,
    Shape,
    Texture,
    Thing,
    Toned,
    both,
    either,
    looks_known,
    objects_known,
    phrase,
)
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.subjects.efficientnet import imagenet_labels

_EMPTY = re.compile(
    "a|an|the|in|of|on|with|and|are|is|that|which|like|colou?red|background|(?:thing|object|shape|"
    "area|region|part|patch|surface|texture|colou?r|image|picture|photo)(?:s|es)?"
)
_ALTERNATIVES = re.compile(r"\s*(?:,? or |;|, )\s*")
_NEGATION = re.compile(r"\b(?:that are not|which are not|but not|without|not)\b")
_OF = re.compile(r"\bof\b")
_PLACE = re.compile(r"\b(?:area|region|part|patch|surface|texture)(?:s|es)?\b")
_SYNONYMS = {
    "gray": "grey",
    "cyan": "turquoise",
    "teal": "turquoise",
    "violet": "purple",
    "striped": "stripes",
    "lines": "stripes",
    "checkered": "checks",
    "checked": "checks",
    "chequered": "checks",
    "chequerboard": "checks",
    "checkerboard": "checks",
    "round": "circle",
    "disc": "circle",
    "disk": "circle",
    "dotted": "dots",
    "grainy": "fine grain",
    "vertically": "vertical",
    "horizontally": "horizontal",
    "rising-striped": "rising stripes",
    "falling-striped": "falling stripes",
    "light": "bright",
    "colourful": "vivid",
    "colorful": "vivid",
}


def read(caption: str) -> Concept | None:
    """The concept that a caption says; None where any of its words says nothing that is known."""
    found: Concept | None = None
    for part in _ALTERNATIVES.split(caption.strip().strip(".").casefold()):
        if not part:
            continue
        concept = _conjunction(part)
        if concept is None:
            return None
        found = concept if found is None else either(found, concept)
    return found


def named_in(text: str) -> tuple[str, ...]:
    """What is known by name in a sentence, each thing once: cats and red of 'a cat in red light'.

    Words that name nothing known are passed over.
    """
    words = _words(text)
    found: dict[str, None] = {}
    start = 0
    while start < len(words):
        end = _end_of_name(words, start)
        if end > start:
            concept = _named()[" ".join(words[start:end])]
            # "A red thing" and "a red ball" agree on red.
            found[phrase(concept.of if isinstance(concept, Object) else concept)] = None
        start = max(end, start + 1)
    return tuple(found)


def _conjunction(text: str) -> Concept | None:
    """'striped circles that are not red': all that is said of one thing."""
    said, *denied = _NEGATION.split(text)
    # "Red areas of striped circles": the place is red, the circle striped.
    *places, thing = _OF.split(said)
    found = _atoms(thing)
    if not found:
        return None
    is_object = any(isinstance(each, Shape | Object) for each in found)
    if is_object:
        found = [_of_the_whole(each) for each in found]
    for place in places:
        here = _atoms(place)
        if here is None:
            return None
        found = [*here, *found]
    whole = found[0]
    for each in found[1:]:
        whole = both(whole, each)
    for words in denied:
        lacking = _atoms(words)
        if not lacking:
            return None
        if is_object and not _PLACE.search(words):
            lacking = [_of_the_whole(each) for each in lacking]
        for each in lacking:
            whole = both(whole, Not(of=each))
    return whole


def _of_the_whole(concept: Concept) -> Concept:
    """What is said of an object: the colour or texture that it has as a whole."""
    return next((each for each in objects_known() if each.of == concept), concept)


def _atoms(text: str) -> list[Concept] | None:
    """The concepts that the words name, the longest names first; None for a word without one."""
    words = _words(text)
    found: list[Concept] = []
    start = 0
    while start < len(words):
        end = _end_of_name(words, start)
        if end > start:
            found.append(_named()[" ".join(words[start:end])])
        elif not _EMPTY.fullmatch(words[start]):
            return None
        start = max(end, start + 1)
    return found


def _words(text: str) -> list[str]:
    words = re.findall(r"[a-z'-]+", text.casefold())
    return " ".join(_SYNONYMS.get(word, word) for word in words).split()


def _end_of_name(words: Sequence[str], start: int) -> int:
    """Where the longest name that begins at `start` ends; `start` where none does."""
    ends = range(min(len(words), start + _longest()), start, -1)
    return next((end for end in ends if " ".join(words[start:end]) in _named()), start)


@cache
def _named() -> dict[str, Concept]:
    """Every name of an atom, singular and plural; of two with one name the first counts."""
    names: dict[str, Concept] = {}
    for name, concept in _every():
        for form in (name, _plural(name)):
            names.setdefault(" ".join(_words(form)), concept)
    return names


@cache
def _longest() -> int:
    return max(len(name.split()) for name in _named())


def _every() -> Iterator[tuple[str, Concept]]:
    for look in looks_known():
        yield from ((name, look) for name in _names_of(look))
    for kind in kinds().values():
        yield kind.name, Thing(name=kind.name)
        yield kind.plural, Thing(name=kind.name)
    for index, label in enumerate(imagenet_labels()):
        yield from ((synonym.strip(), OfClass(index=index)) for synonym in label.split(","))


def _names_of(look: Concept) -> Iterator[str]:
    match look:
        case Object():
            yield phrase(look).removesuffix("s")
        case Texture(name=name):
            yield from (name, phrase(look))
        case Colour(name=name) | Toned(name=name) | Shape(name=name):
            yield name


def _plural(name: str) -> str:
    if name.endswith("s"):
        return name
    return f"{name}es" if name.endswith(("sh", "ch", "x")) else f"{name}s"
