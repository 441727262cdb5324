"""Judges of free text: does a text go with a caption? Neither needs a chat model.

- *embedding*: the cosine of caption and text by a sentence embedder;
- *likelihood*: how much likelier the caption makes the text, by the subject's own reading:
  NLL(text | neutral words) - NLL(text | caption), in nats a token.

Both after EleutherAI's delphi (its embedding and surprisal scorers). A judge's score has no natural
zero, so what is reported is the AUROC: the probability that a context in which the unit is active
scores above one in which it is silent. Where a yes or no is needed, the threshold is set on the
captioner's own documents.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.senses import Vectors
from dragoman.tools.statistics import Z95, Interval
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.likelihood import log_probs_after

NEUTRAL = "various unrelated passages"
_FRAME = "The following is a passage with {}:\n\n"


class FreeTextJudge(Protocol):
    """Says how well texts go with a caption; higher is better."""

    def scores(self, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """One score a text."""
        ...


class Judge(Protocol):
    """Scores texts by how well they go with a caption; higher is better, no natural zero."""

    name: str

    def scores(self, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """One score a text; NaN where the judgement failed."""
        ...


class EmbeddingJudge:
    """Cosine of caption and text."""

    name = "embedding"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def scores(self, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """Cosines, -1 to 1."""
        return np.asarray(self._vectors(texts) @ self._vectors([caption])[0], dtype=np.float64)


class LikelihoodJudge:
    """What a caption does to the subject's own log-likelihood of a text."""

    name = "likelihood"

    def __init__(self, subject: LanguageSubject) -> None:
        self._subject = subject
        self._neutral: dict[str, float] = {}

    def scores(self, caption: str, texts: Sequence[str]) -> Float[ndarray, " texts"]:
        """NLL(text | neutral) - NLL(text | caption), in nats a token."""
        new = [text for text in dict.fromkeys(texts) if text not in self._neutral]
        self._neutral |= dict(zip(new, self._nll(NEUTRAL, new), strict=True))
        told = self._nll(caption, texts)
        return np.array(
            [self._neutral[text] - nll for text, nll in zip(texts, told, strict=True)],
            dtype=np.float64,
        )

    def _nll(self, caption: str, texts: Sequence[str]) -> list[float]:
        read = log_probs_after(self._subject, _FRAME.format(caption), texts)
        return [-float(each.sum()) / max(len(each), 1) for each in read]


class Separation(NamedTuple):
    """How far a judge's scores set active contexts apart from silent ones."""

    auroc: float
    """A text that could not be judged loses every comparison."""
    n_active: int
    n_silent: int
    n_failed: int = 0

    def interval(self) -> Interval:
        """95% interval that holds its level near 0 and 1 (Newcombe 2006, method 5)."""
        return Interval(self._limit(0.0), self._limit(1.0))

    def _limit(self, end: float) -> float:
        """The value between here and `end` at which the AUROC seen is 1.96 errors away."""
        inside, outside = self.auroc, end
        for _ in range(50):
            middle = (inside + outside) / 2
            if abs(self.auroc - middle) <= Z95 * self._error(middle):
                inside = middle
            else:
                outside = middle
        return inside

    def _error(self, value: float) -> float:
        mean_size = (self.n_active + self.n_silent) / 2 - 1
        bracket = 1 + mean_size * ((1 - value) / (2 - value) + value / (1 + value))
        return math.sqrt(value * (1 - value) * bracket / (self.n_active * self.n_silent))


def separation(active: Float[ndarray, " active"], silent: Float[ndarray, " silent"]) -> Separation:
    """AUROC of scores; ties count half, and NaN, a judgement that failed, as wrong."""
    failed = int(np.isnan(active).sum() + np.isnan(silent).sum())
    active, silent = np.nan_to_num(active, nan=-np.inf), np.nan_to_num(silent, nan=np.inf)
    above = (active[:, None] > silent).sum() + 0.5 * (active[:, None] == silent).sum()
    auroc = float(above) / (len(active) * len(silent))
    return Separation(auroc, len(active), len(silent), failed)


def threshold_between(
    active: Float[ndarray, " active"], silent: Float[ndarray, " silent"]
) -> float:
    """The threshold with the highest balanced accuracy on scores whose truth is known.

    Halfway between two neighbouring scores; the middle one of equals.
    """
    active, silent = active[~np.isnan(active)], silent[~np.isnan(silent)]
    values = np.unique(np.concatenate([active, silent]))
    if min(len(active), len(silent)) == 0:
        return 0.0
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    right = (active >= cuts[:, None]).mean(axis=1) + (silent < cuts[:, None]).mean(axis=1)
    best = np.flatnonzero(right >= right.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])
