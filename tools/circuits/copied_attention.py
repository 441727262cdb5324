"""Attention of many copies of one suffix, whose reverse pass does not touch the prefix.

A sweep over the rows of a Jacobian runs copies of the same tokens, so queries, keys and values are
the same in each of them and the reverse pass through attention is one linear map for all. At query
t of a head, with weights p_t, output o_t = sum_j p_tj v_j and scores scale * q_t k_j:

    dq_t = scale * do_t (sum_j p_tj (v_j - o_t) k_j^T)
    dk_j = scale * sum_t p_tj (do_t (v_j - o_t)) q_t
    dv_j = sum_t p_tj do_t

The sum in the first line is a small matrix, got once; the other two are needed for the suffix
alone, since what stands in the cache is constant. The usual kernel computes them for every copy and
every token of the prefix, which is most of what a sweep takes. Exact up to float32 rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dragoman.tools.subjects.language import LanguageSubject

_NAME = "dragoman_copied"
_REPLACED = "sdpa"


@contextmanager
def copied_attention(subject: LanguageSubject) -> Iterator[None]:
    """Inside, every pass must be over copies of one row; gradients then cost much less.

    Nothing changes for a subject whose attention is not the standard one of its library.
    """
    config = subject.model.config
    if config._attn_implementation != _REPLACED:
        yield
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = _REPLACED


_KNOWN = frozenset({"position_ids", "use_cache", "output_attentions", "sliding_window"})
"""Further arguments that a block may hand over and that change nothing: masks say it all."""


def _attend(
    module: nn.Module,
    query: Float[Tensor, "copy head query d_head"],
    key: Float[Tensor, "copy kv_head pos d_head"],
    value: Float[Tensor, "copy kv_head pos d_value"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    causal = getattr(module, "is_causal", True)
    strange = any(found is not None for name, found in further.items() if name not in _KNOWN)
    if strange or dropout or not causal or not _is_differentiated(query):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **further
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    added = _added(attention_mask, query.shape[2], key.shape[2], query)
    function: Any = _CopiedAttention  # untyped in torch
    return function.apply(query, key, value, added, scale), None


def _is_differentiated(query: Tensor) -> bool:
    """In reverse or in forward mode: what stands below the lowest site is in neither."""
    forward_ad: Any = torch.autograd.forward_ad  # untyped in torch
    return query.requires_grad or forward_ad.unpack_dual(query).tangent is not None


def _added(
    mask: Tensor | None, n_queries: int, n_keys: int, like: Tensor
) -> Float[Tensor, "head query pos"]:
    """What is added to the scores of one copy."""
    if mask is not None and mask.dtype != torch.bool:
        return mask[0, :, :, :n_keys]
    allowed: Bool[Tensor, "head query pos"]
    if mask is None:
        allowed = torch.ones(1, n_queries, n_keys, dtype=torch.bool, device=like.device)
        allowed = allowed.tril(n_keys - n_queries)
    else:
        allowed = mask[0, :, :, :n_keys]
    nothing = torch.zeros((), dtype=like.dtype, device=like.device)
    return torch.where(allowed, nothing, -torch.inf)


class _CopiedAttention(torch.autograd.Function):
    """Attention of the first copy for all of them. Only the last keys carry a gradient."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor, scale: float
    ) -> Float[Tensor, "copy query head d_value"]:
        n_copies, n_heads, n_queries, _ = query.shape
        group = n_heads // key.shape[1]
        q = query[0]
        k, v = (each[0].repeat_interleave(group, dim=0) for each in (key, value))
        weights = (q @ k.mT * scale + added).softmax(-1)  # head query pos
        out = weights @ v
        # head query d_value d_head
        to_query = torch.einsum("hqp,hpv,hpd->hqvd", weights, v, k)
        to_query -= out[..., :, None] * (weights @ k)[..., None, :]
        new = slice(key.shape[2] - n_queries, None)
        recent = weights[..., new]
        # head query d_value pos
        to_scores = recent[..., None, :] * (v[:, None, new] - out[:, :, None]).mT
        ctx.kept = scale * to_query, scale * to_scores, q, recent
        ctx.shapes = key.shape, value.shape
        # Its own tensor: forward-mode differentiation takes no views for an answer.
        return out.transpose(0, 1).expand(n_copies, -1, -1, -1).contiguous()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Float[Tensor, "copy query head d_value"]:
        to_query, to_scores, q, recent = ctx.kept
        n_heads, n_queries = q.shape[:2]
        query = tangents[0].permute(1, 2, 3, 0)  # head query d_head copy
        # The cached part of keys and values is constant: it has no tangents but zeros.
        key, value = (
            each[:, :, -n_queries:].repeat_interleave(n_heads // each.shape[1], dim=1)
            for each in tangents[1:3]
        )
        scores = torch.einsum("hqd,chpd->hqpc", q, key)
        moved = to_query @ query + to_scores @ scores  # head query d_value copy
        moved = moved + torch.einsum("hqp,chpv->hqvc", recent, value)
        found: Tensor = moved.permute(3, 1, 0, 2)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        to_query, to_scores, q, recent = ctx.kept
        key_shape, value_shape = ctx.shapes
        n_kv, n_queries = key_shape[1], q.shape[1]
        at_heads = grads[0].permute(2, 1, 0, 3)  # head query copy d_value
        query_grad = (at_heads @ to_query).permute(2, 0, 1, 3)
        scores = at_heads @ to_scores  # head query copy pos
        # All heads that share keys and values add up.
        grouped = _by_kv_head(scores, n_kv).permute(0, 3, 4, 1, 2).flatten(3)
        key_new = grouped @ _by_kv_head(q, n_kv).flatten(1, 2)[:, None]
        spread = _by_kv_head(at_heads, n_kv).permute(0, 3, 4, 1, 2).flatten(3)
        value_new = spread @ _by_kv_head(recent, n_kv).flatten(1, 2)[:, None]
        key_grad = grads[0].new_zeros(key_shape)
        key_grad[:, :, -n_queries:] = key_new.permute(1, 0, 2, 3)
        value_grad = grads[0].new_zeros(value_shape)
        value_grad[:, :, -n_queries:] = value_new.permute(1, 0, 3, 2)
        return query_grad, key_grad, value_grad, None, None


def _by_kv_head(of_heads: Tensor, n_kv: int) -> Tensor:
    """The first axis, heads, as two: those that share keys and values, and which of them."""
    return of_heads.reshape(n_kv, -1, *of_heads.shape[1:])
