"""Jacobians of the last block's output by the entity's representation, for all layers at once.

The map that Hernandez et al. 2024 (arXiv:2308.09124) expand is z = F(h): h is `resid_post` of a
layer at the entity's last token, z the output of the last block (before the final norm) at the
prompt's last token. One reverse pass that carries a row of the identity from z downwards meets the
entity's last token at every layer, and what it holds there *is* that row of every layer's
Jacobian. So d_model reverse passes, run as a batch, give all layers, where a Jacobian for each
layer would take d_model passes a layer. Exact up to float32 rounding: nothing is approximated.

Only tokens from the entity's last one onwards can carry a gradient; what stands before them is
read from a cache of keys and values. The batch is made of copies of that one short suffix: an
ordinary reverse pass through them is faster than a vectorised one through a single copy, and they
are run forward once, however many rows follow.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dragoman.core.records import Site
from dragoman.tools.circuits.copied_attention import copied_attention
from dragoman.tools.circuits.copied_mlp import copied_mlps
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import LanguageSubject

COPIES = 48
"""Rows of the identity carried at once, at most: more are not faster."""
GRAPH_BYTES = 2**30
"""What the activations of all copies may take; a longer suffix or a larger subject has fewer."""
ROOM_BYTES = 2**30
"""Jacobians of all layers larger than this are summed in a mapped file instead of in memory."""


class Expansion(NamedTuple):
    """z around one prompt, to first order, at each of some layers."""

    jacobian: Float[Tensor, "layer d_model d_model"]
    """`jacobian[l, i, j]` is the derivative of z[i] by h[l, j]."""
    entity: Float[Tensor, "layer d_model"]
    """h."""
    final: Float[Tensor, " d_model"]
    """z."""


def _unwatched(row: int) -> None:
    """For callers that show no progress."""


def expand(
    subject: LanguageSubject,
    prompt: RelationPrompt,
    *,
    first_layer: int = 0,
    last_layer: int | None = None,
    chunk: int | None = None,
    on_row: Callable[[int], None] = _unwatched,
) -> Expansion:
    """First-order expansions of z at layers `first_layer` to `last_layer` (default: the last).

    The cost is d_model reverse passes over the blocks above `first_layer` and the tokens from the
    entity's last one onwards. `on_row` hears from which row on the next chunk is computed, and
    may raise to stop.
    """
    last_layer = subject.n_layers - 1 if last_layer is None else last_layer
    sites = [Site(layer=layer) for layer in range(first_layer, last_layer + 1)]
    into = torch.zeros(len(sites), subject.d_model, subject.d_model, device=subject.device)
    entity, final, _ = add_expansion(subject, prompt, sites, into, chunk=chunk, on_row=on_row)
    return Expansion(into, entity, final)


class Added(NamedTuple):
    """What `add_expansion` found besides the Jacobian."""

    entity: Float[Tensor, "site d_model"]
    final: Float[Tensor, " d_model"]
    linear: Float[Tensor, "site d_model"]
    """J h, so that a bias z - J h needs no Jacobian of its own."""


def add_expansion(
    subject: LanguageSubject,
    prompt: RelationPrompt,
    sites: Sequence[Site],
    into: Float[Tensor, "site d_model d_model"],
    *,
    chunk: int | None = None,
    on_row: Callable[[int], None] = _unwatched,
) -> Added:
    """Add the Jacobians at `sites` (ascending) to `into`, a chunk of rows at a time."""
    shared = SharedPrompts(subject, [prompt])
    d_model = subject.d_model
    copies = min(d_model, chunk or _copies(subject, shared))
    top = Site(layer=subject.n_layers - 1)
    # Gradients start at the lowest site: nothing below it takes part.
    start = Edit(sites[0], lambda resid: resid.detach().requires_grad_())
    with torch.enable_grad():
        with (
            subject.editing([start]),
            subject.capture([*sites, top]) as taken,
            copied_attention(subject),
            copied_mlps(subject),
        ):
            shared.run([0] * copies)
        final = taken[top][:, -1]
        places = [taken[site] for site in sites]
        entity = torch.stack([place[0, 0].detach().float() for place in places])
        linear = torch.zeros(len(sites), d_model, device=entity.device)
        identity = torch.eye(d_model, dtype=final.dtype, device=final.device)
        for row in range(0, d_model, copies):
            on_row(row)
            wanted = identity[row : row + copies]
            rows = slice(row, row + wanted.shape[0])
            gradients = torch.autograd.grad(
                final,
                places,
                torch.nn.functional.pad(wanted, (0, 0, 0, copies - wanted.shape[0])),
                retain_graph=row + copies < d_model,
                # Above the last block nothing moves from token to token: its Jacobian is zero
                # there, unless the entity's last token is the prompt's last token.
                allow_unused=True,
            )
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    found = gradient[: wanted.shape[0], 0].float()
                    into[place, rows] += found.to(into.device)
                    linear[place, rows] = found @ entity[place]
    return Added(entity, final[0].detach().float(), linear)


def _copies(subject: LanguageSubject, shared: SharedPrompts) -> int:
    """How many copies of the suffix fit into `GRAPH_BYTES` with all that autograd keeps."""
    n_rest = len(shared.rests[0])
    # Counted on Llama blocks: norms, projections and the gated MLP; keys and values, repeated.
    of_tokens = n_rest * (12 * subject.d_model + 4 * subject.d_mlp)
    of_attention = 3 * (shared.n_shared + n_rest) * subject.d_model
    each = 4 * subject.n_layers * (of_tokens + of_attention)
    return max(4, min(COPIES, GRAPH_BYTES // each))


def make_room(n_sites: int, d_model: int, device: torch.device) -> Tensor:
    """Zeros for the Jacobians of `n_sites`, in memory or, above `ROOM_BYTES`, in a mapped file."""
    size = 4 * n_sites * d_model * d_model
    if size <= ROOM_BYTES or device.type != "cpu":
        return torch.zeros(n_sites, d_model, d_model, device=device)
    # Unnamed, and gone with the last tensor that looks into it.
    with tempfile.TemporaryFile(prefix="dragoman-maps-") as file:
        mapped = np.memmap(file, np.float32, "w+", shape=(n_sites, d_model, d_model))
    return torch.from_numpy(mapped)


class Products(NamedTuple):
    """W h of some vectors, and b, without W."""

    linear: Float[Tensor, "batch d_model"]
    bias: Float[Tensor, " d_model"]


def jacobian_products(
    subject: LanguageSubject,
    prompts: Sequence[RelationPrompt],
    site: Site,
    vectors: Float[Tensor, "batch d_model"],
) -> Products:
    """W h for each row h, with W the mean Jacobian of `prompts` at `site`, and the mean bias.

    Forward-mode derivatives: one pass for each prompt and vector, where W itself takes d_model
    passes for each prompt. Cheaper wherever one layer and fewer than d_model vectors are asked for.
    """
    linear = torch.zeros(vectors.shape, device=vectors.device)
    bias = torch.zeros(vectors.shape[1], device=vectors.device)
    top = Site(layer=subject.n_layers - 1)
    for prompt in prompts:
        shared = SharedPrompts(subject, [prompt])
        copies = _copies(subject, shared)
        with torch.no_grad(), subject.capture([site, top]) as taken:
            shared.run([0])
        entity, final = taken[site][0, 0].float(), taken[top][0, -1].float()
        pushed = torch.cat(
            [
                _pushed(subject, shared, site, top, part)
                for part in torch.split(torch.cat([entity[None], vectors]), copies)
            ]
        )
        bias += final - pushed[0]
        linear += pushed[1:]
    return Products(linear / len(prompts), bias / len(prompts))


@torch.no_grad()
def _pushed(
    subject: LanguageSubject,
    shared: SharedPrompts,
    site: Site,
    top: Site,
    vectors: Float[Tensor, "batch d_model"],
) -> Float[Tensor, "batch d_model"]:
    forward_ad: Any = torch.autograd.forward_ad  # untyped in torch

    def attach(resid: Tensor) -> Tensor:
        tangent = torch.zeros_like(resid)
        tangent[:, 0] = vectors.to(resid.dtype)
        dual: Tensor = forward_ad.make_dual(resid, tangent)
        return dual

    # The fused attention kernels know no forward-mode derivatives; the plain one does.
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        # The first derivative of this kind loads a part of torch that still uses torch.jit.
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            with (
                subject.editing([Edit(site, attach)]),
                subject.capture([top]) as taken,
                copied_attention(subject),
            ):
                shared.run([0] * len(vectors))
            tangent: Tensor | None = forward_ad.unpack_dual(taken[top][:, -1]).tangent
    if tangent is None:  # nothing of the entity reaches the last token
        return torch.zeros_like(vectors)
    return tangent.float()
