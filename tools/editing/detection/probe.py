"""The error probe: the decoder at the layers that foresee best, with threshold and risk.

Layers, threshold and risk curve are chosen on the fitting split alone, from scores of entities that
the decoder in question was not fitted on (4-fold cross-fitting). Decoders do not depend on which
answers are right, so the control task (labels dealt out anew) reuses them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dragoman.core.records import Record
from dragoman.tools.editing.detection.classifying import Calibration, auroc, calibrate
from dragoman.tools.editing.detection.decoder import Claims, Decoder, Flags, fit_decoder, margins
from dragoman.tools.editing.detection.reading import Readings
from dragoman.tools.statistics import Floats

N_INNER = 4
ANSWERS_ALONE: tuple[tuple[int, ...], ...] = ((),)
"""The one choice of layers that looks at no entity."""


class LayerScore(Record):
    """How well one choice of entity layers foresees errors, within the fitting split."""

    layers: tuple[int, ...]
    auroc: float


class Verdicts(NamedTuple):
    """What a probe says of some prompts, one entry each."""

    scores: Floats
    """Higher: an error is likelier."""
    foreseen: Flags
    risk: Floats
    """Probability of an error."""
    expected: tuple[int, ...]
    """Index of the answer that the representation speaks for, whatever is claimed."""
    rivals: tuple[int, ...]
    """The same among the answers that are not claimed."""


class Probe(NamedTuple):
    """A fitted, calibrated probe: it can judge one single prompt."""

    decoder: Decoder
    calibration: Calibration
    tried: tuple[LayerScore, ...]

    def judge(self, readings: Readings, claims: Claims) -> Verdicts:
        """Risk and expected answer of each prompt, from its entity's representation alone."""
        scores = -margins(_logits(self.decoder, readings, claims), claims)
        unswayed = _logits(self.decoder._replace(claimed_weight=0.0), readings, claims)
        others = unswayed.copy()
        others[np.arange(len(others)), claims.claimed] = -np.inf
        return Verdicts(
            scores,
            self.calibration.foresees(scores),
            self.calibration.risk(scores),
            tuple(int(best) for best in unswayed.argmax(1)),
            tuple(int(best) for best in others.argmax(1)),
        )


class Bank(NamedTuple):
    """Decoders at every choice of layers, fitted to what the subject answered."""

    decoders: tuple[Decoder, ...]
    scores: tuple[Floats, ...]
    """Of each choice: the cross-fitted scores of the fitting split, in its order."""

    def choose(self, wrong: Flags) -> tuple[Probe, Floats]:
        """The probe for these labels, and its cross-fitted scores."""
        tried = [
            LayerScore(layers=decoder.layers, auroc=auroc(scores, wrong))
            for decoder, scores in zip(self.decoders, self.scores, strict=True)
        ]
        best = max(range(len(tried)), key=lambda at: tried[at].auroc)
        calibration = calibrate(self.scores[best], wrong)
        return Probe(self.decoders[best], calibration, tuple(tried)), self.scores[best]


def layer_options(layers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Each layer alone, then all of them together."""
    single = tuple((layer,) for layer in layers)
    return single if len(layers) == 1 else (*single, tuple(layers))


def fit_bank(
    readings: Readings,
    claims: Claims,
    directions: Float[np.ndarray, "answer d_model"],
    folds: Sequence[Sequence[int]],
    options: Sequence[tuple[int, ...]] | None = None,
) -> Bank:
    """Fit every choice of layers, on all prompts and without each of the inner `folds`.

    Args:
        readings: of the fitting split's prompts.
        claims: the same prompts'.
        directions: one for each answer, as the editor gave them.
        folds: a partition of the prompts.
        options: choices of entity layers; left out, each layer and all together.
    """
    decoders, crossed = [], []
    for layers in layer_options(readings.layers) if options is None else options:
        scores = np.empty(len(claims.claimed))
        for outside in folds:
            held = set(outside)
            inside = [at for at in range(len(scores)) if at not in held]
            decoder = _fit(readings.rows(inside), claims.rows(inside), directions, layers)
            some = claims.rows(outside)
            scores[list(outside)] = -margins(_logits(decoder, readings.rows(outside), some), some)
        decoders.append(_fit(readings, claims, directions, layers))
        crossed.append(scores)
    return Bank(tuple(decoders), tuple(crossed))


def stratified(wrong: Flags, n_folds: int, seed: int) -> list[list[int]]:
    """A partition of the items into folds of like size and like shares of errors."""
    generator = np.random.default_rng(seed)
    dealt = [*generator.permutation(np.flatnonzero(wrong))]
    dealt += [*generator.permutation(np.flatnonzero(~wrong))]
    return [sorted(int(at) for at in dealt[fold::n_folds]) for fold in range(n_folds)]


def by_group(wrong: Flags, groups: Sequence[str], n_folds: int, seed: int) -> list[list[int]]:
    """`stratified` over groups, so that prompts of one entity stay together."""
    names = list(dict.fromkeys(groups))
    members = {name: [at for at, one in enumerate(groups) if one == name] for name in names}
    mostly = np.array([wrong[members[name]].mean() > 0.5 for name in names])
    return [
        sorted(at for index in fold for at in members[names[index]])
        for fold in stratified(mostly, n_folds, seed)
    ]


def _fit(
    readings: Readings,
    claims: Claims,
    directions: Float[np.ndarray, "answer d_model"],
    layers: tuple[int, ...],
) -> Decoder:
    places = [readings.layers.index(layer) for layer in layers]
    return fit_decoder(readings.entity[:, places], layers, directions, readings.answers, claims)


def _logits(decoder: Decoder, readings: Readings, claims: Claims) -> Floats:
    places = [readings.layers.index(layer) for layer in decoder.layers]
    return decoder.logits(readings.entity[:, places], claims)
