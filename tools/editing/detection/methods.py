"""Everything that foresees errors on one fold: the probe, what it has to beat, and its controls.

Each method sees the fitting split's labels and hands back decisions and risks of the test split.

    probe             the decoder with the editor's directions
    untrained         the decoder with the raw attribute vectors (the identity baseline)
    stated object     the decoder's answers' means alone: no entity is looked at
    another entity    the whole procedure on entity vectors dealt out anew
    confidence        the subject's own: how probable its answer is, calibrated in the same way
    with confidence   probe and confidence together
    random twin       the whole procedure on a network with freshly drawn weights
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dragoman.tools.editing.detection.classifying import calibrate, phi
from dragoman.tools.editing.detection.decoder import Claims, Flags, log_softmax
from dragoman.tools.editing.detection.probe import ANSWERS_ALONE, Bank, Probe, fit_bank
from dragoman.tools.editing.detection.reading import Readings
from dragoman.tools.statistics import Floats

PROBE = "probe"
UNTRAINED = "attribute vectors without an editor"
STATED_OBJECT = "the stated object alone"
ANOTHER_ENTITY = "another entity's representation"
CONFIDENCE = "the subject's own confidence"
COMBINED = "probe and confidence together"
TWIN = "random-weight twin"
CONTROL_TASK = "control task (labels dealt out anew)"


class Told(NamedTuple):
    """What one method says of the test split."""

    foreseen: Flags
    risk: Floats


class Part(NamedTuple):
    """One side of a split: what was read, what was claimed, where the subject errs."""

    readings: Readings
    claims: Claims
    wrong: Flags


class Split(NamedTuple):
    """Row numbers: what is fitted on, its inner folds (within the fitting rows), the test."""

    fit: tuple[int, ...]
    inner: tuple[tuple[int, ...], ...]
    test: tuple[int, ...]

    def parts(self, readings: Readings, claims: Claims, wrong: Flags) -> tuple[Part, Part]:
        """The fitting and the test side."""
        fit, test = list(self.fit), list(self.test)
        return (
            Part(readings.rows(fit), claims.rows(fit), wrong[fit]),
            Part(readings.rows(test), claims.rows(test), wrong[test]),
        )


def confidences(readings: Readings, claims: Claims) -> Mapping[str, Floats]:
    """Doubt in three forms (higher: less confident); none looks at what is claimed."""
    among = log_softmax(np.where(claims.candidates, readings.answers, -1e9))
    return {
        "its answer among the candidates": -among.max(1),
        "its most probable token": -readings.top,
        "entropy of the next token": readings.entropy,
    }


def ask_confidence(fit: Part, test: Part) -> tuple[Told, Floats, Floats]:
    """The form of doubt that tells most on the fitting split; its scores on both sides too."""
    here, there = confidences(fit.readings, fit.claims), confidences(test.readings, test.claims)
    made = {name: calibrate(scores, fit.wrong) for name, scores in here.items()}
    best = max(made, key=lambda name: phi(made[name].foresees(here[name]), fit.wrong))
    chosen = made[best]
    told = Told(chosen.foresees(there[best]), chosen.risk(there[best]))
    return told, here[best], there[best]


def ask_probe(probe: Probe, test: Part) -> Told:
    """The probe's decisions and risks."""
    said = probe.judge(test.readings, test.claims)
    return Told(said.foreseen, said.risk)


def combine(here: Sequence[Floats], there: Sequence[Floats], wrong: Flags) -> Told:
    """Several scores as one: the sum of the log-odds that each gives by itself."""
    made = [calibrate(scores, wrong) for scores in here]

    def odds(scores: Sequence[Floats]) -> Floats:
        risks = [one.risk(each) for one, each in zip(made, scores, strict=True)]
        total: Floats = np.sum([np.log(risk) - np.log1p(-risk) for risk in risks], axis=0)
        return total

    both = calibrate(odds(here), wrong)
    return Told(both.foresees(odds(there)), both.risk(odds(there)))


def fitted(
    split: Split,
    fit: Part,
    directions: Float[np.ndarray, "answer d_model"],
    options: Sequence[tuple[int, ...]] | None = None,
) -> Bank:
    """The bank of one fold."""
    return fit_bank(fit.readings, fit.claims, directions, split.inner, options)


def ask_all(
    split: Split,
    readings: Readings,
    claims: Claims,
    wrong: Flags,
    directions: Float[np.ndarray, "answer d_model"],
    attributes: Float[np.ndarray, "answer d_model"],
    seed: int,
) -> tuple[dict[str, Told], Bank, Probe]:
    """Every method but the twin on one fold; the probe's bank and the probe come along."""
    fit, test = split.parts(readings, claims, wrong)
    bank = fitted(split, fit, directions)
    probe, scores = bank.choose(fit.wrong)
    confident, here, there = ask_confidence(fit, test)
    test_scores = probe.judge(test.readings, test.claims).scores
    told = {
        PROBE: ask_probe(probe, test),
        CONFIDENCE: confident,
        COMBINED: combine([scores, here], [test_scores, there], fit.wrong),
    }
    alone, _ = fitted(split, fit, directions, ANSWERS_ALONE).choose(fit.wrong)
    told[STATED_OBJECT] = ask_probe(alone, test)
    plain, _ = fitted(split, fit, attributes).choose(fit.wrong)
    told[UNTRAINED] = ask_probe(plain, test)
    told[ANOTHER_ENTITY] = _with_others(split, readings, claims, wrong, directions, seed)
    return told, bank, probe


def _with_others(
    split: Split,
    readings: Readings,
    claims: Claims,
    wrong: Flags,
    directions: Float[np.ndarray, "answer d_model"],
    seed: int,
) -> Told:
    """The same with entity vectors dealt out anew within each side."""
    generator = np.random.default_rng(seed)
    entity = readings.entity.copy()
    for side in (split.fit, split.test):
        rows = list(side)
        entity[rows] = readings.entity[generator.permutation(rows)]
    fit, test = split.parts(readings._replace(entity=entity), claims, wrong)
    probe, _ = fitted(split, fit, directions).choose(fit.wrong)
    return ask_probe(probe, test)


def control_phis(
    splits: Sequence[Split],
    banks: Sequence[Bank],
    readings: Readings,
    claims: Claims,
    wrong: Flags,
    seed: int,
    count: int,
) -> Floats:
    """Matthews phi on labels dealt out anew (Hewitt & Liang 2019), one value for each deal.

    Layers, threshold and test all go by the dealt labels; the decoders know no labels anyway.
    """
    generator = np.random.default_rng(seed)
    found = np.empty(count)
    for deal in range(count):
        dealt = generator.permutation(wrong)
        foreseen = np.zeros(len(wrong), dtype=bool)
        for split, bank in zip(splits, banks, strict=True):
            fit, test = split.parts(readings, claims, dealt)
            probe, _ = bank.choose(fit.wrong)
            foreseen[list(split.test)] = ask_probe(probe, test).foreseen
        tested = sorted(at for split in splits for at in split.test)
        found[deal] = phi(foreseen[tested], dealt[tested])
    return found
