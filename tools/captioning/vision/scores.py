"""How far a vision unit's caption can be trusted: every score beside its floor, on held-out images.

As on the language side (`captioning/assessment.py`): the floor of each score is what mismatched
pairs come to, this caption on other units and other units' captions on this one.

- *detection*: in which images is the unit active;
- *fuzzing*: are the marked patches of an active image those at which the unit is active, or the
  same marking put elsewhere in the image (delphi's fuzzing, for images);
- *simulation*: correlation of predicted and true activation over patches, with the explained
  variance (Bills et al. 2023);
- *embedding*: does a sentence embedder find what active images show, in words, nearer to the
  caption than what silent ones show (AUROC)? Where the embedder's weights are;
- *detection_hard*: detection with silent images that rouse the most similar units of the layer.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.assessment import beats_floor, summary_of
from dragoman.tools.captioning.contexts import Contexts
from dragoman.tools.captioning.judges import Separation, separation
from dragoman.tools.captioning.scoring import Detection
from dragoman.tools.captioning.senses import Vectors
from dragoman.tools.captioning.simulation import Simulation, simulate
from dragoman.tools.captioning.vision.bench import VisionBench
from dragoman.tools.captioning.vision.captioner import Chosen, VisionCaptioner
from dragoman.tools.captioning.vision.image_words import image_words
from dragoman.tools.captioning.vision.patches import PATCHES
from dragoman.tools.captioning.vision.textures import GRID
from dragoman.tools.registry import Effort

_FLOOR_UNITS: dict[Effort, int] = {"quick": 8, "full": 16}
_ENOUGH = 0.5
"""A caption calls a marking right when it holds at this share of the marked patches."""
_TRIES = 24
_MOST_OVERLAP = 0.1
TWIN = "_random_twin"
LEAST_GAIN = 3.0
"""Nats: the validation images are twenty times as likely under the caption as under "nothing here",
which is called strong evidence (Kass & Raftery 1995)."""

_Scored: TypeAlias = Callable[[Chosen, int], Detection | None]


class VisionAssessment(NamedTuple):
    """A caption's scores."""

    measurements: tuple[Measurement, ...]
    """Detection first."""
    controls: tuple[Measurement, ...]
    holds: bool
    """Detection's whole interval lies above its floor, and above chance; and on the validation
    images the caption was `LEAST_GAIN` better than "nothing here". One test alone lets pass one in
    forty of the captions of units that have no rule."""
    causes: JsonObject | None = None
    """What the causal check says beside its measurements, where there was one."""

    @property
    def output(self) -> JsonObject:
        """The same for the entry of the unit, by metric."""
        return {each.metric: summary_of(each) for each in (*self.measurements, *self.controls)}


