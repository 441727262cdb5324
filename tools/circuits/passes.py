"""Forward passes over prompts that begin alike: the common beginning is computed once.

A relation's prompts share their in-context examples, up to the first token in which their subjects
differ. Keys and values of that beginning are cached; each pass runs over the few tokens after it.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from dragoman.core.records import Site
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.subjects.hooks import add_at
from dragoman.tools.subjects.language import LanguageSubject

ROWS = 32
"""Prompts a pass: bounds the memory of the repeated cache."""


class Readout(NamedTuple):
    """What a subject holds at the end of a set of prompts."""

    entity: Float[Tensor, "layer batch d_model"]
    """h: `resid_post` of every layer at the last token of the entity asked about."""
    final: Float[Tensor, "batch d_model"]
    """z: output of the last block, before the final norm, at the last token."""


class SharedPrompts:
    """Prompts with a cached common beginning that ends before any entity's last token."""

    def __init__(self, subject: LanguageSubject, prompts: Sequence[RelationPrompt]) -> None:
        self._subject = subject
        batch = subject.batch([prompt.text for prompt in prompts])
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        entities = [
            len(row) + subject.last_token(prompt.text, prompt.subject_end)
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        self.n_shared = min(_common_prefix(rows), *entities)
        self.rests = [row[self.n_shared :] for row in rows]
        self.entity_at = [entity - self.n_shared for entity in entities]
        """Index of the entity's last token within each rest."""
        self._beginning = rows[0][: self.n_shared]
        self._cache = self._filled_cache()

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.rests)

    @torch.no_grad()
    def _filled_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self._subject.model.config)
        if self._beginning:
            self._run([self._beginning], 0, cache)
        return cache

    def _run(self, rows: Sequence[Sequence[int]], start: int, cache: DynamicCache) -> None:
        longest = max(map(len, rows))
        # Padding on the right needs no mask: under causal attention nothing real looks at it.
        ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
        positions = torch.arange(start, start + longest).expand(len(rows), -1)
        device = self._subject.device
        self._subject.model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def run(self, rows: Sequence[int]) -> None:
        """One pass over the rests of the prompts `rows`: what hooks see are those tokens alone."""
        cache = copy.deepcopy(self._cache)  # a DynamicCache grows in place with every pass
        if self._beginning and len(rows) > 1:
            cache.batch_repeat_interleave(len(rows))
        self._run([self.rests[row] for row in rows], self.n_shared, cache)

    @torch.no_grad()
    def read(self) -> Readout:
        """Each prompt's h at every layer, and its z."""
        entities, finals = [], []
        sites = [Site(layer=layer) for layer in range(self._subject.n_layers)]
        for start in range(0, len(self), ROWS):
            rows = range(start, min(start + ROWS, len(self)))
            with self._subject.capture(sites) as taken:
                self.run(rows)
            count = torch.arange(len(rows))
            at = torch.tensor([self.entity_at[row] for row in rows])
            entities.append(torch.stack([taken[site][count, at].float() for site in sites]))
            finals.append(self._last(taken[sites[-1]], rows))
        return Readout(torch.cat(entities, dim=1), torch.cat(finals))

    @torch.no_grad()
    def read_shifted(
        self, rows: Sequence[int], layer: int, shifts: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch d_model"]:
        """Each row's z after its shift was added to h at `layer`."""
        finals = []
        last = Site(layer=self._subject.n_layers - 1)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            at = [self.entity_at[row] for row in part]
            edit = add_at(Site(layer=layer), at, shifts[start : start + ROWS])
            # The capture goes in after the edit and so sees an edit of the last block as well.
            with self._subject.editing([edit]), self._subject.capture([last]) as taken:
                self.run(part)
            finals.append(self._last(taken[last], part))
        return torch.cat(finals)

    def _last(
        self, resid: Float[Tensor, "batch pos d_model"], rows: Sequence[int]
    ) -> Float[Tensor, "batch d_model"]:
        at = torch.tensor([len(self.rests[row]) - 1 for row in rows])
        return resid[torch.arange(len(rows)), at].float()


def _common_prefix(rows: Sequence[Sequence[int]]) -> int:
    shortest = min(map(len, rows))
    differing = (i for i in range(shortest) if len({row[i] for row in rows}) > 1)
    return next(differing, shortest)
