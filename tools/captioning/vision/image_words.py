"""What pictures show, in words: for judges that compare words, such as a sentence embedder.

Not a description to read, but a list of what most of a picture's patches were measured to show.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from dragoman.tools.captioning.vision import colours, shapes, textures
from dragoman.tools.captioning.vision.concepts import (
    Colour,
    Concept,
    Shape,
    Texture,
    objects_known,
    phrase,
    things_known,
)
from dragoman.tools.captioning.vision.patches import PatchTable
from dragoman.tools.subjects.efficientnet import imagenet_labels

_LEAST_PATCHES = 4
_MOST = 2
"""Of each sort of thing, the most extensive."""


def image_words(table: PatchTable) -> list[str]:
    """For each picture its classes, kinds of things, colours, textures, shapes and objects."""
    columns = table.columns
    in_objects = np.concatenate([columns.object_colours, columns.object_textures], axis=2)
    sorts: tuple[tuple[Bool[ndarray, "images patches names"], Sequence[Concept]], ...] = (
        (columns.kinds, things_known()),
        (columns.colours, [Colour(name=name) for name in colours.NAMES]),
        (columns.textures, [Texture(name=name) for name in textures.NAMES]),
        (columns.shapes, [Shape(name=name) for name in shapes.NAMES]),
        (in_objects, objects_known()),
    )
    texts = []
    for image in range(table.n_images):
        words = list(_classes(columns.classes[image]))
        for holds, names in sorts:
            words += [phrase(names[row]) for row in _extensive(holds[image].sum(axis=0))]
        texts.append(", ".join(words) or "nothing in particular")
    return texts


def _classes(seen: ndarray) -> Iterator[str]:
    numbers, counts = np.unique(seen[seen >= 0], return_counts=True)
    yield from (imagenet_labels()[int(numbers[row])] for row in _extensive(counts))


def _extensive(counts: ndarray) -> Sequence[int]:
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return [int(row) for row in order if counts[row] >= _LEAST_PATCHES]
