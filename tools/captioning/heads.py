"""Attention heads as units: how much each writes into the residual stream, and in what direction.

At a token a head finds a vector z (its slice of the site `attn_z`) and writes zW, W being its rows
of attention's output projection (Elhage et al. 2021). Its activation is the L2 norm of zW, without
bias; its direction is zW divided by that, and another one at each token.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from dragoman.tools.subjects.language import LanguageSubject


class Heads(NamedTuple):
    """The heads of one layer."""

    weights: Float[Tensor, "heads d_head d_model"]
    """W of each head."""
    factors: Float[Tensor, "heads d_head d_head"]
    """Each maps z to a vector of the length of zW."""

    @property
    def d_head(self) -> int:
        """How many components of `attn_z` a head has."""
        return self.factors.shape[1]

    def norms(self, found: Float[Tensor, "*rows d_heads"]) -> Float[Tensor, "*rows heads"]:
        """L2 norm of what each head writes, given `attn_z`."""
        each = found.reshape(*found.shape[:-1], *self.factors.shape[:2])
        norms: Tensor = torch.einsum("...hd,hde->...he", each, self.factors).norm(dim=-1)
        return norms

    def slice_of(self, head: int) -> slice:
        """The components of `attn_z` that are `head`'s."""
        return slice(head * self.d_head, (head + 1) * self.d_head)

    def directions(
        self, found: Float[Tensor, "*rows d_heads"], head: int
    ) -> Float[Tensor, "*rows d_model"]:
        """What `head` writes, divided by its norm, given `attn_z`; zero where it writes nothing."""
        return normalize(found[..., self.slice_of(head)] @ self.weights[head], dim=-1)


def n_heads(subject: LanguageSubject) -> int:
    """How many heads each layer has."""
    return int(subject.model.config.num_attention_heads)


def heads_of(subject: LanguageSubject, layer: int) -> Heads:
    """The heads of a layer; `ToolError` where they cannot be told apart."""
    projection = subject.attention_projection(layer)
    weight = projection.get_parameter("weight").detach()
    # GPT-2's projections hold their weight as [d_heads d_model], all others the other way round.
    inward = weight.T if isinstance(projection, nn.Linear) else weight
    written = inward.reshape(n_heads(subject), -1, inward.shape[1])
    # With W' = QR, |zW| = |zR'|: the same norm from a vector as wide as a head, not as the stream.
    upper = torch.linalg.qr(written.transpose(1, 2), mode="r").R
    return Heads(written, upper.transpose(1, 2).contiguous())