class VisionAssessor:
    """Scores the captions of a captioner's requested units."""

    def __init__(
        self,
        captioner: VisionCaptioner,
        chosen: Sequence[Chosen | None],
        *,
        effort: Effort,
        seed: int,
        vectors: Vectors | None = None,
    ) -> None:
        """`chosen` has one entry for each requested unit; `vectors` embeds words."""
        self._captioner, self._chosen = captioner, chosen
        self._effort, self._seed = effort, seed
        self._vectors = vectors
        self._markings: dict[int, _Markings] = {}

    def assess(self, unit: int, name: str) -> VisionAssessment | None:
        """All scores of requested unit number `unit`; None where it has no caption, or too few
        held-out images are active or silent.
        """
        chosen, sample = self._chosen[unit], self._captioner.samples[unit]
        if chosen is None or not scoring.scorable(sample):
            return None
        scope = f"unit {name}"
        detection = self._floored("detection", self._detection, chosen, unit, scope)
        if detection is None:
            return None
        fuzzing = self._floored("fuzzing", self._fuzzing, chosen, unit, scope)
        embedding = self._embedded(chosen, unit, scope)
        hard = self._floored("detection_hard", self._hard, chosen, unit, scope)
        return VisionAssessment(
            (
                detection,
                *([] if fuzzing is None else [fuzzing]),
                *self._simulated(chosen, unit, scope),
                *([] if embedding is None else [embedding]),
            ),
            () if hard is None else (hard,),
            beats_floor(detection) and chosen.gain > LEAST_GAIN,
        )

    def _floored(
        self, metric: str, score: _Scored, chosen: Chosen, unit: int, scope: str
    ) -> Measurement | None:
        own = score(chosen, unit)
        if own is None:
            return None
        pairs = [score(other, where) for other, where in self._mismatched(chosen, unit)]
        floor = tuple(each.balanced_accuracy for each in pairs if each is not None)
        if len(floor) < 2:
            return None
        return scoring.Score(own, floor).measurement(scope, metric)

    def _mismatched(self, chosen: Chosen, unit: int) -> list[tuple[Chosen, int]]:
        """This caption on other units, and other units' captions on this one."""
        order = np.random.default_rng([self._seed, 12, unit]).permutation(
            len(self._captioner.samples)
        )
        pairs: list[tuple[Chosen, int]] = []
        for other in [int(row) for row in order if row != unit][: _FLOOR_UNITS[self._effort]]:
            pairs.append((chosen, other))
            rival = self._chosen[other] if other < len(self._chosen) else None
            if rival is not None:
                pairs.append((rival, unit))
        return pairs

    def _detection(self, chosen: Chosen, unit: int) -> Detection | None:
        sample = self._captioner.samples[unit]
        if not scoring.scorable(sample):
            return None
        return scoring.detect(self._said(chosen), sample)

    def _hard(self, chosen: Chosen, unit: int) -> Detection | None:
        sample = self._captioner.samples[unit]
        hard = sample._replace(silent=sample.hard)
        return scoring.detect(self._said(chosen), hard) if scoring.scorable(hard) else None

    def _said(self, chosen: Chosen) -> ndarray:
        held_out = self._captioner.held_out
        return self._captioner.said(held_out, chosen.candidate.concept, chosen.extent)

    def _fuzzing(self, chosen: Chosen, unit: int) -> Detection | None:
        markings = self._markings_of(unit)
        if min(len(markings.right), len(markings.wrong)) < scoring.MIN_ACTIVE:
            return None
        holds = self._captioner.held_out.table.holds(chosen.candidate.concept).reshape(-1, PATCHES)
        hits = _agreed(holds[markings.images], markings.right)
        alarms = _agreed(holds[markings.images], markings.wrong)
        return Detection(
            hits, len(markings.right), len(markings.wrong) - alarms, len(markings.wrong)
        )

    def _markings_of(self, unit: int) -> "_Markings":
        if unit not in self._markings:
            captioner = self._captioner
            active = captioner.active(captioner.held_out, unit).reshape(-1, PATCHES)
            images = captioner.samples[unit].active
            self._markings[unit] = _marked(images, active[images], [self._seed, 13, unit])
        return self._markings[unit]

    @cached_property
    def _shown(self) -> Float[ndarray, "images d"] | None:
        """What held-out images show, in words, as vectors of length one."""
        if self._vectors is None:
            return None
        return self._vectors(image_words(self._captioner.held_out.table))

    def _embedded(self, chosen: Chosen, unit: int, scope: str) -> Measurement | None:
        own = self._separation(chosen, unit)
        pairs = [self._separation(other, where) for other, where in self._mismatched(chosen, unit)]
        floor = [each.auroc for each in pairs if each is not None]
        if own is None or len(floor) < 2:
            return None
        return scoring.measured(
            "embedding",
            own.auroc,
            own.interval(),
            floor,
            scope=scope,
            unit="probability",
            n=own.n_active + own.n_silent,
        )

    def _separation(self, chosen: Chosen, unit: int) -> Separation | None:
        sample, shown = self._captioner.samples[unit], self._shown
        if shown is None or self._vectors is None or not scoring.scorable(sample):
            return None
        near = shown @ self._vectors([chosen.candidate.caption])[0]
        return separation(near[sample.active], near[sample.silent])

    def _simulated(self, chosen: Chosen, unit: int, scope: str) -> list[Measurement]:
        own = self._simulation(chosen, unit)
        floor = [self._simulation(other, where) for other, where in self._mismatched(chosen, unit)]
        known = [each for each in floor if each is not None]
        if own is None or len(known) < 2:
            return []
        intervals = own.intervals(self._seed)
        measured = partial(scoring.measured, scope=scope, n=len(own.sums))
        return [
            measured(
                "simulation",
                own.correlation,
                intervals[0],
                [each.correlation for each in known],
                unit="correlation",
            ),
            measured(
                "explained_variance",
                own.explained_variance,
                intervals[1],
                [each.explained_variance for each in known],
                unit="fraction",
            ),
        ]

    def _simulation(self, chosen: Chosen, unit: int) -> Simulation | None:
        """Two levels, set on the fit's images: mean activation where the caption holds, and not."""
        captioner, sample = self._captioner, self._captioner.samples[unit]
        if not scoring.scorable(sample):
            return None
        concept, fit, part = chosen.candidate.concept, captioner.fit, captioner.held_out
        strength = np.maximum(fit.activations[:, unit].astype(np.float64), 0.0)
        holds = fit.table.holds(concept)
        here = float(strength[holds].mean()) if holds.any() else float(strength.mean())
        elsewhere = float(strength[~holds].mean()) if not holds.all() else float(strength.mean())
        n = part.table.n_images
        return simulate(
            np.where(part.table.holds(concept), here, elsewhere),
            part.activations[:, unit],
            Contexts(np.arange(n) * PATCHES, np.arange(n)),
            np.concatenate([sample.active, sample.silent]),
        )


