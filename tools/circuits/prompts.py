"""In-context prompts for a relation, and the split of its facts into three disjoint parts.

Prompts as in Hernandez et al. 2024 (arXiv:2308.09124): one line "template object" for each example,
then the template with the subject in question. For an estimation fact the other estimation facts
are the examples (leave one out), so that its own object never stands in its prompt.

The parts: *estimation* facts give the Jacobians and are the examples of every other prompt;
*validation* facts choose layer, beta and rank; *test* facts are reported. The paper chooses on the
facts that it reports; nothing here does.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from dragoman.tools.relations import Sample


class RelationPrompt(NamedTuple):
    """A prompt that ends right before the object."""

    text: str
    subject_end: int
    """Character just past the subject's occurrence in the last line, the one that is asked."""


class Held(NamedTuple):
    """Indices of the facts kept from estimation, by what they are for."""

    validation: list[int]
    test: list[int]


def relation_prompt(template: str, examples: Sequence[Sample], subject: str) -> RelationPrompt:
    """The prompt that asks for the object of `subject` after `examples`."""
    lines = [f"{template.replace('{}', each.subject)} {each.object}\n" for each in examples]
    before, _, after = template.partition("{}")
    head = "".join(lines) + before + subject
    return RelationPrompt(head + after, len(head))


def leave_one_out(template: str, samples: Sequence[Sample]) -> list[RelationPrompt]:
    """For each sample the prompt that has all *other* samples as its examples."""
    return [
        relation_prompt(template, [*samples[:i], *samples[i + 1 :]], sample.subject)
        for i, sample in enumerate(samples)
    ]


def round_robin(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """All samples, shuffled so that any first k cover as many objects as k samples can."""
    generator = np.random.default_rng(seed)
    by_object: dict[str, list[Sample]] = {}
    for index in generator.permutation(len(samples)):
        by_object.setdefault(samples[index].object.casefold(), []).append(samples[index])
    rounds = zip_longest(*by_object.values())
    return [sample for one_round in rounds for sample in one_round if sample is not None]


def deal(samples: Sequence[Sample], known: Sequence[bool], share: float, seed: int) -> Held:
    """Deal `samples` to validation (`share` of them) and test, balanced over known and objects.

    Facts are lined up by whether the subject knows them, then by object, and taken in turn:
    each part gets its share of the known facts, and each object its share of both parts.
    """
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    order.sort(key=lambda i: (not known[i], samples[i].object.casefold()))
    held = Held([], [])
    for place, index in enumerate(order):
        taken = int((place + 1) * share) > int(place * share)
        (held.validation if taken else held.test).append(index)
    return held
