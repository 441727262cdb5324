"""The editor and what it is compared with: each adds a direction, or asks differently, or neither.

- *no edit*: neither.
- *prefix*: the new fact is stated before the prompt.
- *replaced entity*: the prompt asks about another entity, one that has the new object.
- *identity*: the attribute vector itself is added, as long as the editor's direction.
- *mean difference*: the new object's mean attribute vector minus the old one's, as long as the
  editor's direction; and the same at a strength of its own, chosen as the editor's is.
- *random*: Gaussian, as long as the editor's direction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor

from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX, REPLACED
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.records import EditRecord, Prompt, state

Reword: TypeAlias = Callable[[int, Prompt], Prompt]
"""Record and prompt to the prompt that is asked instead."""


class Method(NamedTuple):
    """One way to make the subject answer otherwise."""

    name: str
    directions: Float[Tensor, "record d_model"] | None = None
    """What is added at the prompt's entity, for each record."""
    reword: Reword | None = None
    layer: int | None = None
    """Where it is added, if not at the comparison's layer."""

    def prompt(self, record: int, prompt: Prompt) -> Prompt:
        """The prompt that this method asks."""
        return prompt if self.reword is None else self.reword(record, prompt)


def all_methods(
    records: Sequence[EditRecord],
    knowledge: Knowledge,
    directions: Mapping[str, Float[Tensor, "record d_model"]],
) -> list[Method]:
    """Edited first, then every baseline.

    The replaced entity is left out where no entity of the relation has one of the new objects.
    """
    others = [stand_in(record, knowledge) for record in records]
    replaced = [one for one in others if one is not None]
    steered = [Method(name, vectors) for name, vectors in directions.items()]
    reworded = [Method(PREFIX, reword=_prefixed(records, knowledge))]
    if len(replaced) == len(records):
        reworded.append(Method(REPLACED, reword=_replaced(records, replaced)))
    return [
        *(one for one in steered if one.name == EDITED),
        Method(NO_EDIT),
        *reworded,
        *(one for one in steered if one.name != EDITED),
    ]


def stand_in(record: EditRecord, knowledge: Knowledge) -> str | None:
    """Another entity that has the record's new object, a known one if there is any."""
    having = [
        fact
        for fact in knowledge.facts
        if fact.object == record.new_object and fact.subject != record.entity
    ]
    having.sort(key=lambda fact: not knowledge.is_known(fact))
    return having[0].subject if having else None


def _prefixed(records: Sequence[EditRecord], knowledge: Knowledge) -> Reword:
    def reword(index: int, prompt: Prompt) -> Prompt:
        record = records[index]
        told = state(knowledge.rewrite, record.entity, record.new_object).text + ". "
        return Prompt(told + prompt.text, len(told) + prompt.entity_end)

    return reword


def _replaced(records: Sequence[EditRecord], others: Sequence[str]) -> Reword:
    def reword(index: int, prompt: Prompt) -> Prompt:
        before = prompt.text[: prompt.entity_end - len(records[index].entity)]
        named = before + others[index]
        return Prompt(named + prompt.text[prompt.entity_end :], len(named))

    return reword
