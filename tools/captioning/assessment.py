"""How far a unit's caption can be trusted: every score beside its floor.

All scores are taken on held-out documents that the captioner never saw. The floor of each is what
it comes to for mismatched pairs: this caption on other units, other units' captions on this one.

- *detection*, *fuzzing*: in which contexts, at which tokens the unit is active; both once more
  against hard negatives, taken from neighbouring units. A caption that can be checked says yes to a
  context from so many tokens on at which it holds; their number is set on the captioner's own
  documents, since "prepositions" stand in all contexts, but more in some;
- *simulation*: correlation of predicted and true activation, with the explained variance;
- *embedding*, *likelihood*: whether a sentence embedder and the subject itself find the contexts in
  which the unit is active closer to the caption than others.

A caption in words that cannot be checked is judged by the last two alone; its detection is then the
embedder's (or the subject's) yes or no, with a threshold set on the captioner's own documents.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.captioner import Captioner, Chosen, Part
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.fuzzing import fuzz
from dragoman.tools.captioning.judges import (
    EmbeddingJudge,
    Judge,
    LikelihoodJudge,
    Separation,
    separation,
    threshold_between,
)
from dragoman.tools.captioning.neighbours import Neighbours
from dragoman.tools.captioning.predicates import Predicate, holds
from dragoman.tools.captioning.scoring import Detection
from dragoman.tools.captioning.simulation import Simulation, calibrated, simulate
from dragoman.tools.captioning.tokens import Column, Ints
from dragoman.tools.captioning.trials import Trials
from dragoman.tools.context import ToolContext
from dragoman.tools.embedding import Embedder
from dragoman.tools.registry import Effort
from dragoman.tools.weights import EMBEDDINGS

_FLOOR_UNITS: dict[Effort, int] = {"quick": 8, "full": 16}
_JUDGED_CONTEXTS: dict[Effort, int] = {"quick": 12, "full": 20}
"""Active contexts, and as many silent ones, that a judge of free text reads."""
_JUDGED_FLOOR_UNITS = 2


class Said(NamedTuple):
    """What is claimed of a unit, in words and, where it can be checked, as a predicate."""

    caption: str
    predicate: Predicate | None


class Assessment(NamedTuple):
    """A caption's scores."""

    measurements: tuple[Measurement, ...]
    controls: tuple[Measurement, ...]
    holds: bool
    """Detection's whole interval lies above its floor, and above chance."""
    output: JsonObject


_Result: TypeAlias = Detection | Simulation | Separation
_Score: TypeAlias = Callable[[Said, int], _Result | None]


