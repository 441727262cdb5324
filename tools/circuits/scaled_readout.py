"""Reading beta W h + b for many betas from two products with the unembedding instead of one each.

The final norm divides by a length and is linear otherwise (RMSNorm as LayerNorm), so the norm of
beta W h + b lies in the plane of the norms of W h and of b. Their logits, mixed as that plane says,
are the logits of every beta, where decoding each would take a product with the whole unembedding.
The mix is got by least squares and checked; a subject whose norm is of another kind is decoded beta
by beta. Exact up to float32 rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.circuits.faithfulness import Decoded, decode, decode_logits
from dragoman.tools.subjects.language import LanguageSubject

_ROWS = 64
"""Facts decoded at once: bounds the memory of their logits."""
_NEAR = 1e-4
"""Relative to the norm's output: how far off the plane it may lie for rounding alone."""


@torch.no_grad()
def decode_scaled(
    subject: LanguageSubject,
    linear: Float[Tensor, "fact d_model"],
    bias: Float[Tensor, " d_model"],
    betas: Sequence[float],
    wanted: Int[Tensor, " fact"],
) -> list[Decoded]:
    """For each beta what beta * `linear` + `bias` says, and how probable it makes `wanted`."""
    norm: Any = subject.anatomy.final_norm
    if norm is None or subject.anatomy.project_out is not None or subject.is_narrow:
        return [decode(subject, beta * linear + bias, wanted) for beta in betas]
    parts = [
        _mixed(subject, norm, rows, bias, betas, some)
        for rows, some in zip(torch.split(linear, _ROWS), torch.split(wanted, _ROWS), strict=True)
    ]
    return [
        Decoded(
            torch.cat([each.tokens for each in of_beta]),
            [text for each in of_beta for text in each.texts],
            torch.cat([each.log_probs for each in of_beta]),
        )
        for of_beta in zip(*parts, strict=True)
    ]


def _mixed(
    subject: LanguageSubject,
    norm: Callable[[Tensor], Tensor],
    linear: Float[Tensor, "fact d_model"],
    bias: Float[Tensor, " d_model"],
    betas: Sequence[float],
    wanted: Int[Tensor, " fact"],
) -> list[Decoded]:
    nothing = norm(torch.zeros_like(bias))  # a LayerNorm's own bias
    along, offset = norm(linear) - nothing, norm(bias) - nothing
    plane = torch.stack([along, offset.expand_as(along)], dim=-1)  # fact d_model 2
    finals = [beta * linear + bias for beta in betas]
    normed = torch.stack([norm(each) - nothing for each in finals], dim=-1)  # fact d_model beta
    mix = torch.linalg.lstsq(plane.double(), normed.double()).solution  # fact 2 beta
    missed = (plane.double() @ mix - normed).abs().max()
    if not missed <= _NEAR * normed.abs().max():
        return [decode(subject, each, wanted) for each in finals]
    unembed, cap = subject.anatomy.unembedding, subject.anatomy.logit_softcap
    constant = unembed(nothing)
    by_linear, by_bias = unembed(along + nothing) - constant, unembed(offset + nothing) - constant
    decoded = []
    for share, rest in mix.float().permute(2, 1, 0):
        logits = constant + rest[:, None] * by_bias + share[:, None] * by_linear
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        decoded.append(decode_logits(subject, logits, wanted))
    return decoded
