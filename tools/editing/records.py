"""Edit records in the shape of CounterFact (Meng et al. 2022), built from a relation.

A record asks for one change: `entity` has `old_object`, and is to have `new_object`, another
object of the relation's range. Training, validation and test share no entity.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dragoman.core.errors import ToolError
from dragoman.core.records import Record
from dragoman.tools.relations import Relation, Sample

MINIMUM_KNOWN = 6
"""Fewer known facts leave less than three for the test, one for validation, two to train on."""
N_FOLDS = 3


class EditRecord(Record):
    """One change of one fact."""

    entity: str
    old_object: str
    new_object: str


class Prompt(NamedTuple):
    """A text that mentions the entity to be edited."""

    text: str
    entity_end: int
    """Character just past the entity's occurrence that is edited."""


class Context(NamedTuple):
    """A sentence that states an attribute of an entity."""

    text: str
    start: int
    end: int
    """`text[start:end]` is the attribute."""
    entity_end: int | None = None
    """Character just past the entity's first occurrence; None if it does not occur."""


class Split(NamedTuple):
    """Facts by use; no entity stands in two of them."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    test_unknown: tuple[Sample, ...]
    """Held out as well, but the subject does not know them: reported apart."""


def ask(template: str, entity: str, before: str = "") -> Prompt:
    """`template` about `entity`, after the text `before` (which may be empty)."""
    lead = before + template[: template.index("{}")]
    text = before + template.replace("{}", entity)
    return Prompt(text, len(lead) + len(entity))


def state(template: str, entity: str, new_object: str) -> Context:
    """The sentence that gives `entity` the object; the attribute is the object itself."""
    text = f"{template.replace('{}', entity)} {new_object}"
    return Context(text, len(text) - len(new_object), len(text), ask(template, entity).entity_end)


def all_templates(relation: Relation) -> tuple[str, ...]:
    """Every template once: those for a bare question first."""
    return tuple(dict.fromkeys((*relation.prompt_templates_zs, *relation.prompt_templates)))


def split_facts(
    known: Sequence[Sample], unknown: Sequence[Sample], seed: int, fold: int = 0
) -> Split:
    """Two fifths of the known facts for the test, one fifth for validation, the rest to train on.

    Unknown facts go to training (the target is learnt from them all the same) and, two fifths of
    them, to a test set of their own. Folds 0, 1 and 2 rotate the facts, so that each fact is in
    the test set of at least one of them.

    Raises:
        ToolError: fewer than `MINIMUM_KNOWN` known facts.
    """
    if len(known) < MINIMUM_KNOWN:
        raise ToolError(
            f"relation: the subject knows {len(known)} of the {len(known) + len(unknown)} facts; "
            f"at least {MINIMUM_KNOWN} known facts are needed to train and test on different "
            "entities: choose a relation that the subject knows"
        )
    generator = np.random.default_rng(seed)
    n_test = math.ceil(0.4 * len(known))
    n_validation = max(1, round(0.2 * len(known)))
    n_unknown = math.ceil(0.4 * len(unknown))
    known = _rotated(_shuffled(known, generator), fold * n_test)
    unknown = _rotated(_shuffled(unknown, generator), fold * n_unknown)
    return Split(
        train=known[n_test + n_validation :] + unknown[n_unknown:],
        validation=known[n_test : n_test + n_validation],
        test=known[:n_test],
        test_unknown=unknown[:n_unknown],
    )


def swap_objects(
    facts: Iterable[Sample],
    objects: Sequence[str],
    first_tokens: dict[str, int],
    seed: int,
    *,
    limit: int | None = None,
    per_entity: int | None = None,
) -> list[EditRecord]:
    """Records that give each fact's entity other objects of the range.

    An object whose first token is that of the old one is never a target: the two could not be told
    apart. Objects take turns, so that each is a target about equally often.

    Args:
        facts: what is to be changed.
        objects: the range.
        first_tokens: object to the id of its first token.
        seed: of the order.
        limit: at most so many records in all.
        per_entity: at most so many for each entity.
    """
    generator = np.random.default_rng(seed)
    facts = _shuffled(tuple(facts), generator)
    used = dict.fromkeys(objects, 0)
    taken = {fact.subject: set[str]() for fact in facts}
    rounds = len(objects) if per_entity is None else per_entity
    records: list[EditRecord] = []
    for _ in range(rounds):
        for fact in facts:
            if limit is not None and len(records) >= limit:
                return records
            free = [
                name
                for name in objects
                if first_tokens[name] != first_tokens[fact.object]
                and name not in taken[fact.subject]
            ]
            if not free:
                continue
            fewest = min(used[name] for name in free)
            rarest = [name for name in free if used[name] == fewest]
            chosen = rarest[int(generator.integers(len(rarest)))]
            used[chosen] += 1
            taken[fact.subject].add(chosen)
            records.append(
                EditRecord(entity=fact.subject, old_object=fact.object, new_object=chosen)
            )
    return records


def _shuffled(facts: Sequence[Sample], generator: np.random.Generator) -> tuple[Sample, ...]:
    return tuple(facts[int(index)] for index in generator.permutation(len(facts)))


def _rotated(facts: tuple[Sample, ...], by: int) -> tuple[Sample, ...]:
    start = by % len(facts) if facts else 0
    return facts[start:] + facts[:start]
