"""Where units are most active: statistics that stream, and that merge to the bit (MILAN §3).

Hernandez et al. 2022, arXiv:2201.11114: the 15 inputs of highest maximum activation, and a
threshold at the 0.99 quantile of the unit over *all positions of all inputs*, never per input.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Int32, Int64
from numpy import ndarray
from torch import Tensor

from dragoman.core.errors import ToolError

TOP_CONTEXTS = 15
THRESHOLD_QUANTILE = 0.99
_LAST_DOCUMENT = 2**32 - 1
_EMPTY = torch.iinfo(torch.int64).min
_COUNTED_AT_ONCE = 255
_GATHERED_AT_ONCE = 1 << 22


class QuantileSketch:
    """Counts of positive values in logarithmic buckets: mergeable, and bounded in memory.

    A quantile of the values seen is returned with a relative error of at most `RELATIVE_ERROR`;
    values below 2**-20, negative ones included, share one bucket whose representative is 0. Order
    of updates and merges makes no difference to any bit. After DDSketch (Masson et al. 2019).
    """

    RELATIVE_ERROR = 1 / 64
    _MANTISSA_BITS = 5
    _LOWEST_EXPONENT, _EXPONENTS = -20, 36
    N_BUCKETS = 1 + (_EXPONENTS << _MANTISSA_BITS)

    def __init__(self, n_units: int, counts: Int32[Tensor, "units buckets"] | None = None) -> None:
        if counts is None:
            counts = torch.zeros(n_units, self.N_BUCKETS, dtype=torch.int32)
        self.counts = counts
        self._first = torch.arange(n_units)[None] * self.N_BUCKETS

    def update(self, values: Float[Tensor, "pos units"]) -> None:
        """Count `values`; float32 bit patterns of positive numbers are in the numbers' order."""
        bits = values.float().contiguous().view(torch.int32)
        below = ((self._LOWEST_EXPONENT + 127) << self._MANTISSA_BITS) - 1
        buckets = (bits >> (23 - self._MANTISSA_BITS)).sub_(below).clamp_(0, self.N_BUCKETS - 1)
        flat = (buckets + self._first).view(-1)
        one = torch.ones(1, dtype=self.counts.dtype).expand(len(flat))
        self.counts.view(-1).scatter_add_(0, flat, one)

    def merge(self, other: Self) -> None:
        """Count what `other` has counted."""
        self.counts += other.counts

    def quantile(self, share: float) -> Float[ndarray, " units"]:
        """The value below or at which at least `share` of a unit's values lie."""
        counts = self.counts.numpy()
        bucket = np.empty(len(counts), np.int64)
        # In pieces: cumulative sums take twice the memory of the counts.
        for start in range(0, len(counts), 4096):
            cumulative = np.cumsum(counts[start : start + 4096], axis=1, dtype=np.int64)
            rank = np.ceil(share * cumulative[:, -1:] - 1e-9)
            bucket[start : start + 4096] = (cumulative >= rank).argmax(axis=1)
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


class Rows(NamedTuple):
    """Which of a batch's activations are tokens of which document."""

    documents: Int64[Tensor, " batch"]
    """Their numbers."""
    skip: int
    """Positions before each row's first token (the document start)."""
    lengths: Int64[Tensor, " batch"]
    """Tokens of each row, which begin at `skip`; what follows them is padding."""
    counted: Int64[Tensor, " sampled"]
    """The positions that the sketch counts, as indices into rows and positions flattened."""


