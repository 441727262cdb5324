"""From activations over patches to captions: split the images, propose, choose, judge.

As on the language side images are split once, before anything is looked at: captions are found on
`fit`, chosen on `validation`, judged on `held_out`. Images that were cut from one picture stay
together, so nothing that is judged has been seen before.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import reranking, scoring
from dragoman.tools.captioning.captioner import FIT_SHARE, SPARSE, VALIDATION_SHARE
from dragoman.tools.captioning.composition import Column
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.exemplars import THRESHOLD_QUANTILE, TOP_CONTEXTS
from dragoman.tools.captioning.reranking import Evidence, Ranked
from dragoman.tools.captioning.vision.concepts import Concept, Either, either, localised, phrase
from dragoman.tools.captioning.vision.crops import CropFrequencies
from dragoman.tools.captioning.vision.patches import PATCHES, PatchTable, in_images
from dragoman.tools.captioning.vision.search import ConceptSearch
from dragoman.tools.captioning.vision.senses import by_clusters

TAU = 0.95
"""As on the language side, until measured otherwise: see docs/evals/planted_vision.md."""
CONCEPT_SEARCH = "concept search"
_EXTENTS = (1, 2, 4, 8, 16, 32)
_MOST_SENSES = 3
_SMALLEST_SHARE = 0.05

Ints = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Some of the images."""

    images: Ints
    """Rows of the whole table."""
    table: PatchTable
    activations: Float[ndarray, "places units"]


class Candidate(NamedTuple):
    """A caption that may be given to a unit, with what it says in checkable form."""

    caption: str
    concept: Concept
    proposer: str


class Sense(NamedTuple):
    """One of the things that a unit responds to."""

    caption: str
    concept: Concept
    share: float
    """Of the unit's active images on the captioner's part, those that this sense explains; an image
    that several explain counts for the first."""
    detection: scoring.Detection | None
    """On held-out images, active ones that other senses explain left out; None: too few."""


class Chosen(NamedTuple):
    """The candidate with the highest pointwise mutual information."""

    candidate: Candidate
    extent: int
    """At so many patches of an image it has to hold for the caption to say that the unit is
    active."""
    ranked: Ranked
    n_candidates: int
    senses: tuple[Sense, ...]