class Assessor:
    """Scores captions of a captioner's units; what several scores share is computed once."""

    def __init__(
        self,
        context: ToolContext,
        captioner: Captioner,
        said: Sequence[Said | None],
        *,
        effort: Effort,
        judges: Sequence[Judge],
        neighbours: Neighbours | None = None,
    ) -> None:
        """`said` has one entry for each requested unit; without `neighbours` they are looked for
        among the captioner's own columns.
        """
        self._context, self._captioner, self._said = context, captioner, said
        self._effort, self._judges = effort, judges
        self._trials = Trials(captioner, neighbours, context.seed)

    def assess(self, unit: int, name: str) -> Assessment | None:
        """All scores of requested unit number `unit`, called `name`; None where it has no caption
        or too few held-out contexts.
        """
        said = self._said[unit]
        if said is None or not scoring.scorable(self._captioner.samples[unit]):
            return None
        scope = f"unit {name}"
        detection = self._floored("detection", self._detection, said, unit, scope)
        if detection is None:
            return None
        measurements, controls = [detection], []
        checkable = said.predicate is not None
        if checkable:
            measurements += self._listed("fuzzing", self._fuzzing, said, unit, scope)
            measurements += self._simulated(said, unit, scope)
        for judge in self._judges:
            measurements += self._listed(judge.name, self._judged(judge), said, unit, scope)
        controls += self._listed("detection_hard", self._detection_hard, said, unit, scope)
        controls += self._listed("detection_lookalike", self._lookalike, said, unit, scope)
        if checkable:
            controls += self._listed("fuzzing_hard", self._fuzzing_hard, said, unit, scope)
        return Assessment(
            tuple(measurements),
            tuple(controls),
            beats_floor(detection),
            {each.metric: _summary(each) for each in (*measurements, *controls)},
        )

    # Floors

    def _listed(
        self, metric: str, score: _Score, said: Said, unit: int, scope: str
    ) -> list[Measurement]:
        found = self._floored(metric, score, said, unit, scope)
        return [] if found is None else [found]

    def _floored(
        self, metric: str, score: _Score, said: Said, unit: int, scope: str
    ) -> Measurement | None:
        own = score(said, unit)
        if own is None:
            return None
        judged = isinstance(own, Separation) or said.predicate is None
        floor = [_value(result) for result in self._mismatched(score, said, unit, judged=judged)]
        if len(floor) < 2:
            return None
        if isinstance(own, Detection):
            return scoring.Score(own, tuple(floor)).measurement(scope, metric)
        assert isinstance(own, Separation)
        return scoring.measured(
            metric,
            own.auroc,
            own.interval(),
            floor,
            scope=scope,
            unit="probability",
            n=own.n_active + own.n_silent,
        )

    def _mismatched(self, score: _Score, said: Said, unit: int, *, judged: bool) -> list[_Result]:
        """Scores of this caption on other units, and of other units' captions on this one."""
        captioner = self._captioner
        others = [other for other in range(len(captioner.samples)) if other != unit]
        # The same units for every score of a unit, and other ones for the next unit.
        order = np.random.default_rng([self._context.seed, 4, unit]).permutation(others).tolist()
        limit = _JUDGED_FLOOR_UNITS if judged else _FLOOR_UNITS[self._effort]
        rivals = [
            rival
            for other in order
            if other < captioner.n_requested
            and (rival := self._said[other]) is not None
            and (rival.predicate is None) == (said.predicate is None)
        ]
        results = [score(rival, unit) for rival in rivals[:limit]]
        wanted = limit if not judged else max(0, limit - len(results))
        for other in order:
            if wanted == 0:
                break
            if scoring.scorable(captioner.samples[other]):
                results.append(score(said, other))
                wanted -= 1
        return [result for result in results if result is not None]

    # Scores of checkable captions

    def _detection(self, said: Said, unit: int) -> Detection | None:
        return self._detected(said, unit, self._captioner.samples[unit])

    def _detection_hard(self, said: Said, unit: int) -> Detection | None:
        hard = self._trials.nearby(unit)
        return self._detected(said, unit, Sample(self._captioner.samples[unit].active, hard, hard))

    def _lookalike(self, said: Said, unit: int) -> Detection | None:
        sample = self._captioner.samples[unit]
        return self._detected(said, unit, Sample(sample.active, sample.hard, sample.hard))

    def _detected(self, said: Said, unit: int, sample: Sample) -> Detection | None:
        if not scoring.scorable(sample):
            return None
        if said.predicate is not None:
            return scoring.detect(self._answers(said.predicate, unit), sample)
        if not self._judges:
            return scoring.detect(None, sample)
        return self._decided(self._judges[0], said.caption, unit, sample)

    def _answers(self, predicate: Predicate, unit: int) -> Column:
        """For each held-out context, whether `predicate` holds at tokens enough.

        How many are enough is set for this unit, whichever unit the caption was made for.
        """
        captioner = self._captioner
        parts = (captioner.fit, captioner.validation, captioner.held_out)
        *known, held_out = (part.contexts.count_in(holds(predicate, part.table)) for part in parts)
        samples = self._trials.own(unit)
        active, silent = (
            np.concatenate([counts[rows] for counts, rows in zip(known, chosen, strict=True)])
            for chosen in (
                [sample.active for sample in samples],
                [sample.silent for sample in samples],
            )
        )
        # One token at least: what does not hold anywhere says nothing.
        enough = max(threshold_between(active, silent), 0.5) if len(active) else 0.5
        return np.asarray(held_out >= enough)

    def _fuzzing(self, said: Said, unit: int) -> Detection | None:
        marking = self._trials.marking(unit)
        return fuzz(self._holds(said), marking.right, marking.wrong)

    def _fuzzing_hard(self, said: Said, unit: int) -> Detection | None:
        marking = self._trials.marking(unit)
        return fuzz(self._holds(said), marking.right, marking.hard)

    def _holds(self, said: Said) -> Column | None:
        if said.predicate is None:
            return None
        return holds(said.predicate, self._captioner.held_out.table)

    def _simulated(self, said: Said, unit: int, scope: str) -> list[Measurement]:
        own = self._simulation(said, unit)
        pairs = self._mismatched(self._simulation, said, unit, judged=False)
        floor = [result for result in pairs if isinstance(result, Simulation)]
        if own is None or len(floor) < 2:
            return []
        intervals = own.intervals(self._context.seed)
        return [
            scoring.measured(
                "simulation",
                own.correlation,
                intervals[0],
                [each.correlation for each in floor],
                scope=scope,
                unit="correlation",
                n=len(own.sums),
            ),
            scoring.measured(
                "explained_variance",
                own.explained_variance,
                intervals[1],
                [each.explained_variance for each in floor],
                scope=scope,
                unit="fraction",
                n=len(own.sums),
            ),
        ]

    def _simulation(self, said: Said, unit: int) -> Simulation | None:
        """A mismatched caption is calibrated anew for the unit that it is tried on."""
        captioner, part = self._captioner, self._captioner.held_out
        sample = captioner.samples[unit]
        if said.predicate is None or not scoring.scorable(sample):
            return None
        levels = calibrated(said.predicate, captioner.fit.table, captioner.fit.activations[:, unit])
        return simulate(
            levels.predicted(part.table),
            part.activations[:, unit],
            part.contexts,
            np.concatenate([sample.active, sample.silent]),
        )

    # Scores by judges of free text

    def _judged(self, judge: Judge) -> _Score:
        def score(said: Said, unit: int) -> Separation | None:
            sample = self._few(self._captioner.samples[unit])
            if not scoring.scorable(sample):
                return None
            return separation(*self._asked(judge, said.caption, self._captioner.held_out, sample))

        return score

    def _decided(self, judge: Judge, caption: str, unit: int, sample: Sample) -> Detection | None:
        """Yes or no by a threshold from the captioner's own documents, for whichever unit."""
        known = self._trials.own(unit)[1]
        if min(len(known.active), len(known.silent)) == 0:
            return None
        limit = threshold_between(
            *self._asked(judge, caption, self._captioner.validation, self._few(known))
        )
        active, silent = self._asked(judge, caption, self._captioner.held_out, self._few(sample))
        return Detection(
            int((active >= limit).sum()), len(active), int((silent < limit).sum()), len(silent)
        )

    def _asked(
        self, judge: Judge, caption: str, part: Part, sample: Sample
    ) -> tuple[Float[ndarray, " active"], Float[ndarray, " silent"]]:
        rows = np.concatenate([sample.active, sample.silent]).tolist()
        scores = judge.scores(caption, [self._trials.text(part, row) for row in rows])
        return scores[: len(sample.active)], scores[len(sample.active) :]

    def _few(self, sample: Sample) -> Sample:
        """As many active and silent contexts as a judge reads, spread over the documents."""
        limit = _JUDGED_CONTEXTS[self._effort]

        def spread(rows: Ints) -> Ints:
            if len(rows) <= limit:
                return rows
            return np.asarray(rows[np.linspace(0, len(rows) - 1, limit).astype(int)])

        return Sample(spread(sample.active), spread(sample.silent), spread(sample.hard))


