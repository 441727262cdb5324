"""From activations to captions: split the documents, propose, choose, judge.

Documents are split once, before anything is looked at: captions are found on `fit`, chosen on
`validation`, judged on `held_out`. Thresholds come from the first two.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import reranking, scoring
from dragoman.tools.captioning.contexts import Contexts, Sample, contexts_of, draw
from dragoman.tools.captioning.exemplars import Exemplar, UnitSummaries
from dragoman.tools.captioning.predicates import Predicate, holds, phrase
from dragoman.tools.captioning.proposer import PredicateSearch
from dragoman.tools.captioning.reading import read
from dragoman.tools.captioning.reranking import Ranked
from dragoman.tools.captioning.tokens import Column, TokenTable

FIT_SHARE, VALIDATION_SHARE = 0.4, 0.2
BUILT_IN = "predicate search"
_BEFORE, _AFTER = 8, 3
"""Tokens of context that are shown around a peak."""


class Part(NamedTuple):
    """The tokens of some of the documents."""

    table: TokenTable
    contexts: Contexts
    activations: Float[ndarray, "tokens units"]


class Candidate(NamedTuple):
    """A caption that may be given to a unit, with what it says in checkable form."""

    caption: str
    predicate: Predicate
    proposer: str


class Chosen(NamedTuple):
    """The candidate with the highest pointwise mutual information."""

    candidate: Candidate
    ranked: Ranked
    n_candidates: int


class Captioner:
    """Captions for the first `n_requested` columns of `activations`; the others are decoys.

    `activations` is [tokens units], in the order of `table`. `priors` gives log p(d), in nats, of
    captions.
    """

    def __init__(
        self,
        table: TokenTable,
        activations: Float[ndarray, "tokens units"],
        n_requested: int,
        *,
        seed: int,
        priors: Callable[[Sequence[str]], list[float]],
    ) -> None:
        n_documents = int(table.document.max()) + 1
        first, second = (
            round(n_documents * FIT_SHARE),
            round(n_documents * (FIT_SHARE + VALIDATION_SHARE)),
        )
        self.n_requested, self._seed, self._priors = n_requested, seed, priors
        self.fit = _part(table, activations, table.document < first)
        self.validation = _part(
            table, activations, (table.document >= first) & (table.document < second)
        )
        self.held_out = _part(table, activations, table.document >= second)
        self.summaries = UnitSummaries(activations.shape[1])
        for part in (self.fit, self.validation):
            for document in np.unique(part.table.document):
                self.summaries.update(
                    int(document), part.activations[part.table.document == document]
                )
        self.thresholds = self.summaries.thresholds()
        self.samples = [self._sample(unit) for unit in range(activations.shape[1])]
        self._search = PredicateSearch(self.fit.table)

    def dead(self, unit: int) -> bool:
        """The unit is never above zero on the captioner's documents, or always the same."""
        return bool(self.summaries.dead()[unit])

    def exemplars(self, unit: int) -> list[tuple[Exemplar, tuple[str, str, str]]]:
        """The unit's strongest contexts above its threshold, with the text around the peak."""
        return [
            (exemplar, self._around(exemplar))
            for exemplar in self.summaries.exemplars(unit)
            if exemplar.activation > self.thresholds[unit]
        ]

    def silent(self, unit: int) -> str:
        """The text of a random context in which the unit stays below its threshold."""
        part = self.fit
        quiet = np.flatnonzero(~part.contexts.any_in(self.active(part, unit)))
        generator = np.random.default_rng([self._seed, 1, unit])
        row = generator.choice(quiet)
        end = np.append(part.contexts.starts, part.table.n)[row + 1]
        return "".join(part.table.surface[part.contexts.starts[row] : end])

    def active(self, part: Part, unit: int) -> Column:
        """Tokens at which the unit exceeds its threshold."""
        column: Column = part.activations[:, unit] > self.thresholds[unit]
        return column

    def propose(self, unit: int) -> list[Candidate]:
        """What the predicate search finds."""
        proposals = self._search.propose(self.active(self.fit, unit))
        return [
            Candidate(phrase(found.predicate), found.predicate, BUILT_IN) for found in proposals
        ]

    def choose(self, unit: int, candidates: Sequence[Candidate], tau: float) -> Chosen | None:
        """The candidate with the highest log p(d|E) - tau log p(d); None without candidates."""
        if not candidates:
            return None
        truth_fit, truth = (
            part.contexts.any_in(self.active(part, unit)) for part in (self.fit, self.validation)
        )
        priors = self._priors([candidate.caption for candidate in candidates])
        ranked = [
            Ranked(
                reranking.log_likelihood(
                    self.said(self.fit, candidate.predicate),
                    truth_fit,
                    self.said(self.validation, candidate.predicate),
                    truth,
                ),
                prior,
            )
            for candidate, prior in zip(candidates, priors, strict=True)
        ]
        best = reranking.best(ranked, tau)
        return Chosen(candidates[best], ranked[best], len(candidates))

    def said(self, part: Part, predicate: Predicate) -> Column:
        """For each context, whether the predicate says that the unit is active in it."""
        return part.contexts.any_in(holds(predicate, part.table))

    def score(self, unit: int, chosen: Sequence[Predicate | None]) -> scoring.Score | None:
        """Detection and floor of the unit's caption; None where it cannot be scored.

        `chosen` has one entry for each requested unit.
        """
        predicate, sample = chosen[unit], self.samples[unit]
        if predicate is None or not scoring.scorable(sample):
            return None
        own = self.said(self.held_out, predicate)
        others: list[tuple[Column | None, Sample]] = []
        for other, other_sample in enumerate(self.samples):
            if other != unit:
                rival = chosen[other] if other < self.n_requested else None
                said = None if rival is None else self.said(self.held_out, rival)
                others.append((said, other_sample))
        floor = scoring.floor(own, sample, others)
        return scoring.Score(scoring.detect(own, sample), floor) if len(floor) > 1 else None

    def hard_detection(self, unit: int, predicate: Predicate) -> scoring.Detection | None:
        """Detection against silent contexts that hold a token like the unit's exemplars' peaks."""
        sample = self.samples[unit]
        hard = Sample(sample.active, sample.hard, sample.hard)
        if not scoring.scorable(hard):
            return None
        return scoring.detect(self.said(self.held_out, predicate), hard)

    def _sample(self, unit: int) -> Sample:
        part = self.held_out
        peaks = {self._peak(exemplar) for exemplar in self.summaries.exemplars(unit)}
        lookalike = np.array([piece in peaks for piece in part.table.piece], dtype=bool)
        return draw(
            part.contexts,
            part.table,
            part.activations[:, unit],
            float(self.thresholds[unit]),
            lookalike,
            seed=self._seed,
        )

    def _located(self, exemplar: Exemplar) -> tuple[TokenTable, int]:
        for part in (self.fit, self.validation):
            start = int(np.searchsorted(part.table.document, exemplar.document))
            if start < part.table.n and part.table.document[start] == exemplar.document:
                return part.table, start + exemplar.position
        raise IndexError(f"document {exemplar.document} is in neither of the captioner's parts")

    def _peak(self, exemplar: Exemplar) -> str:
        table, row = self._located(exemplar)
        piece: str = table.piece[row]
        return piece

    def _around(self, exemplar: Exemplar) -> tuple[str, str, str]:
        table, row = self._located(exemplar)
        left = max(row - _BEFORE, row - exemplar.position)
        same = table.document[row + 1 : row + 1 + _AFTER] == exemplar.document
        before = "".join(table.surface[left:row])
        after = "".join(table.surface[row + 1 : row + 1 + _AFTER][same])
        return before, str(table.surface[row]), after


def readable(captions: Sequence[str], proposer: str) -> tuple[list[Candidate], int]:
    """Free-text captions as candidates, and how many of them say nothing that can be checked."""
    candidates = []
    for caption in captions:
        predicate = read(caption)
        if predicate is not None:
            candidates.append(Candidate(caption, predicate, proposer))
    return candidates, len(captions) - len(candidates)


def _part(table: TokenTable, activations: Float[ndarray, "tokens units"], chosen: Column) -> Part:
    rows = table.rows(chosen)
    return Part(rows, contexts_of(rows), activations[chosen])