class VisionCaptioner:
    """Captions for the first `n_requested` columns of `activations`; the others are decoys.

    `activations` is [images * patches, units], in the order of `table`; `sources` names for each
    image the picture that it was cut from. With `pmi` off candidates are ranked by log p(d|E)
    alone, that is at tau 0.
    """

    def __init__(
        self,
        table: PatchTable,
        activations: Float[ndarray, "places units"],
        n_requested: int,
        *,
        sources: Sequence[str],
        seed: int,
        tau: float = TAU,
    ) -> None:
        self.n_requested, self._seed, self.tau = n_requested, seed, tau
        self.fit, self.validation, self.held_out = (
            _part(table, activations, rows) for rows in split(sources, seed)
        )
        known = np.concatenate([self.fit.activations, self.validation.activations])
        self.thresholds = _thresholds(known)
        self.density: Float[ndarray, " units"] = (known > 0).mean(axis=0)
        self._dead = (known.max(axis=0) <= 0) | (known.max(axis=0) == known.min(axis=0))
        self.samples = [self._sample(unit) for unit in range(activations.shape[1])]

    @cached_property
    def search(self) -> ConceptSearch:
        """The search over the fit's images."""
        return ConceptSearch(self.fit.table)

    @cached_property
    def frequencies(self) -> CropFrequencies:
        """How often concepts hold of random masked crops of the fit's images: p(d)."""
        return CropFrequencies(self.fit.table, self._seed)

    def dead(self, unit: int) -> bool:
        """The unit is never above zero on the captioner's images, or always the same."""
        return bool(self._dead[unit])

    def exemplars(self, unit: int) -> list[tuple[int, float]]:
        """Images (rows of the whole table) of highest activation of fit and validation, with it."""
        peaks = [
            (int(image), float(peak))
            for part in (self.fit, self.validation)
            for image, peak in zip(part.images, self._peaks(part, unit), strict=True)
            if peak > self.thresholds[unit]
        ]
        return sorted(peaks, key=lambda each: (-each[1], each[0]))[:TOP_CONTEXTS]

    def active(self, part: Part, unit: int) -> Column:
        """Patches at which the unit exceeds its threshold."""
        column: Column = part.activations[:, unit] > self.thresholds[unit]
        return column

    def active_images(self, part: Part, unit: int) -> Column:
        """Images in which it does so somewhere."""
        return in_images(self.active(part, unit))

    def propose(self, unit: int) -> list[Candidate]:
        """What the concept search finds, for the unit as a whole and for its clusters."""
        active = self.active(self.fit, unit)
        found = [each.predicate for each in self.search.at_patches(active)]
        found += [localised(each.predicate) for each in self.search.in_images(active)]
        parts = by_clusters(self.fit.table, active, self.search, self._seed)
        if len(parts) > 1:
            union, *rest = parts
            for part in rest:
                union = either(union, part)
            found.append(union)
        distinct = {concept.model_dump_json(): concept for concept in found}
        return [
            Candidate(phrase(concept), concept, CONCEPT_SEARCH) for concept in distinct.values()
        ]

    def choose(self, unit: int, candidates: Sequence[Candidate]) -> Chosen | None:
        """The candidate with the highest log p(d|E) - tau log p(d); None without candidates."""
        if not candidates:
            return None
        extents = [self._extent(unit, each.concept) for each in candidates]
        likelihoods = [
            reranking.log_likelihood(self._evidence(unit, each.concept, extent))
            for each, extent in zip(candidates, extents, strict=True)
        ]
        best, ranked = reranking.best(
            likelihoods, lambda row: self.frequencies.log_prior(candidates[row].concept), self.tau
        )
        candidate, extent = candidates[best], extents[best]
        told = self._senses(unit, candidate.concept)
        return Chosen(candidate, extent, ranked, len(candidates), told)

    def said(self, part: Part, concept: Concept, extent: int) -> Column:
        """For each image, whether the caption says that the unit is active in it."""
        column: Column = part.table.counts(concept) >= extent
        return column

    def score(self, unit: int, chosen: Sequence[Chosen | None]) -> scoring.Score | None:
        """Detection and floor of the unit's caption; None where it cannot be scored.

        `chosen` has one entry for each requested unit.
        """
        mine, sample = chosen[unit], self.samples[unit]
        if mine is None or not scoring.scorable(sample):
            return None
        own = self._held_out_says(mine)
        others: list[tuple[Column | None, Sample]] = []
        for other, other_sample in enumerate(self.samples):
            if other != unit:
                rival = chosen[other] if other < self.n_requested else None
                said = None if rival is None else self._held_out_says(rival)
                others.append((said, other_sample))
        floor = scoring.floor(own, sample, others)
        return scoring.Score(scoring.detect(own, sample), floor) if len(floor) > 1 else None

    def hard_detection(self, unit: int, chosen: Chosen) -> scoring.Detection | None:
        """Detection against silent images in which the most similar other unit is active."""
        sample = self.samples[unit]
        hard = Sample(sample.active, sample.hard, sample.hard)
        if not scoring.scorable(hard):
            return None
        return scoring.detect(self._held_out_says(chosen), hard)

    def _held_out_says(self, chosen: Chosen) -> Column:
        return self.said(self.held_out, chosen.candidate.concept, chosen.extent)

    def _peaks(self, part: Part, unit: int) -> Float[ndarray, " images"]:
        peaks: Float[ndarray, " images"] = part.activations[:, unit].reshape(-1, PATCHES).max(1)
        return peaks

    def _extent(self, unit: int, concept: Concept) -> int:
        """The smallest extent of those that are most accurate on the fit's images."""
        truth, counts = self.active_images(self.fit, unit), self.fit.table.counts(concept)
        if truth.all() or not truth.any():
            return 1

        def accuracy(extent: int) -> float:
            said = counts >= extent
            return float(said[truth].mean() - said[~truth].mean())

        return max(_EXTENTS, key=lambda extent: (round(accuracy(extent), 9), -extent))

    def _evidence(self, unit: int, concept: Concept, extent: int) -> Evidence:
        return Evidence(
            self.said(self.fit, concept, extent),
            self.active_images(self.fit, unit),
            self.said(self.validation, concept, extent),
            self.active_images(self.validation, unit),
        )

    def _senses(self, unit: int, concept: Concept) -> tuple[Sense, ...]:
        parts: list[Concept] = list(concept.of) if isinstance(concept, Either) else [concept]
        shares = self._shares(unit, parts)
        kept = sorted(
            (row for row, share in enumerate(shares) if share >= _SMALLEST_SHARE),
            key=lambda row: -shares[row],
        )[:_MOST_SENSES]
        if len(kept) < 2:
            parts, kept, shares = [concept], [0], self._shares(unit, [concept])
        chosen = [parts[row] for row in kept]
        return tuple(
            Sense(
                phrase(part),
                part,
                shares[row],
                self._sense_detection(unit, part, [each for each in chosen if each is not part]),
            )
            for row, part in zip(kept, chosen, strict=True)
        )

    def _shares(self, unit: int, parts: Sequence[Concept]) -> list[float]:
        counts, n_active = np.zeros(len(parts)), 0
        for part in (self.fit, self.validation):
            active = self.active(part, unit)
            left = in_images(active)
            n_active += int(left.sum())
            for row, concept in enumerate(parts):
                explained = left & in_images(active & part.table.holds(concept))
                counts[row] += explained.sum()
                left = left & ~explained
        return [float(count / max(n_active, 1)) for count in counts]

    def _sense_detection(
        self, unit: int, concept: Concept, others: Sequence[Concept]
    ) -> scoring.Detection | None:
        part, sample = self.held_out, self.samples[unit]
        active = self.active(part, unit)
        rest = np.ones(len(sample.active), dtype=bool)
        for other in others:
            rest &= ~in_images(active & part.table.holds(other))[sample.active]
        remaining = Sample(sample.active[rest], sample.silent, sample.hard)
        if not scoring.scorable(remaining):
            return None
        extent = self._extent(unit, concept)
        return scoring.detect(self.said(part, concept, extent), remaining)

    def _sample(self, unit: int) -> Sample:
        """Held-out images; the hard ones are silent and activate the unit most like this one."""
        active = self.active_images(self.held_out, unit)
        neighbour = self._neighbour(unit)
        roused = np.zeros_like(active) if neighbour is None else self._roused(neighbour)
        return Sample(
            np.flatnonzero(active), np.flatnonzero(~active), np.flatnonzero(~active & roused)
        )

    def _roused(self, unit: int) -> Column:
        return self.active_images(self.held_out, unit)

    def _neighbour(self, unit: int) -> int | None:
        """The other unit whose peaks go with this one's, on the captioner's images."""
        peaks = self._all_peaks
        if peaks.shape[1] < 2 or peaks[:, unit].std() == 0:
            return None
        centred = peaks - peaks.mean(axis=0)
        norms = np.maximum(np.linalg.norm(centred, axis=0), 1e-9)
        likeness = centred.T @ centred[:, unit] / (norms * norms[unit])
        likeness[unit] = -np.inf
        return int(likeness.argmax())

    @cached_property
    def _all_peaks(self) -> Float[ndarray, "images units"]:
        known = np.concatenate([self.fit.activations, self.validation.activations])
        peaks: Float[ndarray, "images units"] = known.reshape(-1, PATCHES, known.shape[1]).max(1)
        return peaks


