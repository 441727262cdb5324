"""The occupations set of ours: short biographies that tell an occupation without naming it.

In the place of Bias in Bios (De-Arteaga et al. 2019), whose texts may not be passed on. A biography
is a name, two cues of one occupation, and a frame; every occupation goes to women and men alike.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dragoman.core.records import Record
from dragoman.tools.editing.records import Context

_FILE = Path(__file__).resolve().parent.parent / "data" / "editing" / "occupations.json"


class Person(Record):
    """An invented name."""

    name: str
    gender: Literal["woman", "man"]


class Occupation(Record):
    """An occupation and sentences that are true of those who have it."""

    name: str
    cues: tuple[str, ...]


class Occupations(Record):
    """The whole set."""

    source: str
    prompt_templates: tuple[str, ...]
    frames: tuple[str, ...]
    """With holes {name}, {They}, {they}, {first} and {second}."""
    names: tuple[Person, ...]
    occupations: tuple[Occupation, ...]


class Biography(Record):
    """One person's text, and what it tells."""

    person: Person
    occupation: str
    text: str

    @property
    def told(self) -> Context:
        """The text with all that follows the name's first occurrence as the attribute."""
        end = self.text.index(self.person.name) + len(self.person.name)
        return Context(self.text, end, len(self.text), end)


def load_occupations(path: Path = _FILE) -> Occupations:
    """Ours, or a file in the same form."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return Occupations.model_validate({name: document[name] for name in Occupations.model_fields})


def write_biographies(
    data: Occupations, people: Sequence[Person], cues: slice, per_person: int, seed: int
) -> list[Biography]:
    """Some biographies of each person, each of another occupation; occupations take turns.

    Args:
        data: the set.
        people: about whom.
        cues: which of each occupation's cues are used: texts of two uses share none.
        per_person: occupations for each.
        seed: of cues and frames.
    """
    generator = np.random.default_rng(seed)
    written = []
    for place, person in enumerate(people):
        for turn in range(per_person):
            occupation = data.occupations[(place * per_person + turn) % len(data.occupations)]
            some = occupation.cues[cues]
            first, second = (some[int(at)] for at in generator.permutation(len(some))[:2])
            frame = data.frames[int(generator.integers(len(data.frames)))]
            they = "she" if person.gender == "woman" else "he"
            text = frame.format(
                name=person.name, They=they.title(), they=they, first=first, second=second
            )
            written.append(Biography(person=person, occupation=occupation.name, text=text))
    return written
