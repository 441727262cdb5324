"""Neighbouring units: those that are active where a unit is active, or are described like it.

A caption that tells its unit from random others may still fit the unit next door as well: most of
the captions of a whole network are shared by several units. Contexts in which neighbours are active
and the unit is not are what such a caption stumbles over.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from dragoman.core.records import Site
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
    """What all MLP neurons of a layer do on a sample of texts."""

    correlation: Float[ndarray, "asked neurons"]
    """Pearson's r of the neurons that were asked about with all of the layer."""
    density: Float[ndarray, " neurons"]
    """Share of tokens at which a neuron is above zero."""

    def nearest(self, k: int = N_NEIGHBOURS) -> tuple[tuple[int, ...], ...]:
        """For each neuron asked about the `k` that correlate most with it; above 0 only."""
        order = np.argsort(-self.correlation, axis=1, kind="stable")[:, :k]
        return tuple(
            tuple(int(neuron) for neuron in row if correlation[neuron] > 0)
            for row, correlation in zip(order, self.correlation, strict=True)
        )


@torch.no_grad()
def scan_layer(
    context: ToolContext, documents: Sequence[str], layer: int, neurons: Sequence[int]
) -> LayerScan:
    """Read the first hundred of `documents`, which should be some that captions are found on.

    Sums over all neurons of the layer are kept, no activations.
    """
    subject, site = context.subject, Site(layer=layer, kind="mlp_act")
    read = list(documents[:_SCANNED_DOCUMENTS])
    chosen = torch.tensor(list(neurons))
    zero = torch.zeros(subject.d_mlp, dtype=torch.float64)
    count, totals, squares, above = 0, zero, zero, zero
    products = torch.zeros(len(neurons), subject.d_mlp, dtype=torch.float64)
    for start in range(0, len(read), _BATCH_DOCUMENTS):
        context.step(start, len(read), f"looking over layer {layer}")
        batch = subject.batch(read[start : start + _BATCH_DOCUMENTS])
        taken = subject.activations(batch, [site])[site]
        # The document start is a sink with activations of its own kind.
        values = taken[(batch.mask == 1) & (batch.positions > 0)].double().cpu()
        count += len(values)
        totals = totals + values.sum(0)
        squares = squares + (values**2).sum(0)
        above = above + (values > 0).sum(0)
        products = products + values[:, chosen].T @ values
    mean = totals / count
    spread = (squares / count - mean**2).clamp(min=0).sqrt()
    covariance = products / count - mean[chosen][:, None] * mean
    correlation = covariance / (spread[chosen][:, None] * spread).clamp(min=1e-12)
    correlation[torch.arange(len(neurons)), chosen] = -1.0
    return LayerScan(correlation.numpy(), (above / count).numpy())
