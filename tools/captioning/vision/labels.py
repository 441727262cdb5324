"""Kinds of things above the classes of ImageNet: a dog is a mammal is an animal.

Like the hypernyms of WordNet, from which the classes were taken, but fewer, by looks rather than by
descent, and made by hand. A class may be of several kinds, or of none.
"""

import json
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N_CLASSES = 1000


class Kind(NamedTuple):
    """A named set of classes."""

    name: str
    plural: str
    of: str | None
    """The next more general kind; it holds all the classes of this one."""
    classes: frozenset[int]


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    text = resources.files("dragoman.tools").joinpath("data/vision/kinds.json").read_text("utf-8")
    return {
        row["name"]: Kind(
            row["name"],
            row["plural"],
            row["of"],
            frozenset(each for first, last in row["classes"] for each in range(first, last + 1)),
        )
        for row in json.loads(text)
    }


@cache
def memberships() -> npt.NDArray[np.float32]:
    """[classes, kinds]: 1 where a class is of a kind; kinds in the order of `kinds()`."""
    table = np.zeros((N_CLASSES, len(kinds())), np.float32)
    for column, kind in enumerate(kinds().values()):
        table[sorted(kind.classes), column] = 1
    return table
