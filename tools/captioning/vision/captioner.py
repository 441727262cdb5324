"""From activations over patches to captions: propose, choose, judge, each on images of its own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import reranking, scoring
from dragoman.tools.captioning.composition import Column
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.exemplars import TOP_CONTEXTS
from dragoman.tools.captioning.neighbours import correlated
from dragoman.tools.captioning.reranking import Evidence, Ranked
from dragoman.tools.captioning.vision.concepts import Concept, Either, either, localised, phrase
from dragoman.tools.captioning.vision.parts import ImageSplit, Part, thresholds_of
from dragoman.tools.captioning.vision.patches import PATCHES, in_images
from dragoman.tools.captioning.vision.senses import by_clusters

TAU = 0.95
"""That of the language side, not tuned on images: without it as many planted units are found."""
CONCEPT_SEARCH = "concept search"
_EXTENTS = (1, 2, 4, 8, 16, 32)
_MOST_SENSES = 3
_SMALLEST_SHARE = 0.05


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
    score: scoring.Score | None
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
    gain: float
    """Nats by which the caption tells the validation images better than one rate for all of them:
    without any, the rival "nothing here" has won."""


class VisionCaptioner:
    """Captions for the first `n_requested` columns of `activations`; the others are decoys.

    `activations` is [images * patches, units], in the order of the table that `images` splits.
    `peaks` has the spatial maxima of every unit of the layer, and `units` says which of them the
    columns are: a unit's neighbours, from which hard negatives come, may be any of the layer.
    """

    def __init__(
        self,
        images: ImageSplit,
        activations: Float[ndarray, "places units"],
        n_requested: int,
        *,
        peaks: Float[ndarray, "images layer_units"],
        units: Sequence[int],
        seed: int,
    ) -> None:
        self.n_requested, self._seed = n_requested, seed
        self._peaks_of_layer, self._units = peaks, tuple(units)
        self._images = images
        self.fit, self.validation, self.held_out = images.parts(activations)
        known = np.concatenate([self.fit.activations, self.validation.activations])
        self.thresholds = thresholds_of(known)
        self.density: Float[ndarray, " units"] = (known > 0).mean(axis=0)
        self._dead = (known.max(axis=0) <= 0) | (known.max(axis=0) == known.min(axis=0))
        self.samples = [self._sample(unit) for unit in range(activations.shape[1])]

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
        found = [each.predicate for each in self._images.search.at_patches(active)]
        found += [localised(each.predicate) for each in self._images.search.in_images(active)]
        parts = by_clusters(self.fit.table, active, self._images.search, self._seed)
        if len(parts) > 1:
            union, *rest = parts
            for part in rest:
                union = either(union, part)
            found.append(union)
        distinct = {concept.model_dump_json(): concept for concept in found}
        return [
            Candidate(phrase(concept), concept, CONCEPT_SEARCH) for concept in distinct.values()
        ]

    def choose(self, unit: int, candidates: Sequence[Candidate], tau: float = TAU) -> Chosen | None:
        """The candidate with the highest log p(d|E) - tau log p(d); None without candidates."""
        if not candidates:
            return None
        extents = [self._extent(unit, each.concept) for each in candidates]
        likelihoods = [
            reranking.log_likelihood(self._evidence(unit, each.concept, extent))
            for each, extent in zip(candidates, extents, strict=True)
        ]
        best, ranked = reranking.best(
            likelihoods,
            lambda row: self._images.frequencies.log_prior(candidates[row].concept),
            tau,
        )
        candidate, extent = candidates[best], extents[best]
        told = self._senses(unit, candidate.concept)
        gain = likelihoods[best] - self._nothing(unit)
        return Chosen(candidate, extent, ranked, len(candidates), told, gain)

    def said(self, part: Part, concept: Concept, extent: int) -> Column:
        """For each image, whether the caption says that the unit is active in it."""
        column: Column = part.table.counts(concept) >= extent
        return column

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

    def _nothing(self, unit: int) -> float:
        """The value of log p(E|d) of saying nothing: the fit's one rate for all images."""
        truths = [self.active_images(part, unit) for part in (self.fit, self.validation)]
        silent = [np.zeros_like(truth) for truth in truths]
        return reranking.log_likelihood(Evidence(silent[0], truths[0], silent[1], truths[1]))

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
                self._sense_score(unit, part, [each for each in chosen if each is not part]),
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

    def _sense_score(
        self, unit: int, concept: Concept, others: Sequence[Concept]
    ) -> scoring.Score | None:
        part, sample = self.held_out, self.samples[unit]
        active = self.active(part, unit)
        rest = np.ones(len(sample.active), dtype=bool)
        for other in others:
            rest &= ~in_images(active & part.table.holds(other))[sample.active]
        remaining = Sample(sample.active[rest], sample.silent, sample.hard)
        said = self.said(part, concept, self._extent(unit, concept))
        return scoring.score_alone(said, remaining, unit, self.samples)

    def _sample(self, unit: int) -> Sample:
        """Held-out images; the hard ones are silent and rouse the units most like this one."""
        active = self.active_images(self.held_out, unit)
        return Sample(
            np.flatnonzero(active),
            np.flatnonzero(~active),
            np.flatnonzero(~active & self._roused(unit, int(active.sum()))),
        )

    def _roused(self, unit: int, n_active: int) -> Column:
        """Held-out images as strong for one of its neighbours as its `n_active` strongest."""
        roused = np.zeros(len(self.held_out.images), dtype=bool)
        for neighbour in self._neighbours(unit):
            peaks = self._peaks_of_layer[self.held_out.images, neighbour]
            limit = np.sort(peaks)[::-1][: max(n_active, 1)][-1]
            roused |= (peaks >= limit) & (peaks > 0)
        return roused

    def _neighbours(self, unit: int) -> tuple[int, ...]:
        """Units of the layer whose peaks go with this one's, on the captioner's own images."""
        return correlated(self.own_peaks, self._units[unit])

    @property
    def own_peaks(self) -> Float[ndarray, "images layer_units"]:
        """Spatial maxima of all units of the layer on the images of fit and validation."""
        own = np.concatenate([self.fit.images, self.validation.images])
        peaks: Float[ndarray, "images layer_units"] = self._peaks_of_layer[own]
        return peaks
