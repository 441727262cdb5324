"""Statements about a patch of an image that code can check, and their and/or/not compositions.

As on the language side a predicate travels with the caption it gave rise to (as JSON) and predicts
where the unit is active; after "Compositional Explanations of Neurons" (Mu & Andreas 2020,
arXiv:2006.14032) and Network Dissection (Bau et al. 2017, arXiv:1704.05796).
"""

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, model_validator

from dragoman.core.records import Record
from dragoman.tools.captioning.composition import joined
from dragoman.tools.captioning.vision import colours, objects, shapes, textures
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.subjects.efficientnet import imagenet_labels

Tone: TypeAlias = Literal["bright", "dark", "vivid"]
TONES: tuple[Tone, ...] = ("bright", "dark", "vivid")


class Colour(Record):
    """A good part of the patch has this colour."""

    op: Literal["colour"] = "colour"
    name: str


class Toned(Record):
    """The patch is bright, dark or vividly coloured on the whole."""

    op: Literal["tone"] = "tone"
    name: Tone


class Texture(Record):
    """The patch and its surroundings have this texture."""

    op: Literal["texture"] = "texture"
    name: str


class Shape(Record):
    """The patch belongs to an area of one colour that has this shape."""

    op: Literal["shape"] = "shape"
    name: str


class Thing(Record):
    """The labeller takes the patch for something of this kind."""

    op: Literal["kind"] = "kind"
    name: str


class OfClass(Record):
    """The labeller takes the patch for this class of ImageNet."""

    op: Literal["class"] = "class"
    index: Annotated[int, Field(ge=0, lt=1000)]


class Object(Record):
    """The patch belongs to an object, something that stands out from the background, that has this
    colour or this texture as a whole.
    """

    op: Literal["object"] = "object"
    of: Annotated[Colour | Texture, Field(discriminator="op")]

    @model_validator(mode="after")
    def _known(self) -> "Object":
        if isinstance(self.of, Texture) and self.of.name not in objects.TEXTURES:
            raise ValueError(f"no object has the texture {self.of.name!r}")
        return self


Local: TypeAlias = Annotated[
    Colour | Toned | Texture | Shape | Thing | OfClass | Object, Field(discriminator="op")
]


class Somewhere(Record):
    """It holds at some patch of the same image."""

    op: Literal["somewhere"] = "somewhere"
    of: Local


class Not(Record):
    """It does not hold."""

    op: Literal["not"] = "not"
    of: "Concept"


class Both(Record):
    """All of the parts hold."""

    op: Literal["and"] = "and"
    of: tuple["Concept", ...]


class Either(Record):
    """One of the parts holds, or several."""

    op: Literal["or"] = "or"
    of: tuple["Concept", ...]


Concept: TypeAlias = Annotated[
    Colour | Toned | Texture | Shape | Thing | OfClass | Object | Somewhere | Not | Both | Either,
    Field(discriminator="op"),
]
Not.model_rebuild()
Both.model_rebuild()
Either.model_rebuild()
CONCEPT: TypeAdapter[Concept] = TypeAdapter(Concept)


def objects_known() -> tuple[Object, ...]:
    """Every colour and every texture that an object may have."""
    of_colour = (Object(of=Colour(name=name)) for name in colours.NAMES)
    of_texture = (Object(of=Texture(name=name)) for name in objects.TEXTURES)
    return (*of_colour, *of_texture)


def looks_known() -> tuple[Local, ...]:
    """Every look that a patch may have: all atoms but kinds of things and classes."""
    return (
        *(Colour(name=name) for name in colours.NAMES),
        *(Toned(name=tone) for tone in TONES),
        *(Texture(name=name) for name in textures.NAMES),
        *objects_known(),
        *(Shape(name=name) for name in shapes.NAMES),
    )


def things_known() -> tuple[Thing, ...]:
    """Every kind of thing that a labeller may take a patch for."""
    return tuple(Thing(name=name) for name in kinds())


def both(first: Concept, second: Concept) -> Concept:
    """Their conjunction, flat and in a fixed order, so that equal concepts are equal records."""
    return _composed(Both, first, second)


def either(first: Concept, second: Concept) -> Concept:
    """Their disjunction, flat and in a fixed order."""
    return _composed(Either, first, second)


def without(first: Concept, second: Concept) -> Concept:
    """The first and not the second."""
    return both(first, Not(of=second))


def _composed(kind: type[Both] | type[Either], first: Concept, second: Concept) -> Concept:
    ordered = joined(kind, first, second)
    return ordered[0] if len(ordered) == 1 else kind(of=ordered)


def localised(concept: Concept) -> Concept:
    """The same said of an image as a whole, in fewer words: that there is something in it.

    "An image with red areas" has red areas somewhere, which is what "red areas" says of it.
    """
    match concept:
        case Somewhere(of=inner):
            return inner
        case Either(of=parts):
            first, *rest = (localised(part) for part in parts)
            for part in rest:
                first = either(first, part)
            return first
        case _:
            return concept


