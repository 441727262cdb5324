"""The words of the planted subject: its vocabulary, its word-level tokenizer, its relations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dragoman.tools.relations import Relation, Sample

DOCUMENT_START = "<|endoftext|>"
UNKNOWN = "<unk>"

CLASSES: dict[str, tuple[str, ...]] = {
    "colours": (
        *("red", "green", "blue", "yellow", "orange", "purple"),
        *("black", "white", "brown", "pink", "grey", "violet"),
    ),
    "animals": (
        *("dog", "cat", "horse", "cow", "wolf", "lion"),
        *("tiger", "bear", "rabbit", "fox", "sheep", "goat"),
    ),
    "numbers": (
        *("one", "two", "three", "four", "five", "six"),
        *("seven", "eight", "nine", "ten", "eleven", "twelve"),
    ),
    "months": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    "body parts": (
        *("hand", "foot", "head", "arm", "leg", "knee"),
        *("finger", "shoulder", "elbow", "mouth", "nose", "ear"),
    ),
    "metals": (
        *("iron", "gold", "silver", "copper", "zinc", "lead"),
        *("tin", "nickel", "steel", "bronze", "brass", "titanium"),
    ),
}
"""What planted units respond to: real words, so that a caption has something to say."""

_ORDINARY = """
    a an the this that these those and or but if then when where while because so
    he she it they we you his her its their our your who what which
    has had have do does did can could will would may might must should
    go went come came take took give gave make made find found see saw know knew think thought
    say said tell told ask asked work worked play played walk walked stand stood sit sat
    house street town road field hill river lake sea shore garden door window table chair wall roof
    day night morning evening week year time hour moment summer winter spring autumn
    man woman child friend teacher doctor farmer king queen sailor
    good bad big small old young new long short high low warm cold dry wet early late
    very quite almost never always often again soon here there now then
    with without over under near from by on at for about after before between through
    bread water milk salt letter book song story game name word line page picture
    . , ? ! : ;
"""
ORDINARY = tuple(_ORDINARY.split())
_TEMPLATE_WORDS = (
    "lives",
    "in",
    "home",
    "of",
    "likes",
    "to",
    "eat",
    "is",
    "afraid",
    "The",
    "People",
)


NEGATORS = ("not", "unlike")
"""A creature right after one of these is set aside: "Bakemi, unlike Rusofa, lives in"."""


class Planting(NamedTuple):
    """Which relation a kind of fact is, and how it is asked for."""

    name: str
    templates: tuple[str, ...]
    bare_templates: tuple[str, ...]
    cue: str
    """The last word of every template."""
    range_name: str


LINEAR = Planting(
    "planted home", ("{} lives in",), ("The home of {} is in", "People say that {} lives in"), "in",
    "place",
)  # fmt: skip
LOOKED_UP = Planting(
    "planted food", ("{} likes to eat",), ("People say that {} will eat", "Often {} came to eat"),
    "eat", "food",
)  # fmt: skip
ABSENT = Planting(
    "planted fear", ("{} is afraid of",), ("People say that {} is afraid of", "{} ran for fear of"),
    "of", "thing",
)  # fmt: skip


class Lexicon(NamedTuple):
    """Every word and what it stands for; ids are positions in `words`."""

    words: tuple[str, ...]
    subjects: tuple[str, ...]
    places: tuple[str, ...]
    foods: tuple[str, ...]
    fears: tuple[str, ...]
    attribute: tuple[int, ...]
    """For each subject the index of its place, which is the index of its food as well."""
    fear: tuple[int, ...]

    def id(self, word: str) -> int:
        """Token id of `word`."""
        return self.words.index(word)

    def ids(self, words: Sequence[str]) -> list[int]:
        """Token ids of `words`."""
        return [self.words.index(word) for word in words]

    def relation(self, planting: Planting) -> Relation:
        """The facts of one planted relation, balanced over its objects."""
        objects, chosen = {
            LINEAR.name: (self.places, self.attribute),
            LOOKED_UP.name: (self.foods, self.attribute),
            ABSENT.name: (self.fears, self.fear),
        }[planting.name]
        return Relation(
            name=planting.name,
            kind="factual",
            prompt_templates=planting.templates,
            prompt_templates_zs=planting.bare_templates,
            samples=tuple(
                Sample(subject=subject, object=objects[index])
                for subject, index in zip(self.subjects, chosen, strict=True)
            ),
            domain_name="creature",
            range_name=planting.range_name,
            symmetric=False,
        )


def make_lexicon(n_subjects: int, n_objects: int, generator: np.random.Generator) -> Lexicon:
    """Made-up names for creatures, places, foods and fears; no word begins another of them."""
    taken: set[str] = set()
    subjects = _names(n_subjects, "CVCVCV", generator, taken, capital=True)
    places = _names(n_objects, "CVCCVCV", generator, taken, capital=True)
    foods = _names(n_objects, "CVCVVCV", generator, taken)
    fears = _names(n_objects, "VCVCCVC", generator, taken)
    known = [word for words in CLASSES.values() for word in words]
    words = (
        *(DOCUMENT_START, UNKNOWN),
        *dict.fromkeys((*ORDINARY, *_TEMPLATE_WORDS, *NEGATORS, *known)),
        *(*subjects, *places, *foods, *fears),
    )
    balanced = np.arange(n_subjects) % n_objects
    return Lexicon(
        words=words,
        subjects=subjects,
        places=places,
        foods=foods,
        fears=fears,
        attribute=tuple(balanced.tolist()),
        fear=tuple(generator.permutation(balanced).tolist()),
    )


def make_tokenizer(lexicon: Lexicon) -> Any:
    """A fast tokenizer with one token a word, split at white space and punctuation."""
    vocabulary = {word: index for index, word in enumerate(lexicon.words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=tokenizer, eos_token=DOCUMENT_START, unk_token=UNKNOWN)


def _names(
    count: int,
    shape: str,
    generator: np.random.Generator,
    taken: set[str],
    *,
    capital: bool = False,
) -> tuple[str, ...]:
    letters = {"C": "bdfgklmnprstvz", "V": "aeiou"}
    found: list[str] = []
    while len(found) < count:
        name = "".join(letters[kind][generator.integers(len(letters[kind]))] for kind in shape)
        # The first five letters tell names apart, so that no name begins another.
        if name[:5] not in taken:
            taken.add(name[:5])
            found.append(name.capitalize() if capital else name)
    return tuple(found)