def assess(
    context: ToolContext,
    captioner: Captioner,
    unit: int,
    name: str,
    choices: Sequence[Chosen | None],
    *,
    effort: Effort,
) -> Assessment | None:
    """One unit's scores; for many units make one `Assessor`, which remembers what they share."""
    said = [said_of(chosen) for chosen in choices]
    judges = judges_for(context, effort)
    return Assessor(context, captioner, said, effort=effort, judges=judges).assess(unit, name)


def said_of(chosen: Chosen | None) -> Said | None:
    """The caption that was chosen."""
    return None if chosen is None else Said(chosen.candidate.caption, chosen.candidate.predicate)


def judges_for(context: ToolContext, effort: Effort) -> list[Judge]:
    """The judges that can be had: the embedder where its weights are, the subject at full effort.

    The subject reads every context under every caption, which costs more than all other scores.
    """
    judges: list[Judge] = []
    folder = context.weights_folder / EMBEDDINGS
    if (folder / "model.safetensors").is_file():
        judges.append(_embedding_judge(folder))
    if effort == "full" or not judges:
        judges.append(LikelihoodJudge(context.subject))
    return judges


@cache
def _embedding_judge(folder: Path) -> EmbeddingJudge:
    return EmbeddingJudge(Embedder(folder))


def beats_floor(measurement: Measurement) -> bool:
    """The whole interval lies above the floor, and above chance."""
    return measurement.ci95[0] > max(measurement.baseline, 0.5)


def _value(result: _Result) -> float:
    if isinstance(result, Detection):
        return result.balanced_accuracy
    return result.correlation if isinstance(result, Simulation) else result.auroc


def _summary(measurement: Measurement) -> dict[str, Any]:
    return {
        "value": round(measurement.value, 4),
        "floor": round(measurement.baseline, 4),
        "ci95": [round(limit, 4) for limit in measurement.ci95],
        "n": measurement.n,
        "n_failed": measurement.n_failed,
    }
