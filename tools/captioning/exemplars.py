"""Where units are most active: one pass over a corpus for all requested units at once (MILAN §3).

Hernandez et al. 2022, arXiv:2201.11114: the 15 inputs of highest maximum activation, and a
threshold at the 0.99 quantile of the unit over *all positions of all inputs*, never per input.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from numpy import ndarray

TOP_CONTEXTS = 15
THRESHOLD_QUANTILE = 0.99


class QuantileSketch:
    """Counts of positive values in logarithmic buckets: mergeable, and bounded in memory.

    A quantile of the values seen is returned with a relative error of at most `RELATIVE_ERROR`;
    values below 2**-20, negative ones included, share one bucket whose representative is 0. Order
    of updates and merges makes no difference to any bit. After DDSketch (Masson et al. 2019).
    """

    RELATIVE_ERROR = 1 / 64
    _MANTISSA_BITS = 5
    _LOWEST_EXPONENT, _EXPONENTS = -20, 36

    def __init__(self, n_units: int) -> None:
        self._n_buckets = 1 + (self._EXPONENTS << self._MANTISSA_BITS)
        self.counts: Int[ndarray, "units buckets"] = np.zeros((n_units, self._n_buckets), np.int64)

    def update(self, values: Float[ndarray, "pos units"]) -> None:
        """Count `values`; float32 bit patterns of positive numbers are in the numbers' order."""
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32).astype(np.int64)
        offset = (self._LOWEST_EXPONENT + 127) << self._MANTISSA_BITS
        buckets = (bits >> (23 - self._MANTISSA_BITS)) - offset + 1
        buckets = np.clip(buckets, 0, self._n_buckets - 1)
        flat = buckets + np.arange(values.shape[1]) * self._n_buckets
        self.counts += np.bincount(flat.ravel(), minlength=self.counts.size).reshape(
            self.counts.shape
        )

    def merge(self, other: Self) -> None:
        """Count what `other` has counted."""
        self.counts += other.counts

    def quantile(self, share: float) -> Float[ndarray, " units"]:
        """The value below or at which at least `share` of a unit's values lie."""
        total = self.counts.sum(axis=1, keepdims=True)
        reached = np.cumsum(self.counts, axis=1) >= np.ceil(share * total - 1e-9)
        bucket = reached.argmax(axis=1)
        position = bucket - 1 + 0.5
        exponent, mantissa = np.divmod(position, 1 << self._MANTISSA_BITS)
        middle = np.exp2(exponent + self._LOWEST_EXPONENT) * (
            1 + mantissa / (1 << self._MANTISSA_BITS)
        )
        quantile: Float[ndarray, " units"] = np.where(bucket == 0, 0.0, middle)
        return quantile


class Exemplar(NamedTuple):
    """One of a unit's strongest contexts."""

    document: int
    position: int
    """Of the peak, within the document."""
    activation: float


class UnitSummaries:
    """Streaming statistics of many units over documents seen one after another.

    Merging the summaries of two shards gives, to the bit, those of one run over both.
    """

    def __init__(self, n_units: int, k: int = TOP_CONTEXTS) -> None:
        self._k = k
        self.sketch = QuantileSketch(n_units)
        self.n_positions = 0
        self.n_above_zero = np.zeros(n_units, np.int64)
        self.highest = np.full(n_units, -np.inf, np.float32)
        self.lowest = np.full(n_units, np.inf, np.float32)
        # Rows: (document, position) and activation of the best so far, best first.
        self._top = np.zeros((0, n_units), np.float32)
        self._where = np.zeros((0, n_units, 2), np.int64)

    def update(self, document: int, activations: Float[ndarray, "pos units"]) -> None:
        """Take in one document; documents may come in any order, each once."""
        self.sketch.update(activations)
        self.n_positions += len(activations)
        self.n_above_zero += (activations > 0).sum(axis=0)
        self.highest = np.maximum(self.highest, activations.max(axis=0))
        self.lowest = np.minimum(self.lowest, activations.min(axis=0))
        peaks = activations.argmax(axis=0)
        where = np.stack([np.full_like(peaks, document), peaks], axis=-1)
        self._keep_best(np.take_along_axis(activations, peaks[None], axis=0), where[None])

    def merge(self, other: Self) -> None:
        """Take in what another run saw, of the same units and other documents."""
        self.sketch.merge(other.sketch)
        self.n_positions += other.n_positions
        self.n_above_zero += other.n_above_zero
        self.highest = np.maximum(self.highest, other.highest)
        self.lowest = np.minimum(self.lowest, other.lowest)
        self._keep_best(other._top, other._where)

    def _keep_best(
        self, top: Float[ndarray, "rows units"], where: Int[ndarray, "rows units 2"]
    ) -> None:
        top = np.concatenate([self._top, top.astype(np.float32)])
        where = np.concatenate([self._where, where])
        # Equal activations are ordered by document, so the outcome knows no order of arrival.
        order = np.lexsort((where[..., 0], -top), axis=0)[: self._k]
        self._top = np.take_along_axis(top, order, axis=0)
        self._where = np.take_along_axis(where, order[..., None], axis=0)

    def exemplars(self, unit: int) -> list[Exemplar]:
        """The unit's strongest contexts, one a document, strongest first."""
        return [
            Exemplar(int(document), int(position), float(value))
            for value, (document, position) in zip(
                self._top[:, unit], self._where[:, unit], strict=True
            )
        ]

    def thresholds(self) -> Float[ndarray, " units"]:
        """The units' 0.99 quantiles over all positions, and never below zero."""
        return self.sketch.quantile(THRESHOLD_QUANTILE)

    def density(self) -> Float[ndarray, " units"]:
        """Share of positions with an activation above zero."""
        return self.n_above_zero / max(self.n_positions, 1)

    def dead(self) -> npt.NDArray[np.bool_]:
        """Units that are never above zero, or always the same: nothing to describe."""
        return np.asarray((self.highest <= 0) | (self.highest == self.lowest))
