"""From activations to captions: split the documents, propose, choose, judge.

Documents are split once, before anything is looked at: captions are found on `fit`, chosen on
`validation`, judged on `held_out`. Thresholds come from the first two.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import reranking, scoring, senses
from dragoman.tools.captioning.contexts import Sample, draw, ends_of
from dragoman.tools.captioning.exemplars import Exemplar, UnitSummaries
from dragoman.tools.captioning.judges import FreeTextJudge
from dragoman.tools.captioning.parts import Further, Part, part_of, with_further
from dragoman.tools.captioning.predicates import Predicate, either, holds, phrase
from dragoman.tools.captioning.proposer import search_over
from dragoman.tools.captioning.reading import read
from dragoman.tools.captioning.reranking import Evidence, Ranked
from dragoman.tools.captioning.senses import Vectors
from dragoman.tools.captioning.tokens import Column, TokenTable

FIT_SHARE, VALIDATION_SHARE = 0.4, 0.2
BUILT_IN = "predicate search"
SEARCH_QUANTILE = 0.98
"""The search learns from twice as many tokens as are called active: from a few dozen little can be
learned, and what nearly activates a unit is much like what does."""
SPARSE = 0.1
"""A unit that is zero at nine positions in ten is active wherever it is not zero."""
_BEFORE, _AFTER = 8, 3
"""Tokens of context that are shown around a peak."""


class Candidate(NamedTuple):
    """A caption that may be given to a unit, with what it says in checkable form."""

    caption: str
    predicate: Predicate | None
    """None: free words, which only a judge of free text can compare with contexts."""
    proposer: str
    parts: tuple[Predicate, ...] = ()
    """The senses that it was put together from, where it was."""


class Sense(NamedTuple):
    """One of the things that a unit responds to."""

    caption: str
    predicate: Predicate
    share: float
    """Of the unit's active contexts on the captioner's documents, those that this sense explains;
    a context that several explain counts for the first."""
    score: scoring.Score | None
    """On held-out contexts, the active ones that other senses explain left out; None: too few."""


class Chosen(NamedTuple):
    """The candidate with the highest pointwise mutual information."""

    candidate: Candidate
    ranked: Ranked
    n_candidates: int
    senses: tuple[Sense, ...] = ()
    """Up to three, most frequent first; one where the caption says one thing."""


class Captioner:
    """Captions for the first `n_requested` columns of `activations`; the others are decoys.

    `activations` is [tokens units], in the order of `table`. `priors` gives log p(d), in nats, of
    captions. `vectors` embeds words, for telling senses apart; `judge` stands in for captions in
    free words, which without it are out of the running. With `further` the documents are a sample
    of a corpus that was read whole: thresholds are the whole corpus's, and its strongest documents
    join those that captions are found on. What is judged on stays the sample.
    """

    def __init__(
        self,
        table: TokenTable,
        activations: Float[ndarray, "tokens units"],
        n_requested: int,
        *,
        seed: int,
        priors: Callable[[Sequence[str]], list[float]],
        vectors: Vectors | None = None,
        judge: FreeTextJudge | None = None,
        further: Further | None = None,
    ) -> None:
        n_documents = int(table.document.max()) + 1
        first, second = (
            round(n_documents * FIT_SHARE),
            round(n_documents * (FIT_SHARE + VALIDATION_SHARE)),
        )
        self.n_requested, self._seed = n_requested, seed
        self._priors, self._vectors, self._judge = priors, vectors, judge
        self._known_priors: dict[str, float] = {}
        self.fit = part_of(table, activations, 0, first)
        if further is not None:
            self.fit = with_further(self.fit, further, n_documents)
        self.validation = part_of(table, activations, first, second)
        self.held_out = part_of(table, activations, second, n_documents)
        self._seen = UnitSummaries(activations.shape[1])
        for part in (self.fit, self.validation):
            for document in np.unique(part.table.document):
                self._seen.update(int(document), part.activations[part.table.document == document])
        self.summaries = self._seen if further is None else further.summaries
        sparse = self.summaries.density() <= SPARSE
        self.thresholds: Float[ndarray, " units"] = np.where(
            sparse, 0.0, self.summaries.thresholds()
        )
        self._search_thresholds = np.where(
            sparse, 0.0, self.summaries.sketch.quantile(SEARCH_QUANTILE)
        )
        self.samples = [self._sample(unit) for unit in range(activations.shape[1])]
        self._search = search_over(self.fit.table)

    def dead(self, unit: int) -> bool:
        """The unit is never above zero on the captioner's documents, or always the same."""
        return bool(self.summaries.dead()[unit])

    def exemplars(self, unit: int) -> list[tuple[Exemplar, tuple[str, str, str]]]:
        """The unit's strongest contexts above its threshold, with the text around the peak."""
        return [
            (exemplar, self._around(exemplar))
            for exemplar in self._seen.exemplars(unit)
            if exemplar.activation > self.thresholds[unit]
        ]

    def marked(self, unit: int, limit: int) -> list[str]:
        """The strongest contexts as text, active tokens between « and » with strengths 1 to 10."""
        return [self._marked(unit, exemplar) for exemplar, _ in self.exemplars(unit)[:limit]]

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
        """What the predicate search finds, for the unit as a whole and for each of its senses."""
        active = self.fit.activations[:, unit] > self._search_thresholds[unit]
        proposals = self._search.propose(active)
        candidates = [
            Candidate(phrase(found.predicate), found.predicate, BUILT_IN) for found in proposals
        ]
        if proposals and self._vectors is not None:
            parts = senses.by_clusters(self.fit.table, active, self._search, self._vectors)
            if len(parts) > 1:
                candidates.append(_united(parts))
        return candidates

    def choose(self, unit: int, candidates: Sequence[Candidate], tau: float) -> Chosen | None:
        """The candidate with the highest log p(d|E) - tau log p(d); None without candidates.

        Candidates in free words take part where there is a judge of free text.
        """
        return self._best(unit, self._weighed(unit, candidates), tau)

    def choose_all(
        self, proposed: Sequence[Sequence[Candidate]], tau: float
    ) -> list[Chosen | None]:
        """`choose` for units 0, 1, ...: the subject reads the captions of all of them together."""
        weighed = [self._weighed(unit, candidates) for unit, candidates in enumerate(proposed)]
        first = [max(each, key=lambda pair: pair[1]) for each in weighed if each]
        self._ask_priors([candidate.caption for candidate, _ in first])
        rivals = []
        for each in weighed:
            if each:
                top, likelihood = max(each, key=lambda pair: pair[1])
                least = Ranked(likelihood, self._prior(top.caption)).score(tau)
                rivals += [candidate.caption for candidate, value in each if value >= least]
        self._ask_priors(rivals)
        return [self._best(unit, each, tau) for unit, each in enumerate(weighed)]

    def _best(
        self, unit: int, weighed: Sequence[tuple[Candidate, float]], tau: float
    ) -> Chosen | None:
        if not weighed:
            return None
        best, ranked = reranking.best(
            [likelihood for _, likelihood in weighed],
            lambda row: self._prior(weighed[row][0].caption),
            tau,
        )
        candidate = weighed[best][0]
        return Chosen(candidate, ranked, len(weighed), self._senses(unit, candidate))

    def _weighed(self, unit: int, candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
        """Candidates with log p(E|d), of those for which it can be said."""
        parts = (self.fit, self.validation)
        active = [self.active(part, unit) for part in parts]
        contexts = [
            part.contexts.any_in(column) for part, column in zip(parts, active, strict=True)
        ]
        # Which tokens of a context: only where it is active, the others are told by the contexts.
        inside = [
            np.repeat(column, ends_of(part.contexts, part.table.n) - part.contexts.starts)
            for part, column in zip(parts, contexts, strict=True)
        ]
        tokens = [column[rows] for column, rows in zip(active, inside, strict=True)]
        weighed = []
        for candidate in candidates:
            said = self._judged(candidate, contexts[0])
            marked = [np.zeros_like(column) for column in tokens]
            if candidate.predicate is not None:
                held = [holds(candidate.predicate, part.table) for part in parts]
                said = [
                    part.contexts.any_in(column) for part, column in zip(parts, held, strict=True)
                ]
                marked = [column[rows] for column, rows in zip(held, inside, strict=True)]
            if said is not None:
                likelihood = reranking.log_likelihood(
                    Evidence(said[0], contexts[0], said[1], contexts[1])
                ) + reranking.log_likelihood(Evidence(marked[0], tokens[0], marked[1], tokens[1]))
                weighed.append((candidate, likelihood))
        return weighed

    def _judged(self, candidate: Candidate, truth: Column) -> list[Column] | None:
        """In which contexts a judge of free text finds the caption; None without judge or need."""
        if candidate.predicate is not None or self._judge is None:
            return None
        if not truth.any() or truth.all():
            return None
        scores = [
            self._judge.scores(candidate.caption, part.texts)
            for part in (self.fit, self.validation)
        ]
        limit = reranking.cut(scores[0], truth)
        return [each >= limit for each in scores]

    def _ask_priors(self, captions: Sequence[str]) -> None:
        """Ask for log p(d) of many captions at once: one by one costs several times as much."""
        unknown = {each for each in captions if each not in self._known_priors}
        new = sorted(unknown, key=lambda each: (len(each), each))
        self._known_priors |= dict(zip(new, self._priors(new), strict=True))

    def _prior(self, caption: str) -> float:
        if caption not in self._known_priors:
            self._known_priors[caption] = self._priors([caption])[0]
        return self._known_priors[caption]

    def _senses(self, unit: int, candidate: Candidate) -> tuple[Sense, ...]:
        if candidate.predicate is None:
            return ()
        tables = (self.fit.table, self.validation.table)
        parts = candidate.parts or senses.by_disjuncts(candidate.predicate, self._vectors, tables)
        shares = self._shares(unit, parts)
        kept = sorted(
            (row for row, share in enumerate(shares) if share >= senses.SMALLEST_SHARE),
            key=lambda row: -shares[row],
        )
        if len(kept) < 2:
            parts, kept, shares = (
                (candidate.predicate,),
                [0],
                self._shares(unit, [candidate.predicate]),
            )
        chosen = [parts[row] for row in kept]
        return tuple(
            Sense(
                phrase(predicate),
                predicate,
                shares[row],
                self._sense_score(
                    unit, predicate, [other for other in chosen if other is not predicate]
                ),
            )
            for row, predicate in zip(kept, chosen, strict=True)
        )

    def _shares(self, unit: int, parts: Sequence[Predicate]) -> list[float]:
        """The share of active contexts that each part explains and none before it does."""
        counts, n_active = np.zeros(len(parts)), 0
        for part in (self.fit, self.validation):
            active = self.active(part, unit)
            left = part.contexts.any_in(active)
            n_active += int(left.sum())
            for row, predicate in enumerate(parts):
                explained = left & part.contexts.any_in(active & holds(predicate, part.table))
                counts[row] += explained.sum()
                left &= ~explained
        return [float(count / max(n_active, 1)) for count in counts]

    def _sense_score(
        self, unit: int, predicate: Predicate, others: Sequence[Predicate]
    ) -> scoring.Score | None:
        part, sample = self.held_out, self.samples[unit]
        active = self.active(part, unit)
        rest = np.ones(len(sample.active), dtype=bool)
        for other in others:
            rest &= ~part.contexts.any_in(active & holds(other, part.table))[sample.active]
        own = Sample(sample.active[rest], sample.silent, sample.hard)
        return scoring.score_alone(self.said(part, predicate), own, unit, self.samples)

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
        peaks = {self._peak(exemplar) for exemplar in self._seen.exemplars(unit)}
        lookalike = np.array([piece in peaks for piece in part.table.piece], dtype=bool)
        return draw(
            part.contexts,
            part.table,
            part.activations[:, unit],
            float(self.thresholds[unit]),
            lookalike,
            seed=self._seed,
        )

    def located(self, exemplar: Exemplar) -> tuple[Part, int]:
        """The part that an exemplar is in, and its peak's row there."""
        for part in (self.fit, self.validation):
            start = int(np.searchsorted(part.table.document, exemplar.document))
            if start < part.table.n and part.table.document[start] == exemplar.document:
                return part, start + exemplar.position
        raise IndexError(f"document {exemplar.document} is in neither of the captioner's parts")

    def _peak(self, exemplar: Exemplar) -> str:
        part, row = self.located(exemplar)
        piece: str = part.table.piece[row]
        return piece

    def _marked(self, unit: int, exemplar: Exemplar) -> str:
        part, row = self.located(exemplar)
        first = max(row - _BEFORE, row - exemplar.position)
        same = part.table.document[first : row + 1 + _AFTER] == exemplar.document
        text = ""
        for at in range(first, first + int(same.sum())):
            value, surface = float(part.activations[at, unit]), str(part.table.surface[at])
            if value > self.thresholds[unit]:
                strength = max(1, round(10 * value / float(self.summaries.highest[unit])))
                space = surface[: len(surface) - len(surface.lstrip())]
                surface = f"{space}«{surface.strip()}»({strength})"
            text += surface
        return text

    def _around(self, exemplar: Exemplar) -> tuple[str, str, str]:
        part, row = self.located(exemplar)
        table = part.table
        left = max(row - _BEFORE, row - exemplar.position)
        same = table.document[row + 1 : row + 1 + _AFTER] == exemplar.document
        before = "".join(table.surface[left:row])
        after = "".join(table.surface[row + 1 : row + 1 + _AFTER][same])
        return before, str(table.surface[row]), after


def readable(captions: Sequence[str], proposer: str) -> tuple[list[Candidate], int]:
    """Free-text captions as candidates, and how many of them say nothing that can be checked.

    Those have no predicate: a judge of free text may still compare them with contexts.
    """
    candidates = [Candidate(caption, read(caption), proposer) for caption in captions]
    return candidates, sum(candidate.predicate is None for candidate in candidates)


def _united(parts: Sequence[Predicate]) -> Candidate:
    """One caption for several senses."""
    predicate, *rest = parts
    for part in rest:
        predicate = either(predicate, part)
    return Candidate(phrase(predicate), predicate, BUILT_IN, tuple(parts))
