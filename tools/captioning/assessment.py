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
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.captioning import scoring
from dragoman.tools.captioning.captioner import Captioner, Chosen
from dragoman.tools.captioning.chat_judge import ChatJudge
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.fuzzing import fuzz
from dragoman.tools.captioning.hearing import CHAT_METRICS, Hearing, Said
from dragoman.tools.captioning.judges import (
    EmbeddingJudge,
    Judge,
    LikelihoodJudge,
    Separation,
    threshold_between,
)
from dragoman.tools.captioning.meanings import embedder
from dragoman.tools.captioning.neighbours import Neighbours
from dragoman.tools.captioning.predicates import Predicate, holds
from dragoman.tools.captioning.scoring import Detection
from dragoman.tools.captioning.simulation import Simulation, calibrated, simulate
from dragoman.tools.captioning.tokens import Column
from dragoman.tools.captioning.trials import Trials
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort

_FLOOR_UNITS: dict[Effort, int] = {"quick": 8, "full": 16}


class Assessment(NamedTuple):
    """A caption's scores."""

    measurements: tuple[Measurement, ...]
    controls: tuple[Measurement, ...]
    holds: bool
    """Detection's whole interval lies above its floor, and above chance."""
    output: JsonObject


_Result: TypeAlias = Detection | Simulation | Separation
_Score: TypeAlias = Callable[[Said, int], Detection | Simulation | Separation | None]


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
        chat: ChatJudge | None = None,
    ) -> None:
        """`said` has one entry for each requested unit; without `neighbours` they are looked for
        among the captioner's own columns. With `chat` a chat model judges as well.
        """
        self._context, self._captioner, self._said = context, captioner, said
        self._effort, self._judges = effort, judges
        self._trials = Trials(captioner, neighbours, context.seed)
        self._hearing = Hearing(captioner, self._trials, effort, chat)

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
            score = partial(self._hearing.separation, judge)
            measurements += self._listed(judge.name, score, said, unit, scope)
        for task, metric in CHAT_METRICS.items():
            verdict = partial(self._hearing.by_chat, task)
            measurements += self._listed(metric, verdict, said, unit, scope)
        controls += self._listed("detection_hard", self._detection_hard, said, unit, scope)
        controls += self._listed("detection_lookalike", self._lookalike, said, unit, scope)
        if checkable:
            controls += self._listed("fuzzing_hard", self._fuzzing_hard, said, unit, scope)
        return Assessment(
            tuple(measurements),
            tuple(controls),
            beats_floor(detection),
            {each.metric: summary_of(each) for each in (*measurements, *controls)},
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
        judged = isinstance(own, Separation) or said.predicate is None or metric.startswith("chat")
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
            n_failed=own.n_failed,
        )

    def _mismatched(self, score: _Score, said: Said, unit: int, *, judged: bool) -> list[_Result]:
        """Scores of this caption on other units, and of other units' captions on this one.

        The same units for every score of a unit. Judges are dear: they hear the next unit's caption
        on this one and this one's on the unit before, which is that unit's floor as well.
        """
        captioner = self._captioner
        n_requested, n_units = captioner.n_requested, len(captioner.samples)
        ring = [(unit + step) % n_requested for step in range(1, n_requested)]
        drawn = np.random.default_rng([self._context.seed, 4, unit]).permutation(n_units).tolist()
        order = [other for other in drawn if other != unit]
        rivals = [
            rival
            for other in (ring if judged else order)
            if other < n_requested
            and (rival := self._said[other]) is not None
            and (rival.predicate is None) == (said.predicate is None)
        ]
        others = [
            other
            for other in ([*ring[::-1], *order] if judged else order)
            if scoring.scorable(captioner.samples[other])
        ]
        limit = 1 if judged else _FLOOR_UNITS[self._effort]
        results = [score(rival, unit) for rival in rivals[:limit]]
        for other in dict.fromkeys(others):
            if len(results) >= 2 * limit:
                break
            results.append(score(said, other))
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
        return self._hearing.decided(self._judges[0], said.caption, unit, sample)

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
    vectors = embedder(context)
    if vectors is not None:
        judges.append(EmbeddingJudge(vectors))
    if effort == "full" or not judges:
        judges.append(LikelihoodJudge(context.subject))
    return judges


def beats_floor(measurement: Measurement) -> bool:
    """The whole interval lies above the floor, and above chance."""
    return measurement.ci95[0] > max(measurement.baseline, 0.5)


def _value(result: _Result) -> float:
    if isinstance(result, Detection):
        return result.balanced_accuracy
    return result.correlation if isinstance(result, Simulation) else result.auroc


def summary_of(measurement: Measurement) -> dict[str, Any]:
    """A score as a unit's entry shows it."""
    return {
        "value": round(measurement.value, 4),
        "floor": round(measurement.baseline, 4),
        "ci95": [round(limit, 4) for limit in measurement.ci95],
        "n": measurement.n,
        "n_failed": measurement.n_failed,
    }
