"""The prompts in which errors are to be foreseen, and what counts as one.

prior        The capital of France is
             An error: the subject prefers another object of the range to the fact's own. The
             entity's representation is read before the question is over.
contextual   The capital of France is Rome. The capital of France is
             The context states another object of the entity (stated), quotes that statement as
             wrong (denied), or states it of another entity (elsewhere). Does the subject take the
             context's object for the entity? An error: it prefers the entity's own.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from dragoman.tools.editing.detection.decoder import Claims
from dragoman.tools.editing.records import EditRecord, Prompt, ask, state
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

Question: TypeAlias = Literal["prior", "contextual"]
ContextKind: TypeAlias = Literal["stated", "denied", "elsewhere"]
CONTEXT_KINDS: tuple[ContextKind, ...] = ("stated", "denied", "elsewhere")


class Range(NamedTuple):
    """The answers that can be told apart: objects by their first token."""

    ids: tuple[int, ...]
    objects: tuple[tuple[str, ...], ...]
    """For each answer the objects that begin with it."""

    @classmethod
    def of(cls, subject: LanguageSubject, objects: Sequence[str]) -> "Range":
        """The range of `objects`."""
        held: dict[int, list[str]] = {}
        for name in dict.fromkeys(objects):
            held.setdefault(subject.first_token(name), []).append(name)
        return cls(tuple(held), tuple(tuple(names) for names in held.values()))

    def answer(self, name: str) -> int:
        """Which answer an object of the range is."""
        return next(at for at, names in enumerate(self.objects) if name in names)

    def spoken_of(self, words: str) -> int:
        """The answer that `spoken` put into these words."""
        return next(at for at in range(len(self.ids)) if self.spoken(at) == words)

    def spoken(self, answer: int) -> str:
        """The answer in words."""
        return " or ".join(self.objects[answer])


class Asked(NamedTuple):
    """Prompts with what they claim; prompts of one group are not independent."""

    prompts: tuple[Prompt, ...]
    claims: Claims
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of each prompt: the kind of context, or nothing."""

    def rows(self, chosen: Sequence[int]) -> "Asked":
        """Some of the prompts."""
        return Asked(
            tuple(self.prompts[at] for at in chosen),
            self.claims.rows(chosen),
            tuple(self.groups[at] for at in chosen),
            tuple(self.kinds[at] for at in chosen),
        )


def ask_prior(template: str, facts: Sequence[Sample], among: Range) -> Asked:
    """One question for each fact; every answer of the range is a candidate."""
    claimed = np.array([among.answer(fact.object) for fact in facts], dtype=np.int64)
    return Asked(
        tuple(ask(template, fact.subject) for fact in facts),
        Claims(claimed, np.ones((len(facts), len(among.ids)), dtype=bool)),
        tuple(fact.subject for fact in facts),
        ("",) * len(facts),
    )


def ask_contextual(
    template: str,
    records: Sequence[EditRecord],
    among: Range,
    seed: int,
    kinds: Sequence[ContextKind] = CONTEXT_KINDS,
) -> Asked:
    """Each record behind each kind of context; the candidates are its new and its old object."""
    generator = np.random.default_rng(seed)
    entities = tuple(dict.fromkeys(record.entity for record in records))
    prompts, claimed, rivals, groups, held = [], [], [], [], []
    for record in records:
        others = [name for name in entities if name != record.entity] or [record.entity]
        other = others[int(generator.integers(len(others)))]
        for kind in kinds:
            told = context(kind, template, record, other)
            prompts.append(ask(template, record.entity, told))
            claimed.append(among.answer(record.new_object))
            rivals.append(among.answer(record.old_object))
            groups.append(record.entity)
            held.append(kind)
    candidates = np.zeros((len(prompts), len(among.ids)), dtype=bool)
    row = np.arange(len(prompts))
    candidates[row, claimed] = candidates[row, rivals] = True
    claims = Claims(np.array(claimed, dtype=np.int64), candidates)
    return Asked(tuple(prompts), claims, tuple(groups), tuple(held))


def context(kind: ContextKind, template: str, record: EditRecord, other: str) -> str:
    """The sentence before the question, with the space that follows it."""
    entity = other if kind == "elsewhere" else record.entity
    statement = state(template, entity, record.new_object).text
    if kind == "denied":
        return f"Some people wrongly believe this: “{statement}.” "
    return f"{statement}. "
