"""What keeps a fact from being asked or scored, so that it is counted and told and never dropped.

- The object has no tokens for the subject.
- The entity does not occur in the prompt, or a token of it reaches into another word: what is read
  there is not the entity's alone.
- What the subject holds or answers there is not a finite number.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dragoman.core.errors import ToolError
from dragoman.core.records import JsonObject, Record
from dragoman.tools.editing.detection.decoder import Flags
from dragoman.tools.editing.detection.reading import Readings
from dragoman.tools.editing.placing import shared_token
from dragoman.tools.editing.records import Prompt, ask
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

NOT_FINITE = "what the subject holds or answers there is not a finite number"
NO_OTHER_OBJECT = "no other object of the range can be told from its own by the first token"


class Failed(Record):
    """A fact that was to be scored and could not be, and why."""

    entity: str
    object: str
    reason: str

    def row(self) -> JsonObject:
        """As JSON."""
        found: JsonObject = self.model_dump(mode="json")
        return found


def object_fault(subject: LanguageSubject, name: str) -> str | None:
    """Why an object cannot be an answer; None if it can."""
    try:
        subject.first_token(name)
    except ToolError:
        return f"the object {name!r} has no tokens for this subject"
    return None


def entity_fault(subject: LanguageSubject, prompt: Prompt, entity: str) -> str | None:
    """Why an entity's representation cannot be read in a prompt; None if it can."""
    start = prompt.entity_end - len(entity)
    if not entity or prompt.text[max(0, start) : prompt.entity_end] != entity:
        return f"the entity {entity!r} does not occur in the prompt {prompt.text!r}"
    shared = shared_token(subject, prompt.text, start, prompt.entity_end)
    if shared is None:
        return None
    return f"the entity {entity!r} shares the token {shared!r} with another word of the prompt"


def sound_objects(
    subject: LanguageSubject, facts: Sequence[Sample]
) -> tuple[tuple[Sample, ...], list[Failed]]:
    """Facts whose object has tokens, and the others."""
    names = {fact.object for fact in facts}
    faults = {name: object_fault(subject, name) for name in names}
    return _parted(facts, lambda fact: faults[fact.object])


def sound_entities(
    subject: LanguageSubject, facts: Sequence[Sample], templates: Sequence[str]
) -> tuple[tuple[Sample, ...], list[Failed]]:
    """Facts whose entity can be read under every template, and the others."""

    def fault(fact: Sample) -> str | None:
        found = (
            entity_fault(subject, ask(template, fact.subject), fact.subject)
            for template in templates
        )
        return next((one for one in found if one is not None), None)

    return _parted(facts, fault)


def finite(readings: Readings) -> Flags:
    """For each prompt whether all that was read of it is finite."""
    found: Flags = (
        np.isfinite(readings.entity).all((1, 2))
        & np.isfinite(readings.answers).all(1)
        & np.isfinite(readings.top)
        & np.isfinite(readings.entropy)
    )
    return found


def failed(facts: Sequence[Sample], entities: set[str], reason: str) -> list[Failed]:
    """The facts of some entities, for one reason."""
    return [
        Failed(entity=fact.subject, object=fact.object, reason=reason)
        for fact in facts
        if fact.subject in entities
    ]


def _parted(
    facts: Sequence[Sample], fault: Callable[[Sample], str | None]
) -> tuple[tuple[Sample, ...], list[Failed]]:
    sound, others = [], []
    for fact in facts:
        reason = fault(fact)
        if reason is None:
            sound.append(fact)
        else:
            others.append(Failed(entity=fact.subject, object=fact.object, reason=reason))
    return tuple(sound), others
