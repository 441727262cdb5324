"""The prompts on which an edit is judged: does it take hold, and does it stay where it belongs.

Neighbourhood specificity is often reported as 1 because an edit at the entity's token cannot touch
a prompt in which the entity does not occur. That is true and says nothing. Here the edited entity
does occur in the neighbour's prompt, the edit acts on it there, and the question is about another
entity of the relation:

    mentioned   One of them is {edited}. The capital of {neighbour} is
    related     The capital of {edited} is {old object}. The capital of {neighbour} is
    after       The capital of {neighbour}, unlike {edited}, is

The neighbour keeps its answer where its true object is still more probable than the new one.
`at_neighbour` is the control that must fail: the same direction, added at the neighbour itself.
`unrelated` prompts mention the entity and ask nothing of the relation: the collateral.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.records import EditRecord, Prompt, ask
from dragoman.tools.relations import Sample

Kind: TypeAlias = Literal[
    "rewrite", "paraphrase", "mentioned", "related", "after", "at_neighbour", "unrelated"
]
NEIGHBOUR_KINDS: tuple[Kind, ...] = ("mentioned", "related", "after")


_UNRELATED = (
    "Yesterday somebody told me a story about {} and",
    "I had never thought much about {} before, but",
    "They were still talking of {} when suddenly the",
)


class Probe(NamedTuple):
    """One prompt under one record's edit."""

    record: int
    """Which record's direction is added."""
    prompt: Prompt
    """Where it is added."""
    old_object: str
    """What is compared with the record's new object: the true answer to this prompt."""
    group: str
    """Probes of one group are not independent of each other."""


def edit_probes(
    records: Sequence[EditRecord],
    knowledge: Knowledge,
    templates: Sequence[str],
    *,
    by_prompt: bool = False,
    known_only: bool = True,
) -> list[Probe]:
    """Each record asked through each template under which its fact is known.

    Args:
        records: the edits.
        knowledge: of the relation.
        templates: to ask through.
        by_prompt: prompts count as independent (one edit, many prompts) instead of entities.
        known_only: leave out prompts under which the fact is not known.
    """
    return [
        Probe(
            index,
            prompt := ask(template, record.entity),
            record.old_object,
            prompt.text if by_prompt else record.entity,
        )
        for index, record in enumerate(records)
        for template in templates
        if not known_only or record.entity in knowledge.known[template]
    ]


def neighbour_probes(
    records: Sequence[EditRecord],
    knowledge: Knowledge,
    token: Callable[[str], int],
    neighbours: Sequence[Sample],
    per_record: int,
    seed: int,
    *,
    by_prompt: bool = False,
) -> dict[Kind, list[Probe]]:
    """For each record, `per_record` known neighbours in every shape of prompt.

    `token` gives the first token of an object, be it in the range or not.
    """
    generator = np.random.default_rng(seed)
    template = knowledge.rewrite
    probes: dict[Kind, list[Probe]] = {kind: [] for kind in (*NEIGHBOUR_KINDS, "at_neighbour")}
    for index, record in enumerate(records):
        for fact in _neighbours(record, knowledge, token, neighbours, per_record, generator):
            edited = record.entity
            told = f"{template.replace('{}', edited)} {record.old_object}. "
            prompts: dict[Kind, Prompt] = {
                "mentioned": _before(f"One of them is {edited}", ". ", template, fact.subject),
                "related": Prompt(
                    told + template.replace("{}", fact.subject),
                    ask(template, edited).entity_end,
                ),
                "after": ask(template.replace("{}", f"{fact.subject}, unlike {{}},"), edited),
                "at_neighbour": ask(template, fact.subject),
            }
            for kind, prompt in prompts.items():
                group = fact.subject if by_prompt else edited
                probes[kind].append(Probe(index, prompt, fact.object, group))
    return probes


def unrelated_probes(records: Sequence[EditRecord], per_entity: int) -> list[Probe]:
    """Each entity once, in at most three prompts that ask nothing: how far the edit moves those."""
    first = {record.entity: index for index, record in reversed(list(enumerate(records)))}
    return [
        Probe(index, ask(template, entity), records[index].old_object, entity)
        for entity, index in first.items()
        for template in _UNRELATED[:per_entity]
    ]


def _before(statement: str, stop: str, template: str, neighbour: str) -> Prompt:
    """A statement that ends with the edited entity, then the question about the neighbour."""
    return Prompt(statement + stop + template.replace("{}", neighbour), len(statement))


def _neighbours(
    record: EditRecord,
    knowledge: Knowledge,
    token: Callable[[str], int],
    facts: Sequence[Sample],
    count: int,
    generator: np.random.Generator,
) -> list[Sample]:
    """Known facts of other entities whose answer the new object can be told from."""
    new_id = token(record.new_object)
    fit = [
        fact
        for fact in facts
        if fact.subject != record.entity
        and knowledge.is_known(fact)
        and token(fact.object) != new_id
    ]
    return [fit[int(index)] for index in generator.permutation(len(fit))[:count]]