def atoms(concept: Concept) -> tuple[Concept, ...]:
    """The parts that are no compositions."""
    match concept:
        case Both(of=parts) | Either(of=parts):
            return tuple(atom for part in parts for atom in atoms(part))
        case Not(of=inner):
            return atoms(inner)
        case _:
            return (concept,)


def phrase(concept: Concept) -> str:
    """The concept as a noun phrase: 'red circles', 'stripes that are not vertical'."""
    match concept:
        case Not(of=inner):
            return f"anything but {phrase(inner)}"
        case Both(of=parts):
            return _conjunction(parts)
        case Either(of=parts):
            return _listed([phrase(part) for part in parts], "or")
        case Somewhere(of=inner):
            return f"images with {phrase(inner)}"
        case _:
            return _noun(concept)


_TEXTURE_NOUNS = {
    "smooth": "smooth areas",
    "busy": "busy texture",
    "fine grain": "fine-grained texture",
    "checks": "checks",
}
_TEXTURE_ADJECTIVES = {
    "smooth": "smooth",
    "busy": "busily textured",
    "fine grain": "fine-grained",
    "checks": "checked",
    "stripes": "striped",
    "edges": "edged",
}
_SHAPE_NOUNS = {"dots": "dots"}


def _noun(concept: Concept) -> str:
    match concept:
        case Colour(name=name):
            return f"{name} areas"
        case Toned(name=name):
            return {"bright": "bright areas", "dark": "dark areas"}.get(name, "vivid colours")
        case Texture(name=name):
            return _TEXTURE_NOUNS.get(name, name)
        case Shape(name=name):
            return _SHAPE_NOUNS.get(name, f"{name}s")
        case Thing(name=name):
            return kinds()[name].plural
        case Object(of=inner):
            return f"{_adjective(inner)} objects"
        case OfClass(index=index):
            return f'things like "{imagenet_labels()[index]}"'
        case _:
            return phrase(concept)


def _adjective(concept: Concept) -> str | None:
    """The word that may stand before a noun; None where there is none."""
    match concept:
        case Colour(name=name) | Toned(name=name):
            return str(name)
        case Texture(name=name):
            direction, _, what = name.rpartition(" ")
            if direction in ("vertical", "horizontal"):
                return f"{direction}ly {_TEXTURE_ADJECTIVES[what]}"
            if direction in ("rising", "falling"):
                return f"{direction}-{_TEXTURE_ADJECTIVES[what]}"
            return _TEXTURE_ADJECTIVES[name]
        case Object(of=inner):
            return _adjective(inner)
        case _:
            return None


_HEADSHIP: tuple[type[Record], ...] = (
    Either,
    OfClass,
    Thing,
    Shape,
    Object,
    Texture,
    Colour,
    Toned,
    Somewhere,
    Not,
)


_OF_OBJECTS: tuple[type[Record], ...] = (Shape, Object)
_OF_PATCHES: tuple[type[Record], ...] = (Colour, Toned, Texture)


def _conjunction(parts: Sequence[Concept]) -> str:
    """The most concrete part is the noun; the others stand before it or after it.

    "Red circles" are red as a whole. What is said of the place alone is said apart: "red areas of
    circles".
    """
    here = [part for part in parts if isinstance(part, _OF_PATCHES)]
    if here and any(isinstance(part, _OF_OBJECTS) for part in parts):
        thing = reduce(both, (part for part in parts if part not in here))
        return f"{phrase(reduce(both, here))} of {phrase(thing)}"
    ranks = {kind: rank for rank, kind in enumerate(_HEADSHIP)}
    head, *rest = sorted(parts, key=lambda part: ranks[type(part)])
    before = [word for part in rest if (word := _adjective(part)) is not None]
    noun = phrase(head)
    if isinstance(head, Either):
        before, rest_after = [], rest
        noun = f"{noun},"
    else:
        rest_after = [part for part in rest if _adjective(part) is None]
    words = " ".join([*reversed(before), noun])
    after = [_qualifier(part, head) for part in rest_after]
    return f"{words} {_listed(after, 'and')}" if after else words


def _qualifier(concept: Concept, head: Concept) -> str:
    match concept:
        case Not(of=Somewhere(of=inner)):
            return f"in images without {phrase(inner)}"
        case Not(of=inner):
            # An object that is not red may have a red place, and a red place be of no red object.
            apart = isinstance(inner, _OF_OBJECTS) != isinstance(head, _OF_OBJECTS)
            word = None if apart else _adjective(inner)
            return f"that are not {word or phrase(inner)}"
        case Somewhere(of=inner):
            return f"in images with {phrase(inner)}"
        case _:
            return f"that are {_adjective(concept) or phrase(concept)}"


def _listed(phrases: Sequence[str], conjunction: str) -> str:
    if len(phrases) <= 1:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} {conjunction} {phrases[-1]}"
