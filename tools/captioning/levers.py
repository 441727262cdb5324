"""How units of a language subject are moved: what each adds, where, and how strongly it writes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.heads import Heads, heads_of
from dragoman.tools.captioning.neighbours import LayerScan
from dragoman.tools.captioning.rows import unit_name
from dragoman.tools.captioning.units import SITES, UnitLayer, dictionary_of
from dragoman.tools.subjects.language import LanguageSubject


class Levers(Protocol):
    """The units of one layer, each as something that can be raised, lowered or held."""

    @property
    def where(self) -> UnitLayer:
        """Which units these are."""

    @property
    def site(self) -> Site:
        """Where they are read and held."""

    @property
    def pushed_at(self) -> Site:
        """Where they are raised and lowered."""

    @property
    def norms(self) -> Float[ndarray, " units"]:
        """L2 norm of what each unit writes: at activation 1, or of heads, on average."""

    def read(self, activations: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows units"]:
        """How active the units are, given the activations at `site`."""

    def push(
        self,
        activations: Float[Tensor, "*rows width"],
        unit: int,
        change: Float[Tensor, "*rows"],
        read: Float[Tensor, "*rows read_width"],
    ) -> None:
        """Raise `unit` by `change`, in place; `read` is what stood at `site` before.

        `activations` are of `pushed_at`, here or in another layer: a unit's direction can be tried
        where another unit writes.
        """

    def hold(
        self,
        activations: Float[Tensor, "*rows width"],
        units: Sequence[int],
        levels: Float[Tensor, " levels"],
        at: Bool[Tensor, "*rows"],
    ) -> None:
        """Set `units` to their levels in the rows `at`, in place.

        Levels are those of the site's components, of latents their own; all zero switches off.
        """


class Lever(NamedTuple):
    """One unit to be moved."""

    levers: Levers
    unit: int

    @property
    def name(self) -> str:
        """As in rows: `12.77`, `head.12.3`."""
        where = self.levers.where
        return unit_name(where.kind, where.layer, self.unit)


class Components(NamedTuple):
    """Units that are components of what stands at the site: MLP neurons, and of the stream."""

    where: UnitLayer
    norms: Float[ndarray, " units"]

    @property
    def site(self) -> Site:
        return Site(layer=self.where.layer, kind=SITES[self.where.kind])

    def read(self, activations: Tensor) -> Tensor:
        return activations

    @property
    def pushed_at(self) -> Site:
        return self.site

    def push(self, activations: Tensor, unit: int, change: Tensor, read: Tensor) -> None:
        activations[..., unit] += change

    def hold(self, activations: Tensor, units: Sequence[int], levels: Tensor, at: Tensor) -> None:
        _set(activations, units, levels, at)


class HeadOutputs(NamedTuple):
    """Attention heads: each is moved along what it writes at the token.

    It is moved in what attention adds to the stream, since there any head's direction can be added.
    """

    where: UnitLayer
    heads: Heads
    norms: Float[ndarray, " units"]

    @property
    def site(self) -> Site:
        return Site(layer=self.where.layer, kind=SITES[self.where.kind])

    def read(self, activations: Tensor) -> Tensor:
        return self.heads.norms(activations)

    @property
    def pushed_at(self) -> Site:
        return Site(layer=self.where.layer, kind="attn_out")

    def push(self, activations: Tensor, unit: int, change: Tensor, read: Tensor) -> None:
        activations += change[..., None] * self.heads.directions(read, unit)

    def hold(self, activations: Tensor, units: Sequence[int], levels: Tensor, at: Tensor) -> None:
        every = range(activations.shape[-1])
        columns = [column for head in units for column in every[self.heads.slice_of(head)]]
        _set(activations, columns, levels, at)


class Latents(NamedTuple):
    """Latents of a sparse dictionary: each adds its decoder vector."""

    where: UnitLayer
    dictionary: SparseDictionary

    @property
    def site(self) -> Site:
        return self.dictionary.site

    @property
    def norms(self) -> Float[ndarray, " units"]:
        norms: ndarray = self.dictionary.decoder.norm(dim=1).cpu().numpy()
        return norms

    def read(self, activations: Tensor) -> Tensor:
        return self.dictionary.encode(activations)

    @property
    def pushed_at(self) -> Site:
        return self.dictionary.site

    def push(self, activations: Tensor, unit: int, change: Tensor, read: Tensor) -> None:
        activations += change[..., None] * self.dictionary.decoder[unit].to(activations)

    def hold(self, activations: Tensor, units: Sequence[int], levels: Tensor, at: Tensor) -> None:
        chosen = torch.tensor(list(units), device=activations.device)
        change = levels[chosen] - self.read(activations)[..., chosen]
        written = self.dictionary.decoder[chosen].to(activations)
        activations += torch.where(at[..., None], change, 0.0) @ written


def levers_of(
    subject: LanguageSubject,
    where: UnitLayer,
    scan: LayerScan,
    dictionary: SparseDictionary | None = None,
) -> Levers:
    """The levers of a layer's units; `scan` tells how much heads write on average.

    `ToolError` for latents without a dictionary that fits, and heads that cannot be told apart.
    """
    match where.kind:
        case "mlp":
            return Components(where, output_norms(subject, where.layer))
        case "resid":
            # Components of the stream: each is its own direction, of length one.
            return Components(where, np.ones(subject.d_model))
        case "head":
            return HeadOutputs(where, heads_of(subject, where.layer), scan.mean)
        case "latent":
            return Latents(where, dictionary_of(subject, where, dictionary))


def output_norms(subject: LanguageSubject, layer: int) -> Float[ndarray, " neurons"]:
    """L2 norm of the vector that each MLP neuron of the layer writes at activation 1."""
    weight: Any = subject.anatomy.blocks[layer].down_projection.weight
    # GPT-2's layers hold their weights the other way round.
    neurons_last = weight.shape[1] == subject.d_mlp
    norms: ndarray = weight.detach().float().norm(dim=0 if neurons_last else 1).cpu().numpy()
    return norms


def _set(
    activations: Float[Tensor, "*rows width"],
    columns: Sequence[int],
    levels: Float[Tensor, " width"],
    at: Bool[Tensor, "*rows"],
) -> None:
    chosen = torch.tensor(list(columns), device=activations.device)
    activations[..., chosen] = torch.where(at[..., None], levels[chosen], activations[..., chosen])
