"""Edits through the inverse of a relation's map, in the form in which editors are compared.

To give an entity the object of another one, the donor, h at the entity moves by W^+_r (z_donor - z)
(Hernandez et al. 2024, section 3.3), or by an inverse that fades out around the rank instead of
ending there. Both z come from the relation's in-context prompts; the direction is then added
wherever the entity is mentioned. Layer, rank and form are chosen on validation entities by the
harmonic mean of efficacy and neighbourhood specificity.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import JsonObject
from dragoman.tools.circuits.approximation import AffineMap, Inverse, invert
from dragoman.tools.circuits.faithfulness import decode, first_tokens, hits
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import leave_one_out, relation_prompt, round_robin
from dragoman.tools.circuits.selection import damped_ranks
from dragoman.tools.editing.judging import Judge, token_of
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.metrics import harmonic_mean
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, edit_probes, neighbour_probes
from dragoman.tools.editing.records import EditRecord, Split
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject


class Held(NamedTuple):
    """What the subject holds of every fact, asked after the estimation facts."""

    facts: tuple[Sample, ...]
    entity: Float[Tensor, "layer fact d_model"]
    """h."""
    final: Float[Tensor, "fact d_model"]
    """z."""
    known: list[bool]

    def row(self, entity: str) -> int:
        """The place of an entity's fact."""
        return next(row for row, fact in enumerate(self.facts) if fact.subject == entity)


class Trial(NamedTuple):
    """What one layer, rank and form of the inverse did on validation entities."""

    layer: int
    rank: int
    damped: bool
    """Whether the inverse fades out around the rank or is cut there, as published."""
    efficacy: float
    neighbourhood_specificity: float

    @property
    def score(self) -> float:
        """Harmonic mean of the two."""
        return harmonic_mean([self.efficacy, self.neighbourhood_specificity])

    def account(self) -> JsonObject:
        """As JSON."""
        return {**self._asdict(), "score": round(self.score, 6)}


def estimation_facts(
    subject: LanguageSubject, template: str, split: Split, count: int, seed: int
) -> list[Sample]:
    """Training facts, those first that the subject names after the others; objects balanced."""
    ordered = round_robin(split.train, seed)
    few = ordered[: 3 * count]
    prompts = [
        relation_prompt(
            template, [other for other in few[: count + 1] if other != fact], fact.subject
        )
        for fact in few
    ]
    finals = torch.cat([SharedPrompts(subject, [prompt]).read().final for prompt in prompts])
    named = hits(decode(subject, finals, first_tokens(subject, few)).texts, few)
    places = sorted(range(len(few)), key=lambda place: not named[place])
    return [few[place] for place in places[:count]]


def hold(
    subject: LanguageSubject,
    template: str,
    facts: Sequence[Sample],
    estimation: Sequence[Sample],
) -> Held:
    """Ask every fact after the estimation facts; those themselves after the others of them."""
    others = [fact for fact in facts if fact not in estimation]
    readouts = [
        SharedPrompts(
            subject, [relation_prompt(template, estimation, fact.subject) for fact in others]
        ).read(),
        *(
            SharedPrompts(subject, [prompt]).read()
            for prompt in leave_one_out(template, estimation)
        ),
    ]
    ordered = (*others, *estimation)
    final = torch.cat([each.final for each in readouts])
    said = decode(subject, final, first_tokens(subject, ordered)).texts
    entity = torch.cat([each.entity for each in readouts], dim=1)
    return Held(ordered, entity, final, hits(said, ordered))


def choose_donors(held: Held, records: Sequence[EditRecord], seed: int) -> list[int]:
    """For each record a fact with its new object: one that the subject knows, if there is one."""
    generator = np.random.default_rng(seed)
    donors = []
    for record in records:
        having = [
            row
            for row, fact in enumerate(held.facts)
            if fact.object == record.new_object and fact.subject != record.entity
        ]
        known = [row for row in having if held.known[row]]
        donors.append(int(generator.choice(known or having)))
    return donors


def changes(
    held: Held, records: Sequence[EditRecord], donors: Sequence[int]
) -> Float[Tensor, "record d_model"]:
    """z_donor - z."""
    return held.final[list(donors)] - held.final[[held.row(one.entity) for one in records]]


def swaps(
    held: Held, records: Sequence[EditRecord], donors: Sequence[int], layer: int
) -> Float[Tensor, "record d_model"]:
    """h_donor - h: the whole h of the donor in the entity's place, no map taking part."""
    entity = held.entity[layer]
    return entity[list(donors)] - entity[[held.row(one.entity) for one in records]]


class Chosen(NamedTuple):
    """Where the edit acts, and through which inverse."""

    best: Trial
    cut: Trial
    """The best of those as published."""
    inverses: dict[int, Inverse]
    """By layer."""
    trials: list[Trial]

    def directions(
        self, trial: Trial, change: Float[Tensor, "record d_model"]
    ) -> Float[Tensor, "record d_model"]:
        """What moves z by `change`, at the trial's layer."""
        inverse = self.inverses[trial.layer]
        form = inverse.damped if trial.damped else inverse.shifts
        return form(change, [trial.rank])[0]


def choose_edit(
    subject: LanguageSubject,
    knowledge: Knowledge,
    maps: Mapping[int, AffineMap],
    ranks: Sequence[int],
    held: Held,
    records: Sequence[EditRecord],
    neighbours: Sequence[Sample],
    seed: int,
    step: Callable[[int, int, str], None],
) -> Chosen:
    """Try every layer of `maps` with every rank on validation records, and some ranks damped.

    Of equals the first is chosen.
    """
    token = token_of(subject, knowledge)
    rewrites = edit_probes(records, knowledge, [knowledge.rewrite])
    spared = neighbour_probes(records, knowledge, token, neighbours, 1, seed)
    change = changes(held, records, choose_donors(held, records, seed))
    trials: list[Trial] = []
    inverses: dict[int, Inverse] = {}
    fading = damped_ranks(ranks)[::2]
    forms = [(rank, False) for rank in ranks] + [(rank, True) for rank in fading]
    for done, (layer, relation_map) in enumerate(maps.items()):
        step(done, len(maps), f"trying edits through the inverse at layer {layer}")
        inverses[layer] = invert(relation_map)
        edits = Judge(subject, rewrites, records, token, layer)
        kept = [
            Judge(subject, spared[kind], records, token, layer)
            for kind in NEIGHBOUR_KINDS
            if spared[kind]
        ]
        before = [judge.ask(None).kept() for judge in kept]
        inverse = inverses[layer]
        tried = [*inverse.shifts(change, ranks), *inverse.damped(change, fading)]
        for (rank, damped), directions in zip(forms, tried, strict=True):
            changed = edits.ask(directions).changed()
            keeps = [
                has
                for judge, had in zip(kept, before, strict=True)
                for has, held_it in zip(judge.ask(directions).kept(), had, strict=True)
                if held_it
            ]
            efficacy = sum(changed) / len(changed)
            # Where nothing can be kept, efficacy alone decides.
            specificity = sum(keeps) / len(keeps) if keeps else 1.0
            trials.append(Trial(layer, rank, damped, efficacy, specificity))
    best, cut = (
        max((trial for trial in trials if trial.damped in allowed), key=lambda trial: trial.score)
        for allowed in ((True, False), (False,))
    )
    return Chosen(best, cut, inverses, trials)