def split(sources: Sequence[str], seed: int) -> tuple[Ints, Ints, Ints]:
    """Rows for fit, validation and held-out; all images of one source are in one part."""
    names = sorted(set(sources))
    order = np.random.default_rng([seed, 7]).permutation(len(names))
    place = {names[row]: rank for rank, row in enumerate(order)}
    ranks = np.array([place[source] for source in sources])
    # Sources are of unequal size: cut where the images' shares are reached, not the sources'.
    reached = np.cumsum(np.bincount(ranks, minlength=len(names))) / len(sources)
    first = int(np.searchsorted(reached, FIT_SHARE - 1e-9)) + 1
    second = max(int(np.searchsorted(reached, FIT_SHARE + VALIDATION_SHARE - 1e-9)) + 1, first + 1)
    return (
        np.flatnonzero(ranks < first),
        np.flatnonzero((ranks >= first) & (ranks < second)),
        np.flatnonzero(ranks >= second),
    )


def _thresholds(known: Float[ndarray, "places units"]) -> Float[ndarray, " units"]:
    """0.99 quantiles over all patches of all images, 0 for units that are seldom above zero."""
    quantiles = np.maximum(np.quantile(known, THRESHOLD_QUANTILE, axis=0), 0.0)
    sparse = (known > 0).mean(axis=0) <= SPARSE
    return np.where(sparse, 0.0, quantiles)


def _part(table: PatchTable, activations: Float[ndarray, "places units"], rows: Ints) -> Part:
    by_image = activations.reshape(-1, PATCHES, activations.shape[1])
    return Part(rows, table.rows(rows), by_image[rows].reshape(-1, activations.shape[1]))