class UnitSummaries:
    """Streaming statistics of many units over documents seen one after another.

    Merging the summaries of two shards gives, to the bit, those of one run over both. Everything
    is in `tensors`, by name; `part` gives the summaries of some of the units in the same memory.
    """

    def __init__(
        self,
        n_units: int,
        k: int = TOP_CONTEXTS,
        *,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        if tensors is None:
            tensors = {
                "n_positions": torch.zeros(1, dtype=torch.int64),
                "highest": torch.full((n_units,), -torch.inf),
                "lowest": torch.full((n_units,), torch.inf),
                "n_above_zero": torch.zeros(n_units, dtype=torch.int64),
                "counts": QuantileSketch(n_units).counts,
                "top_keys": torch.full((k, n_units), _EMPTY),
                "top_positions": torch.zeros(k, n_units, dtype=torch.int32),
            }
        self.n_units, self.tensors = n_units, dict(tensors)
        self.n_positions = tensors["n_positions"]
        self.highest, self.lowest = tensors["highest"], tensors["lowest"]
        self.n_above_zero = tensors["n_above_zero"]
        self.sketch = QuantileSketch(n_units, tensors["counts"])
        # Each of the best contexts as one number that sorts by activation, then by document.
        self._keys: Int64[Tensor, "k units"] = tensors["top_keys"]
        self._peaks: Int32[Tensor, "k units"] = tensors["top_positions"]
        self._bar = _bar(self._keys[-1])

    def part(self, start: int, n_units: int) -> Self:
        """The summaries of consecutive units; `n_positions` stays that of all."""
        units = slice(start, start + n_units)
        own = {
            name: tensor[units] if name == "counts" else tensor[..., units]
            for name, tensor in self.tensors.items()
        }
        own["n_positions"] = self.n_positions
        return type(self)(n_units, tensors=own)

    def of(self, units: Sequence[int]) -> Self:
        """A copy of the summaries of some units, in the order in which they are named."""
        chosen = torch.tensor(list(units), dtype=torch.int64)
        own = {
            name: tensor[chosen] if name == "counts" else tensor[..., chosen]
            for name, tensor in self.tensors.items()
            if name != "n_positions"
        }
        return type(self)(len(chosen), tensors=own | {"n_positions": self.n_positions.clone()})

    def update(self, document: int, activations: Float[ndarray, "pos units"]) -> None:
        """Take in one document; documents may come in any order, each once."""
        values = torch.from_numpy(np.ascontiguousarray(activations, dtype=np.float32))
        length = torch.tensor([len(values)])
        self.see(Rows(torch.tensor([document]), 0, length, torch.arange(len(values))), values[None])
        self.count_positions(len(values))

    def count_positions(self, n: int) -> None:
        """Say how many positions were seen; once for all parts."""
        self.n_positions += n

    def see(self, rows: Rows, activations: Float[Tensor, "batch pos units"]) -> None:
        """Take in a batch of documents, none of them seen before; positions are counted apart.

        `ToolError` for an activation that is no finite number.
        """
        shortest = rows.skip + int(rows.lengths.min())
        longest = rows.skip + int(rows.lengths.max())
        core = activations[:, rows.skip : shortest]
        peaks, lowest = core.amax(1), core.amin(1).amin(0)
        above = _above_zero(core)
        if longest > shortest:
            rim = activations[:, shortest:longest]
            real = torch.arange(shortest, longest)[None] < (rows.skip + rows.lengths)[:, None]
            peaks = torch.maximum(peaks, rim.masked_fill(~real[:, :, None], -torch.inf).amax(1))
            kept = rim[real]
            lowest = torch.minimum(lowest, kept.amin(0))
            above += _above_zero(kept[None])
        highest = peaks.amax(0)
        # What is no number stays none in every maximum.
        if not (highest.isfinite().all() and lowest.isfinite().all()):
            bad = ~activations.isfinite().flatten(1).all(1)
            raise ToolError(
                "the subject's activations are not finite in document "
                f"{int(rows.documents[bad.int().argmax()])}"
            )
        torch.maximum(self.highest, highest, out=self.highest)
        torch.minimum(self.lowest, lowest, out=self.lowest)
        self.n_above_zero += above
        self.sketch.update(activations.flatten(0, 1)[rows.counted])
        self._compare(rows, activations, peaks, highest)

    def _compare(
        self,
        rows: Rows,
        activations: Float[Tensor, "batch pos units"],
        peaks: Float[Tensor, "batch units"],
        highest: Float[Tensor, " units"],
    ) -> None:
        # In a long run most documents are among the best of hardly any unit.
        units = (highest >= self._bar).nonzero()[:, 0]
        if len(units) == 0:
            return
        k = len(self._keys)
        keys = _keys(peaks[:, units], rows.documents)
        best = torch.cat([self._keys[:, units], keys]).topk(k, dim=0)
        new = best.indices >= k
        if not new.any():  # Units that only equal their bar, such as silent ones.
            return
        positions = self._peaks[:, units].gather(0, best.indices.clamp(max=k - 1))
        positions[new] = _first_peaks(
            rows, activations, best.indices[new] - k, units.expand(k, -1)[new]
        )
        self._keys[:, units] = best.values
        self._peaks[:, units] = positions
        self._bar[units] = _bar(best.values[-1])

    def merge(self, other: Self, *, shift: int = 0) -> None:
        """Take in what another run saw, of the same units and other documents.

        `shift` is added to its documents' numbers.
        """
        self.sketch.merge(other.sketch)
        self.n_positions += other.n_positions
        self.n_above_zero += other.n_above_zero
        torch.maximum(self.highest, other.highest, out=self.highest)
        torch.minimum(self.lowest, other.lowest, out=self.lowest)
        theirs = torch.where(other._keys == _EMPTY, other._keys, other._keys - shift)
        best = torch.cat([self._keys, theirs]).topk(len(self._keys), dim=0)
        self._peaks.copy_(torch.cat([self._peaks, other._peaks]).gather(0, best.indices))
        self._keys.copy_(best.values)
        self._bar = _bar(self._keys[-1])

    def exemplars(self, unit: int) -> list[Exemplar]:
        """The unit's strongest contexts, one a document, strongest first."""
        keys, peaks = self._keys[:, unit], self._peaks[:, unit]
        full = keys != _EMPTY
        keys, peaks = keys[full], peaks[full]
        documents = _LAST_DOCUMENT - (keys & _LAST_DOCUMENT)
        values = _activations(keys)
        return [
            Exemplar(document, position, value)
            for document, position, value in zip(
                documents.tolist(), peaks.tolist(), values.tolist(), strict=True
            )
        ]

    def thresholds(self) -> Float[ndarray, " units"]:
        """The units' 0.99 quantiles over all counted positions, and never below zero."""
        return self.sketch.quantile(THRESHOLD_QUANTILE)

    def density(self) -> Float[ndarray, " units"]:
        """Share of positions with an activation above zero."""
        share: Float[ndarray, " units"] = self.n_above_zero.numpy() / max(int(self.n_positions), 1)
        return share

    def dead(self) -> npt.NDArray[np.bool_]:
        """Units that are never above zero, or always the same: nothing to describe."""
        return ((self.highest <= 0) | (self.highest == self.lowest)).numpy()


def _above_zero(activations: Float[Tensor, "batch pos units"]) -> Int64[Tensor, " units"]:
    # Bytes add up faster than wider numbers, and as few as these cannot overflow.
    total = torch.zeros(activations.shape[-1], dtype=torch.int64)
    for start in range(0, activations.shape[1], _COUNTED_AT_ONCE):
        above = activations[:, start : start + _COUNTED_AT_ONCE].numpy() > 0
        a_row = above.view(np.uint8).sum(axis=1, dtype=np.uint8)
        total += torch.from_numpy(a_row.sum(axis=0, dtype=np.int64))
    return total


def _reordered(bits: Int32[Tensor, "*any"]) -> Int32[Tensor, "*any"]:
    """Bit patterns of float32 to integers in the numbers' order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _keys(
    peaks: Float[Tensor, "batch units"], documents: Int64[Tensor, " batch"]
) -> Int64[Tensor, "batch units"]:
    # Adding zero makes one zero of both; equal activations are ordered by document.
    ordered = _reordered((peaks + 0.0).view(torch.int32)).long()
    return (ordered << 32) | (_LAST_DOCUMENT - documents)[:, None]


def _activations(keys: Int64[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return _reordered((keys >> 32).int()).view(torch.float32)


def _bar(last: Int64[Tensor, " units"]) -> Float[Tensor, " units"]:
    """What an activation must reach to be among the best."""
    return _activations(last).masked_fill(last == _EMPTY, -torch.inf)


def _first_peaks(
    rows: Rows,
    activations: Float[Tensor, "batch pos units"],
    which: Int64[Tensor, " found"],
    units: Int64[Tensor, " found"],
) -> Int32[Tensor, " found"]:
    """Where in document `which` of the batch unit `units` is highest, counted from its start."""
    longest = int(rows.lengths.max())
    steps = torch.arange(longest)
    step = max(1, _GATHERED_AT_ONCE // longest)
    found: list[Int[ndarray, " some"]] = []
    for start in range(0, len(which), step):
        row, unit = which[start : start + step], units[start : start + step]
        values = activations[row[:, None], rows.skip + steps, unit[:, None]]
        values.masked_fill_(steps >= rows.lengths[row][:, None], -torch.inf)
        # Of equal positions the first: numpy promises it.
        found.append(values.numpy().argmax(axis=1))
    return torch.from_numpy(np.concatenate(found)).int()
