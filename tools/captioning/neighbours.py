"""Neighbouring units: those that are active where a unit is active, or are described like it.

A caption that tells its unit from random others may still fit the unit next door as well: most of
the captions of a whole network are shared by several units. Contexts in which neighbours are active
and the unit is not are what such a caption stumbles over.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.units import UnitLayer, UnitReader
from dragoman.tools.context import ToolContext

N_NEIGHBOURS = 3
_SCANNED_DOCUMENTS = 100
_BATCH_DOCUMENTS = 32


class Neighbours(NamedTuple):
    """Units close to those that are captioned, read on the same tokens."""

    activations: Float[ndarray, "tokens units"]
    of: tuple[tuple[int, ...], ...]
    """For each captioned unit the columns of its neighbours."""


def correlated(
    activations: Float[ndarray, "tokens units"], column: int, k: int = N_NEIGHBOURS
) -> tuple[int, ...]:
    """The `k` other columns with the highest Pearson correlation, highest first; above 0 only."""
    centred = activations - activations.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    products = centred.T @ centred[:, column]
    correlations = products / np.maximum(norms * norms[column], 1e-12)
    correlations[column] = -1.0
    order = np.argsort(-correlations, kind="stable")[:k]
    return tuple(int(row) for row in order if correlations[row] > 0)


class LayerScan(NamedTuple):
    """What all units of a layer do on a sample of texts."""

    correlation: Float[ndarray, "asked units"]
    """Pearson's r of the units that were asked about with all of the layer; -1 with itself."""
    density: Float[ndarray, " units"]
    """Share of tokens at which a unit is above zero."""
    mean: Float[ndarray, " units"]
    """Of a unit's activations."""

    def nearest(self, k: int = N_NEIGHBOURS) -> tuple[tuple[int, ...], ...]:
        """For each unit asked about the `k` that correlate most with it; above 0 only."""
        order = np.argsort(-self.correlation, axis=1, kind="stable")[:, :k]
        return tuple(
            tuple(int(unit) for unit in row if correlation[unit] > 0)
            for row, correlation in zip(order, self.correlation, strict=True)
        )


def scan_layer(
    context: ToolContext,
    documents: Sequence[str],
    where: UnitLayer,
    units: Sequence[int],
    *,
    dictionary: SparseDictionary | None = None,
) -> LayerScan:
    """`scan_layers` of one layer."""
    return scan_layers(context, documents, {where: units}, dictionary=dictionary)[where]


def scan_layers(
    context: ToolContext,
    documents: Sequence[str],
    units: Mapping[UnitLayer, Sequence[int]],
    *,
    dictionary: SparseDictionary | None = None,
) -> dict[UnitLayer, LayerScan]:
    """Read the first hundred of `documents`, which should be some that captions are found on.

    One pass serves all layers. Sums over all units of a layer are kept, no activations.
    """
    reader = UnitReader(context.subject, list(units), dictionary)
    read = list(documents[:_SCANNED_DOCUMENTS])
    sums = {
        where: _Sums(reader.sizes[where], torch.tensor(list(asked), dtype=torch.long))
        for where, asked in units.items()
    }
    for start in range(0, len(read), _BATCH_DOCUMENTS):
        context.step(start, len(read), f"looking over {', '.join(map(str, units))}")
        batch = context.subject.batch(read[start : start + _BATCH_DOCUMENTS])
        # The document start is a sink with activations of its own kind.
        real = (batch.mask == 1) & (batch.positions > 0)
        reader.observe(batch, partial(_add, sums, real))
    return {where: each.scan() for where, each in sums.items()}


def _add(
    sums: Mapping[UnitLayer, "_Sums"],
    real: Tensor,
    where: UnitLayer,
    activations: Float[Tensor, "batch pos units"],
) -> None:
    sums[where].add(real, activations)


class _Sums:
    def __init__(self, n_units: int, chosen: Int[Tensor, " asked"]) -> None:
        self._chosen = chosen
        self._count = 0
        self._total, self._squares, self._above = torch.zeros(3, n_units, dtype=torch.float64)
        self._products = torch.zeros(len(chosen), n_units, dtype=torch.float64)

    def add(self, real: Tensor, activations: Float[Tensor, "batch pos units"]) -> None:
        values = activations[real].double().cpu()
        self._count += len(values)
        self._total += values.sum(0)
        self._squares += (values**2).sum(0)
        self._above += (values > 0).sum(0)
        self._products += values[:, self._chosen].T @ values

    def scan(self) -> LayerScan:
        count = max(self._count, 1)
        mean = self._total / count
        spread = (self._squares / count - mean**2).clamp(min=0).sqrt()
        covariance = self._products / count - mean[self._chosen][:, None] * mean
        correlation = covariance / (spread[self._chosen][:, None] * spread).clamp(min=1e-12)
        correlation[torch.arange(len(self._chosen)), self._chosen] = -1.0
        return LayerScan(correlation.numpy(), (self._above / count).numpy(), mean.numpy())
