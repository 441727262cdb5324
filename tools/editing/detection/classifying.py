"""Scores against labels: threshold, risk, and what is reported of a binary classifier.

Matthews phi (Matthews 1975), F1, and the area under the ROC curve; "positive" is always an error of
the subject. Thresholds and risks are set on the fitting split, so one single score can be judged.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.stats import rankdata

from dragoman.tools.editing.detection.decoder import Flags
from dragoman.tools.statistics import Floats


class Calibration(NamedTuple):
    """How a score (higher: an error is likelier) becomes a decision and a probability."""

    threshold: float
    """Above it an error is foreseen."""
    slope: float
    intercept: float
    """Of the logistic curve through the fitting split's scores (Platt 1999)."""

    def foresees(self, scores: Floats) -> Flags:
        """Where an error is foreseen."""
        above: Flags = scores > self.threshold
        return above

    def risk(self, scores: Floats) -> Floats:
        """Probability of an error."""
        found: Floats = 1.0 / (
            1.0 + np.exp(-np.clip(self.slope * scores + self.intercept, -30, 30))
        )
        return found


def calibrate(scores: Floats, wrong: Flags) -> Calibration:
    """The threshold of the highest phi, and Platt's curve with his smoothed targets.

    Scores should come from prompts that the scorer was not fitted on.
    """
    cuts = np.unique(scores)
    between = np.concatenate([[cuts[0] - 1.0], (cuts[1:] + cuts[:-1]) / 2])
    reached = np.array([phi(scores > cut, wrong) for cut in between])
    # Of equal ones the middle: both ends touch a score that was seen.
    best = np.flatnonzero(reached >= reached.max() - 1e-12)
    slope, intercept = _platt(scores, wrong)
    return Calibration(float(between[best[len(best) // 2]]), slope, intercept)


def _platt(scores: Floats, wrong: Flags) -> tuple[float, float]:
    n_wrong = int(wrong.sum())
    high = (n_wrong + 1) / (n_wrong + 2)
    low = 1 / (len(wrong) - n_wrong + 2)
    target = np.where(wrong, high, low)
    centre, spread = float(scores.mean()), float(max(scores.std(), 1e-9))
    standard = (scores - centre) / spread

    def loss(weights: Floats) -> tuple[float, Floats]:
        found = weights[0] * standard + weights[1]
        value = np.logaddexp(0.0, found) - target * found
        off = 1.0 / (1.0 + np.exp(-found)) - target
        return float(value.mean()), np.array([(off * standard).mean(), off.mean()])

    slope, intercept = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return float(slope / spread), float(intercept - slope * centre / spread)


def phi(foreseen: Flags, wrong: Flags) -> float:
    """Matthews correlation, -1..1; 0 where either side is constant, for then nothing is told."""
    return float(many_phi(foreseen[None], wrong[None])[0])


def many_phi(
    foreseen: Bool[np.ndarray, "set item"], wrong: Bool[np.ndarray, "set item"]
) -> Float[np.ndarray, " set"]:
    """`phi` of each row."""
    said, is_so = foreseen.astype(float), wrong.astype(float)
    said = said - said.mean(1, keepdims=True)
    is_so = is_so - is_so.mean(1, keepdims=True)
    size = np.sqrt((said**2).sum(1) * (is_so**2).sum(1))
    product = (said * is_so).sum(1)
    found: Floats = np.divide(product, size, out=np.zeros(len(product)), where=size > 1e-12)
    return found


def many_f1(
    foreseen: Bool[np.ndarray, "set item"], wrong: Bool[np.ndarray, "set item"]
) -> Float[np.ndarray, " set"]:
    """F1 of each row, errors being the positives; 0 where none is foreseen rightly."""
    hits = (foreseen & wrong).sum(1)
    total = foreseen.sum(1) + wrong.sum(1)
    found: Floats = np.divide(2.0 * hits, total, out=np.zeros(len(hits)), where=total > 0)
    return found


def auroc(scores: Floats, wrong: Flags) -> float:
    """Chance that an error scores above a right answer, ties counting half; .5 without both."""
    n_wrong = int(wrong.sum())
    n_right = len(wrong) - n_wrong
    if not n_wrong or not n_right:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[wrong].sum() - n_wrong * (n_wrong + 1) / 2) / (n_wrong * n_right))
