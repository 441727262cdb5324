"""Jacobians of the last block's output by the entity's representation, for all layers at once.

The map that Hernandez et al. 2024 (arXiv:2308.09124) expand is z = F(h): h is `resid_post` of a
layer at the entity's last token, z the output of the last block (before the final norm) at the
prompt's last token. One reverse pass that carries a row of the identity from z downwards meets the
entity's last token at every layer, and what it holds there *is* that row of every layer's
Jacobian. So d_model reverse passes, run as a batch, give all layers, where a Jacobian for each
layer would take d_model passes a layer. Exact up to float32 rounding: nothing is approximated.

Only tokens from the entity's last one onwards can carry a gradient; what stands before them is
read from a cache of keys and values.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dragoman.core.records import Site
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import LanguageSubject

CHUNK = 96
"""Rows of the identity carried at once: bounds memory, and its working set suits CPU caches."""


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
    chunk: int = CHUNK,
    on_row: Callable[[int], None] = _unwatched,
) -> Expansion:
    """First-order expansions of z at layers `first_layer` to `last_layer` (default: the last).

    The cost is d_model reverse passes over the blocks above `first_layer` and the tokens from the
    entity's last one onwards. `on_row` hears from which row on the next chunk is computed, and
    may raise to stop.
    """
    last_layer = subject.n_layers - 1 if last_layer is None else last_layer
    shared = SharedPrompts(subject, [prompt])
    entities: dict[int, Tensor] = {}

    def cut_out(layer: int) -> Edit:
        # The entity's token becomes a tensor of its own, so that gradients are taken at it alone.
        def apply(resid: Tensor) -> Tensor:
            here = resid[:, :1]
            here = here.detach().requires_grad_() if layer == first_layer else here.clone()
            entities[layer] = here
            return torch.cat([here, resid[:, 1:]], dim=1)

        return Edit(Site(layer=layer), apply)

    edits = [cut_out(layer) for layer in range(first_layer, last_layer + 1)]
    top = Site(layer=subject.n_layers - 1)
    # The fused attention kernels have no batched reverse pass; the plain one does, and is exact.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with subject.editing(edits), subject.capture([top]) as taken:
            shared.run([0])
        final = taken[top][0, -1]
        jacobian = _rows(final, [entities[edit.site.layer] for edit in edits], chunk, on_row)
    entity = torch.stack([entities[edit.site.layer][0, 0].detach() for edit in edits])
    return Expansion(jacobian, entity.float(), final.detach().float())


def _rows(
    final: Float[Tensor, " d_model"],
    entities: list[Tensor],
    chunk: int,
    on_row: Callable[[int], None],
) -> Float[Tensor, "layer d_model d_model"]:
    d_model = final.shape[0]
    jacobian = torch.zeros(len(entities), d_model, d_model, device=final.device)
    identity = torch.eye(d_model, dtype=final.dtype, device=final.device)
    for start in range(0, d_model, chunk):
        on_row(start)
        gradients = torch.autograd.grad(
            final,
            entities,
            identity[start : start + chunk],
            is_grads_batched=True,
            retain_graph=start + chunk < d_model,
            # Above the last block nothing moves from token to token: its Jacobian is zero there,
            # unless the entity's last token is the prompt's last token.
            allow_unused=True,
        )
        for layer, gradient in enumerate(gradients):
            if gradient is not None:
                jacobian[layer, start : start + chunk] = gradient.reshape(-1, d_model)
    return jacobian
