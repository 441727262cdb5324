"""The same pipeline on the same texts and the same units of a network with random weights.

Sparse-autoencoder captions have scored as well on random networks as on trained ones (Heap et al.
2025, arXiv:2501.17727): an untrained unit also fires on this word and not on that. What a trained
unit's caption scores more than its twin's is what training has put there to be described.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import Measurement
from dragoman.tools.captioning.assessment import Assessor, judges_for, said_of
from dragoman.tools.captioning.bench import Bench
from dragoman.tools.captioning.describing import captioner_for, choose_all
from dragoman.tools.captioning.readings import Read, Wanted, read_shards
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.huggingface import random_twin

SUFFIX = "_random_twin"


class Bar(NamedTuple):
    """What captions of units with random weights reach; a caption of a trained unit must pass it.

    A unit with random weights responds to some words more than to others, and a caption can list
    them: it beats every shuffled caption. What sets it apart is how much of the unit's activity it
    leaves unsaid. So the bar is on the simulation's correlation (on detection where a caption
    cannot be simulated), on Fisher's scale, where units spread nearly normally.
    """

    centre: Mapping[str, float]
    """Mean of the scores on Fisher's scale, by metric."""
    spread: Mapping[str, float]
    n: int
    """Units of the twin with a caption."""

    @classmethod
    def of(cls, scores: Sequence[Mapping[str, float]]) -> "Bar | None":
        """The bar that these scores of the twin's units set, one mapping a unit; None for few."""
        centre, spread = {}, {}
        for metric in _BARRED:
            values = [_fisher(metric, each[metric]) for each in scores if metric in each]
            if len(values) >= _LEAST_UNITS:
                centre[metric], spread[metric] = float(np.mean(values)), float(np.std(values))
        return cls(centre, spread, len(scores)) if centre else None

    def passed_by(self, scores: Mapping[str, float]) -> bool:
        """Whether a caption with these scores says more of its unit than the twin's captions do."""
        metric = next((name for name in _BARRED if name in scores and name in self.centre), None)
        if metric is None:
            return False
        limit = self.centre[metric] + _DEVIATIONS * self.spread[metric]
        return _fisher(metric, scores[metric]) > limit

    def values(self) -> dict[str, float]:
        """The bar itself, by metric."""
        return {
            metric: _unfisher(metric, centre + _DEVIATIONS * self.spread[metric])
            for metric, centre in self.centre.items()
        }


class TwinScores(NamedTuple):
    """Each unit's own twin, and the bar that all of them set."""

    scores: list[tuple[Measurement, ...]]
    bar: Bar | None


_BARRED = ("simulation", "detection")
_DEVIATIONS = 2.5
"""Above so many standard deviations lies one unit in 160, if they spread normally."""
_LEAST_UNITS = 12


def _fisher(metric: str, value: float) -> float:
    # Detection is a fraction; its distance from chance takes the place of a correlation.
    scaled = 2 * value - 1 if metric == "detection" else value
    return float(np.arctanh(np.clip(scaled, -_HIGHEST, _HIGHEST)))


def _unfisher(metric: str, value: float) -> float:
    scaled = float(np.tanh(value))
    return (scaled + 1) / 2 if metric == "detection" else scaled


_HIGHEST = 0.999


def assess_twin(
    context: ToolContext, bench: Bench, names: Sequence[str], *, effort: Effort, pmi: bool = True
) -> TwinScores:
    """For each of the bench's units the twin's scores, each metric called `..._random_twin`.

    Captions are found without a chat model, for the decoys as well: the bar takes more units than
    may have been asked for. A unit's scores are empty if it got no caption there, or has too few
    active contexts. Latents have no twin: a dictionary is made for the subject's own weights.
    """
    alone = replace(context, chat=None)
    units = [*bench.units, *bench.decoys]
    activations = twin_activations(alone, bench, units)
    captioner = captioner_for(alone, bench.table, activations, len(units))
    called = [*names, *(f"{bench.where}.{decoy}" for decoy in bench.decoys)]
    choices = choose_all(
        alone, captioner, [f"{name} of the random twin" for name in called], pmi=pmi
    )
    said = [said_of(chosen) for chosen in choices.chosen]
    judged, decoyed = (
        Assessor(alone, captioner, said, effort=effort, judges=judges)
        for judges in (judges_for(alone, effort), ())
    )
    measured: list[tuple[Measurement, ...]] = []
    for unit, name in enumerate(called):
        # Judges are dear, and the bar is on other scores.
        found = (judged if unit < len(names) else decoyed).assess(unit, name)
        measured.append(() if found is None else found.measurements)
    return TwinScores(
        [
            tuple(each.model_copy(update={"metric": each.metric + SUFFIX}) for each in measurements)
            for measurements in measured[: len(names)]
        ],
        Bar.of([{one.metric: one.value for one in each} for each in measured if each]),
    )


def twin_activations(
    context: ToolContext, bench: Bench, units: Sequence[int]
) -> Float[ndarray, "tokens units"]:
    """What units of the random twin do on the bench's texts; each unit's column is cached."""
    wanted = {bench.where: units}
    return read_twin(context, bench.corpus.documents, bench.table, wanted)[bench.where]


def read_twin(
    context: ToolContext, documents: Sequence[str], table: TokenTable, wanted: Wanted
) -> Read:
    """Activations of the random twin's units, of many layers in one pass; each column is cached."""

    @cache
    def with_twin() -> ToolContext:
        context.step(0, 0, "making a twin with random weights")
        return replace(context, network=random_twin(context.subject, context.seed))

    folder = context.cache / "twins" / f"{context.subject.identity.digest}-{context.seed}"
    return read_shards(with_twin, documents, table, wanted, folder)
