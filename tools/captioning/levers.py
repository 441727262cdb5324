"""How units of a language subject are moved: what each adds, where, and how strongly it writes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.units import UnitLayer, as_it_is, dictionary_of
from dragoman.tools.subjects.language import LanguageSubject


class Levers(NamedTuple):
    """The units of one layer, each as something that can be raised or lowered."""

    where: UnitLayer
    site: Site
    read: Callable[[Float[Tensor, "*rows width"]], Float[Tensor, "*rows units"]]
    """How active the units are, given the activations at `site`."""
    norms: Float[ndarray, " units"]
    """L2 norm of the vector that each unit writes at activation 1."""
    vectors: Float[Tensor, "units width"] | None = None
    """What each unit adds at `site`; None: unit number i is component i of what stands there."""

    def push(
        self,
        activations: Float[Tensor, "rows pos width"],
        unit: int,
        change: Float[Tensor, "rows pos"],
    ) -> None:
        """Raise `unit` by `change`, in place."""
        if self.vectors is None:
            activations[..., unit] += change
        else:
            activations += change[..., None] * self.vectors[unit].to(activations)

    def matched(self, unit: int, density: Float[ndarray, " units"]) -> list[int]:
        """The other units, nearest in density and in norm of what they write first."""
        features = np.stack([density, np.log(np.maximum(self.norms, 1e-12))])
        spread = np.maximum(features.std(axis=1, keepdims=True), 1e-12)
        distance = (((features - features[:, [unit]]) / spread) ** 2).sum(axis=0)
        return [int(row) for row in np.argsort(distance, kind="stable") if row != unit]


def levers_of(
    subject: LanguageSubject, where: UnitLayer, dictionary: SparseDictionary | None = None
) -> Levers | None:
    """The levers of a layer's units; None for attention heads.

    A head is a vector, not a scale to be moved along, and a layer has too few of them for one in
    twenty to mean anything.
    """
    match where.kind:
        case "mlp":
            return mlp_levers(subject, where.layer)
        case "resid":
            # Components of the stream: each is its own direction, of length one.
            return Levers(where, Site(layer=where.layer), as_it_is, np.ones(subject.d_model))
        case "latent":
            latents = dictionary_of(subject, where, dictionary)
            norms: ndarray = latents.decoder.norm(dim=1).cpu().numpy()
            return Levers(where, latents.site, latents.encode, norms, latents.decoder)
        case "head":
            return None


def mlp_levers(subject: LanguageSubject, layer: int) -> Levers:
    """The levers of a layer's MLP neurons."""
    site = Site(layer=layer, kind="mlp_act")
    return Levers(UnitLayer(layer=layer), site, as_it_is, output_norms(subject, layer))


def output_norms(subject: LanguageSubject, layer: int) -> Float[ndarray, " neurons"]:
    """L2 norm of the vector that each MLP neuron of the layer writes at activation 1."""
    weight: Any = subject.anatomy.blocks[layer].down_projection.weight
    # GPT-2's layers hold their weights the other way round.
    neurons_last = weight.shape[1] == subject.d_mlp
    norms: ndarray = weight.detach().float().norm(dim=0 if neurons_last else 1).cpu().numpy()
    return norms
