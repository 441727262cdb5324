"""Clean and corrupted runs of the same fact: what every intervention here is measured between.

A *duel* is a known fact (clean) beside another known fact of the relation with as many tokens
(corrupted): the prompts differ in the entity alone. The answer is the logit difference between
the two objects' first tokens; an intervention that puts clean activations into the corrupted run
restores 0 of it (nothing) to 1 (all). Counterfactual prompts after Vig et al. 2020 and Wang et
al. 2022; noise on the entity's embeddings after Meng et al. 2022.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.circuits.study import Facts
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import LanguageSubject

MINIMUM_GAP = 1.0
"""Logits between the clean and the corrupted answer; below it a restored share is noise."""
NOISE_SCALE = 3.0
"""Standard deviations of the entities' embeddings, as published (Meng et al. 2022)."""


class Duel(NamedTuple):
    """Rows of a set of prompts."""

    clean: int
    corrupted: int


class Matched(NamedTuple):
    """The duels of some facts, and how many facts found no opponent."""

    duels: list[Duel]
    n_failed: int


def match(facts: Facts, rows: Sequence[int], opponents: Sequence[int], seed: int) -> Matched:
    """A random opponent for each known fact in `rows`: as many tokens, another first token."""
    generator = np.random.default_rng(seed)
    prompts, duels = facts.prompts, list[Duel]()
    for row in rows:
        possible = [
            other
            for other in opponents
            if facts.first[other] != facts.first[row]
            and len(prompts.rests[other]) == len(prompts.rests[row])
            and prompts.entity_at[other] == prompts.entity_at[row]
        ]
        if possible:
            duels.append(Duel(row, int(generator.choice(possible))))
    return Matched(duels, len(rows) - len(duels))


class Arena:
    """Runs of some duels: their answers under edits, and their activations."""

    def __init__(
        self, subject: LanguageSubject, facts: Facts, template: str, duels: Sequence[Duel]
    ) -> None:
        self.subject, self.facts, self.duels = subject, facts, tuple(duels)
        self._prompts = facts.prompts
        self.clean = [duel.clean for duel in duels]
        self.corrupted = [duel.corrupted for duel in duels]
        self.entity_start = [self._entity_start(template, row) for row in self.clean]
        """First token of the entity within each rest; 0 where it lies in what all share."""
        self.entity_end = [self._prompts.entity_at[row] for row in self.clean]
        self.last = [len(self._prompts.rests[row]) - 1 for row in self.clean]

    def __len__(self) -> int:
        """Number of duels."""
        return len(self.duels)

    def _entity_start(self, template: str, row: int) -> int:
        entity = self.facts.samples[row].subject
        prompt = relation_prompt(template, self.facts.estimation, entity)
        start = prompt.subject_end - len(entity)
        first, _ = self.subject.token_span(prompt.text, start, prompt.subject_end)
        return max(0, len(self._prompts.rests[row]) + first)

    def tokens(self, duel: int) -> list[str]:
        """The tokens of a clean prompt after what all prompts share."""
        return [self.subject.token_text(each) for each in self._prompts.rests[self.clean[duel]]]

    def answer(
        self, rows: Sequence[int], of: Sequence[int], edits: Sequence[Edit] = ()
    ) -> Float[Tensor, " batch"]:
        """Logit of the clean object minus that of the corrupted one, at the last token.

        Args:
            rows: prompts to run.
            of: the duel whose objects are compared, for each row.
            edits: what is changed on the way.
        """
        top = Site(layer=self.subject.n_layers - 1)
        with self.subject.editing(edits), self.subject.capture([top]) as taken:
            self._prompts.run(rows)
        index = torch.arange(len(rows))
        final = taken[top][index, [self.last[duel] for duel in of]]
        first = self.facts.first.to(final.device)
        wanted = first[[self.clean[duel] for duel in of]]
        other = first[[self.corrupted[duel] for duel in of]]
        logits = self.subject.decode(final).float()
        return logits[index, wanted] - logits[index, other]

    @torch.no_grad()
    def activations(
        self, rows: Sequence[int], sites: Sequence[Site], edits: Sequence[Edit] = ()
    ) -> dict[Site, Float[Tensor, "batch pos d_model"]]:
        """What stands at `sites` in a run of `rows`."""
        with self.subject.editing(edits), self.subject.capture(sites) as taken:
            self._prompts.run(rows)
        return {site: each.clone() for site, each in taken.items()}

    @torch.no_grad()
    def noise(self, seed: int) -> Float[Tensor, "duel pos d_model"]:
        """Gaussian noise for the entities' embeddings, nought elsewhere."""
        site = Site(layer=0, kind="resid_pre")
        embedded = self.activations(self.clean, [site])[site]
        inside = torch.zeros(embedded.shape[:2], device=embedded.device)
        for duel in range(len(self)):
            inside[duel, self.entity_start[duel] : self.entity_end[duel] + 1] = 1.0
        scale = NOISE_SCALE * embedded[inside.bool()].std()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(embedded.shape, generator=generator).to(embedded)
        return scale * drawn * inside[..., None]

    def role(self, duel: int, position: int) -> str:
        """What a token of a clean prompt is, so that prompts of different lengths compare."""
        start, end, last = self.entity_start[duel], self.entity_end[duel], self.last[duel]
        if position == end:
            return "last entity token"
        if position == last:
            return "last token"
        if position < start:
            return "before the entity"
        if position > end:
            return "after the entity"
        return "first entity token" if position == start else "middle entity tokens"


ROLES = (
    "before the entity",
    "first entity token",
    "middle entity tokens",
    "last entity token",
    "after the entity",
    "last token",
)
