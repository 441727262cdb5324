"""Choice among candidate captions by pointwise mutual information (MILAN, arXiv:2201.11114).

MILAN takes the description d of exemplars E with the highest log p(d|E) - tau * log p(d), so that a
phrase has to owe its probability to the unit and not to being a common phrase. Here

- p(d) is the subject's own probability of the caption's words after a neutral beginning;
- p(d|E) is proportional to p(E|d) * p(d), where E is in which validation contexts the unit is
  active, and at which tokens of those. p(E|d) has two rates for each: of active contexts (tokens)
  among those for which the caption says so, and among the others. They are measured on the
  documents that the caption was found on, with half a count added on either side; the validation
  documents took no part in finding it.

So the score is log p(E|d) + (1 - tau) * log p(d) up to a constant: at tau 0 a caption is as good as
its posterior probability, at tau 1 as its likelihood.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.tokens import Column
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.likelihood import log_probs_after

TAU = 0.95
"""MILAN uses 0.2, with both terms from one captioner; here p(d) spans tens of nats where p(E|d)
spans a few. Of 0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95 and 1, on 39 neurons of smollm2 set apart for it
and 200 documents, this let most captions beat their floor (15; 14 at 0, 12 at 1); on 42 other
neurons 14 did, and 10 at 0. With 1000 documents it makes little difference: on planted units 173 of
180 are recovered at 0 and 174 from 0.2 to 1 (`python -m dragoman.evals.planted_units --tune`)."""
_BEGINNING = "The highlighted parts of the text are"


class Ranked(NamedTuple):
    """A candidate's score, in nats, and its two terms."""

    log_likelihood: float
    """log p(E|d)"""
    log_prior: float
    """log p(d)"""

    def score(self, tau: float) -> float:
        """The value of log p(d|E) - tau * log p(d), up to a constant that all candidates share."""
        return self.log_likelihood + (1 - tau) * self.log_prior


class Evidence(NamedTuple):
    """In which contexts, or at which tokens, a caption says that its unit is active, and it is."""

    said_fit: Column
    truth_fit: Column
    said: Column
    """On the validation documents, as is `truth`."""
    truth: Column


def log_likelihood(evidence: Evidence) -> float:
    """The value of log p(E|d) on the validation documents, in nats, with rates from the fit's."""
    said_fit, truth_fit, said, truth = evidence
    total = 0.0
    for answer in (True, False):
        asked = said_fit == answer
        rate = ((truth_fit & asked).sum() + 0.5) / (asked.sum() + 1.0)
        mine = said == answer
        n_active, n_silent = int((truth & mine).sum()), int((~truth & mine).sum())
        total += n_active * math.log(rate) + n_silent * math.log1p(-rate)
    return total


def cut(scores: Float[ndarray, " contexts"], truth: Column) -> float:
    """The score from which on a judge of free text is taken to say yes: the most accurate one.

    Accuracy is balanced, so that a unit's few active contexts count as much as all others.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order]) / max(int(truth.sum()), 1)
    false = np.cumsum(~truth[order]) / max(int((~truth).sum()), 1)
    return float(scores[order][int(np.argmax(hits - false))])


def log_priors(subject: LanguageSubject, captions: Sequence[str]) -> list[float]:
    """For each caption log p(d), the subject's log-probability of its words, in nats."""
    written = log_probs_after(subject, _BEGINNING, [f" {caption}." for caption in captions])
    return [float(each.sum()) for each in written]


def best(
    likelihoods: Sequence[float], prior: Callable[[int], float], tau: float
) -> tuple[int, Ranked]:
    """Index of the winner, the first among equals, and its two terms.

    `prior(row)` is asked for only where it can matter: log p(d) is at most 0, so a candidate whose
    likelihood is below the best score so far has lost already.
    """
    winner, ranked = -1, Ranked(-math.inf, 0.0)
    for row in sorted(range(len(likelihoods)), key=lambda row: -likelihoods[row]):
        if likelihoods[row] < ranked.score(tau):
            break
        candidate = Ranked(likelihoods[row], prior(row))
        ahead = candidate.score(tau) - ranked.score(tau)
        if ahead > 0 or (ahead == 0 and row < winner):
            winner, ranked = row, candidate
    return winner, ranked