def assess_bench(
    bench: VisionBench,
    chosen: Sequence[Chosen | None],
    twin_chosen: Sequence[Chosen | None] | None,
    *,
    effort: Effort,
    seed: int,
    vectors: Vectors | None = None,
) -> list[VisionAssessment | None]:
    """The scores of every unit of the bench, the twin's among the controls.

    With `vectors`, which embeds words, there is an embedding score as well.
    """
    assessor = VisionAssessor(bench.captioner, chosen, effort=effort, seed=seed, vectors=vectors)
    found = [assessor.assess(unit, name) for unit, name in enumerate(bench.unit_names)]
    if bench.twin is None or twin_chosen is None:
        return found
    beside = VisionAssessor(bench.twin, twin_chosen, effort=effort, seed=seed)
    joined: list[VisionAssessment | None] = []
    for unit, (name, own) in enumerate(zip(bench.unit_names, found, strict=True)):
        other = beside.assess(unit, name)
        if own is not None and other is not None:
            twins = [
                each.model_copy(update={"metric": each.metric + TWIN})
                for each in other.measurements
            ]
            own = own._replace(controls=(*own.controls, *twins))
        joined.append(own)
    return joined


class _Markings(NamedTuple):
    """Images with patches marked rightly, and the same images with the marking elsewhere."""

    images: ndarray
    right: Bool[ndarray, "images patches"]
    wrong: Bool[ndarray, "images patches"]


def _marked(
    images: ndarray, active: Bool[ndarray, "images patches"], seed: Sequence[int]
) -> _Markings:
    """The active patches of each image, and the same form shifted to where the unit is silent.

    An image whose marking fits nowhere else is left out.
    """
    generator = np.random.default_rng(seed)
    kept, right, wrong = [], [], []
    for image, at in zip(images.tolist(), active, strict=True):
        square = at.reshape(GRID, GRID)
        for _ in range(_TRIES):
            shift = generator.integers(GRID, size=2)
            moved = np.roll(square, (int(shift[0]), int(shift[1])), axis=(0, 1))
            if (moved & square).sum() <= _MOST_OVERLAP * square.sum():
                kept.append(image)
                right.append(at)
                wrong.append(moved.reshape(-1))
                break
    empty = np.zeros((0, PATCHES), dtype=bool)
    return _Markings(
        np.array(kept, dtype=np.int64),
        np.stack(right) if right else empty,
        np.stack(wrong) if wrong else empty,
    )


def _agreed(holds: Bool[ndarray, "images patches"], marked: Bool[ndarray, "images patches"]) -> int:
    """How many markings the caption calls right."""
    shares = (holds & marked).sum(axis=1) / np.maximum(marked.sum(axis=1), 1)
    return int((shares >= _ENOUGH).sum())
