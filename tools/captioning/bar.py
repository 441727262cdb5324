"""The bar that captions of random units set, counted once for a layer and its texts.

A unit with random weights has captions too; a trained unit's caption has to say more of it than
those do of theirs. The bar depends on the layer alone and not on which units were asked for, so one
count serves every group of a batch, and is kept for the next run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from dragoman.core.files import write_atomic
from dragoman.core.records import Record, content_id
from dragoman.tools.captioning.assessment import Assessor, said_of
from dragoman.tools.captioning.bench import Bench
from dragoman.tools.captioning.describing import captioner_for, choose_all
from dragoman.tools.captioning.twin import twin_activations
from dragoman.tools.captioning.units import n_units
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tools_digest

BAR_UNITS = 40
"""Units of the twin, drawn at random from the layer, whose captions set the bar."""


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
        limit = self.centre[metric] + DEVIATIONS * self.spread[metric]
        return _fisher(metric, scores[metric]) > limit

    def values(self) -> dict[str, float]:
        """The bar itself, by metric."""
        return {
            metric: _unfisher(metric, centre + DEVIATIONS * self.spread[metric])
            for metric, centre in self.centre.items()
        }


class _Kept(Record):
    """A bar as it lies in the cache; without values where too few captions could be scored."""

    centre: dict[str, float] | None
    spread: dict[str, float] | None
    n: int


def random_bar(context: ToolContext, bench: Bench, *, pmi: bool = True) -> Bar | None:
    """The bar of the bench's layer on its texts; None where the layer has too few units for one.

    Captions of the random twin are found without a chat model. The count is cached by subject,
    layer, texts, seed and the tools' source.
    """
    parts = [
        context.subject.identity.digest,
        str(bench.where),
        content_id(list(bench.corpus.documents)),
        context.seed,
        pmi,
        BAR_UNITS,
        tools_digest(),
    ]
    path = context.cache / "bars" / f"{content_id(parts)}.json"
    kept = _read(path)
    if kept is None:
        found = _counted(context, bench, pmi=pmi)
        kept = (
            _Kept(centre=None, spread=None, n=0)
            if found is None
            else _Kept(centre=dict(found.centre), spread=dict(found.spread), n=found.n)
        )
        write_atomic(path, kept.model_dump_json())
    if kept.centre is None or kept.spread is None:
        return None
    return Bar(kept.centre, kept.spread, kept.n)


def _read(path: Path) -> _Kept | None:
    # A damaged file is counted anew: the cache holds nothing irreplaceable.
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _counted(context: ToolContext, bench: Bench, *, pmi: bool) -> Bar | None:
    alone = replace(context, chat=None)
    every = n_units(context.subject, bench.where)
    order = np.random.default_rng([context.seed, 17, bench.where.layer]).permutation(every)
    units = [int(unit) for unit in order[:BAR_UNITS]]
    activations = twin_activations(alone, bench, units)
    captioner = captioner_for(alone, bench.table, activations, len(units))
    names = [f"{bench.where}.{unit} of the random twin" for unit in units]
    said = [said_of(chosen) for chosen in choose_all(alone, captioner, names, pmi=pmi).chosen]
    # Judges are dear and floors are not asked for: neither has a part in the bar.
    assessor = Assessor(alone, captioner, said, effort="quick", judges=())
    scores = []
    for unit, name in enumerate(names):
        context.step(unit, len(names), f"scoring the caption of unit {name}")
        found = assessor.assess(unit, name)
        if found is not None:
            scores.append({each.metric: each.value for each in found.measurements})
    return Bar.of(scores)


_BARRED = ("simulation", "detection")
DEVIATIONS = 2.75
"""Above so many standard deviations lie 13 in a thousand random units (16 of 1,260 neurons of nine
small networks; with 2.5 it was 22, with 3 it was 13): they are skewed, and bars are drawn from few
of them. With 3, fewer than nine in ten plain rules of planted units were told (97 of 108).
"""
_LEAST_UNITS = 12


def _fisher(metric: str, value: float) -> float:
    # Detection is a fraction; its distance from chance takes the place of a correlation.
    scaled = 2 * value - 1 if metric == "detection" else value
    return float(np.arctanh(np.clip(scaled, -_HIGHEST, _HIGHEST)))


def _unfisher(metric: str, value: float) -> float:
    scaled = float(np.tanh(value))
    return (scaled + 1) / 2 if metric == "detection" else scaled


_HIGHEST = 0.999
