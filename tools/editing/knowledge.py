"""Which facts the subject knows, and through which template it is best asked.

A fact counts as known under a template when, of the first tokens of all objects of the range, the
true object's is the most probable next token. That is what an edit has to overturn: before it,
every other object of the range is less probable than the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dragoman.tools.editing.records import all_templates, ask
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject


@dataclass(frozen=True)
class Knowledge:
    """What the subject knows of a relation."""

    facts: tuple[Sample, ...]
    templates: tuple[str, ...]
    """By number of known facts, most first: the first one asks, the second is held out."""
    known: dict[str, frozenset[str]]
    """Template to the entities whose fact is known under it."""
    top1: dict[str, int]
    """Template to the number of facts whose object is the most probable of all tokens."""
    first_tokens: dict[str, int]
    """Object to the id of its first token."""

    @property
    def rewrite(self) -> str:
        """The template of the headline numbers."""
        return self.templates[0]

    def is_known(self, fact: Sample) -> bool:
        """Whether the subject knows the fact under the rewrite template."""
        return fact.subject in self.known[self.rewrite]

    def token(self, name: str) -> int:
        """The id of an object's first token."""
        return self.first_tokens[name]

    @property
    def objects(self) -> tuple[str, ...]:
        """The range of the facts at hand."""
        return tuple(dict.fromkeys(fact.object for fact in self.facts))


def probe_knowledge(
    subject: LanguageSubject,
    relation: Relation,
    *,
    max_facts: int,
    max_templates: int,
    seed: int,
    keep: Sequence[str] = (),
) -> Knowledge:
    """Ask for every fact (a seeded sample of `max_facts`, entities `keep` included) bare.

    At most `max_templates` templates are tried, in the order of `all_templates`.
    """
    facts = _some(relation.samples, max_facts, seed, frozenset(keep))
    objects = tuple(dict.fromkeys(fact.object for fact in facts))
    first_tokens = {name: subject.first_token(name) for name in objects}
    range_ids = torch.tensor(sorted(set(first_tokens.values())), device=subject.device)
    true_ids = torch.tensor([first_tokens[fact.object] for fact in facts], device=subject.device)
    known: dict[str, frozenset[str]] = {}
    top1: dict[str, int] = {}
    for template in all_templates(relation)[:max_templates]:
        log_probs = subject.log_probs([ask(template, fact.subject).text for fact in facts])
        preferred = range_ids[log_probs[:, range_ids].argmax(-1)] == true_ids
        known[template] = frozenset(
            fact.subject for fact, yes in zip(facts, preferred.tolist(), strict=True) if yes
        )
        top1[template] = int((log_probs.argmax(-1) == true_ids).sum())
    templates = tuple(sorted(known, key=lambda template: -len(known[template])))
    return Knowledge(facts, templates, known, top1, first_tokens)


def _some(
    facts: Sequence[Sample], limit: int, seed: int, keep: frozenset[str]
) -> tuple[Sample, ...]:
    if len(facts) <= limit:
        return tuple(facts)
    order = np.random.default_rng(seed).permutation(len(facts))
    ranked = sorted(order, key=lambda index: facts[index].subject not in keep)
    return tuple(facts[index] for index in sorted(ranked[:limit]))
