"""From an entity's representation to the answer that the subject will give.

Score of an answer o for an entity whose representation at layer l is h (after REMEDI, Hernandez,
Li & Andreas 2023, section 5): the dot product of h and the editor's direction d(o), both z-scored
coordinate by coordinate with the statistics of the fitting split. The subject also favours some
answers whatever the entity is, so the decoder adds each answer's mean log-probability:

    logit(o) = w0 mean_log_p(o) + sum_l w_l <z(h_l), z(d(o))> / sqrt(d_model) + w_c [o is claimed]

The handful of weights is fitted so that softmax(logit) comes close (in KL divergence, with a ridge)
to what the subject answered on the fitting split. What it says there is a distribution over all
answers, and therefore far more to learn from than right or wrong. The answers of the scored prompts
are never looked at.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from dragoman.tools.statistics import Floats

Flags = npt.NDArray[np.bool_]
_RIDGE = 0.03
_LEAST_SCALE = 1e-3
_NEVER = -1e9
"""Stands for the logit of an answer that is no candidate."""


class Claims(NamedTuple):
    """What is asked of each prompt."""

    claimed: npt.NDArray[np.int64]
    """Index of the answer that the prompt's fact states."""
    candidates: Bool[np.ndarray, "prompt answer"]
    """Answers among which the subject chooses; the claimed one is always there."""

    def rows(self, chosen: Sequence[int]) -> "Claims":
        """The claims of some prompts."""
        at = list(chosen)
        return Claims(self.claimed[at], self.candidates[at])


class Decoder(NamedTuple):
    """A fitted decoder; all it needs to score one single prompt."""

    layers: tuple[int, ...]
    """Of the entity; empty: the answers' means alone."""
    entity_mean: Float[np.ndarray, "layer d_model"]
    entity_scale: Float[np.ndarray, "layer d_model"]
    directions: Float[np.ndarray, "answer d_model"]
    """z-scored over the answers."""
    prior: Floats
    """Mean log-probability of each answer on the fitting split, in nats."""
    prior_weight: float
    weights: Floats
    """One for each layer."""
    claimed_weight: float

    def logits(
        self, entity: Float[np.ndarray, "prompt layer d_model"], claims: Claims
    ) -> Float[np.ndarray, "prompt answer"]:
        """Of each answer, for entity vectors at the decoder's layers."""
        found = self.prior_weight * self.prior + similarities(self, entity) @ self.weights
        found[np.arange(len(found)), claims.claimed] += self.claimed_weight
        return np.where(claims.candidates, found, _NEVER)


def margins(logits: Float[np.ndarray, "prompt answer"], claims: Claims) -> Floats:
    """Logit of the claimed answer minus the best other candidate's: below 0 another one leads."""
    row = np.arange(len(logits))
    others = np.where(claims.candidates, logits, _NEVER)
    others[row, claims.claimed] = _NEVER
    lead: Floats = logits[row, claims.claimed] - others.max(1)
    return lead


def errs(answers: Float[np.ndarray, "prompt answer"], claims: Claims) -> Flags:
    """Whether the subject prefers another candidate to the claimed answer."""
    wrong: Flags = margins(answers, claims) < 0
    return wrong


def standardised(
    vectors: Float[np.ndarray, "row d_model"],
) -> Float[np.ndarray, "row d_model"]:
    """z-scored over the rows; a single row becomes zero."""
    scale = np.maximum(vectors.std(0), _LEAST_SCALE)
    found: Floats = (vectors - vectors.mean(0)) / scale
    return found


def similarities(
    decoder: Decoder, entity: Float[np.ndarray, "prompt layer d_model"]
) -> Float[np.ndarray, "prompt answer layer"]:
    """Dot products of z-scored entity vectors and directions, over sqrt(d_model)."""
    standard = (entity - decoder.entity_mean) / decoder.entity_scale
    found: Floats = np.einsum("pld,ad->pal", standard, decoder.directions)
    return found / math.sqrt(entity.shape[-1])


def fit_decoder(
    entity: Float[np.ndarray, "prompt layer d_model"],
    layers: tuple[int, ...],
    directions: Float[np.ndarray, "answer d_model"],
    answers: Float[np.ndarray, "prompt answer"],
    claims: Claims,
) -> Decoder:
    """Fit to what the subject answered; `directions` are as the editor gave them."""
    target = np.where(claims.candidates, answers, _NEVER)
    target = log_softmax(target)
    start = Decoder(
        layers,
        entity.mean(0),
        np.maximum(entity.std(0), _LEAST_SCALE),
        standardised(directions),
        log_softmax(answers).mean(0),
        1.0,
        np.zeros(len(layers)),
        0.0,
    )
    claimed = np.zeros(answers.shape)
    claimed[np.arange(len(answers)), claims.claimed] = 1.0
    features = np.concatenate(
        [
            np.broadcast_to(start.prior[:, None], (*answers.shape, 1)),
            similarities(start, entity),
            claimed[..., None],
        ],
        axis=-1,
    )
    mass = np.exp(target)
    shrunk = np.ones(features.shape[-1])
    shrunk[0] = 0.0

    def loss(weights: Floats) -> tuple[float, Floats]:
        found = log_softmax(np.where(claims.candidates, features @ weights, _NEVER))
        off = np.exp(found) - mass
        value = -(mass * np.where(claims.candidates, found, 0.0)).sum(1).mean()
        slope = np.einsum("pa,paf->f", off, features) / len(features)
        return (
            float(value + _RIDGE * (shrunk * weights**2).sum()),
            slope + 2 * _RIDGE * shrunk * weights,
        )

    begin = np.zeros(features.shape[-1])
    begin[0] = 1.0
    weights = minimize(loss, begin, jac=True, method="L-BFGS-B").x
    return start._replace(
        prior_weight=float(weights[0]),
        weights=np.asarray(weights[1:-1]),
        claimed_weight=float(weights[-1]),
    )


def log_softmax(logits: Float[np.ndarray, "prompt answer"]) -> Float[np.ndarray, "prompt answer"]:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
