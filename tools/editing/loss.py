"""REMEDI's loss, with every sample regularised, and what ours adds to it.

loss = -log p'(t_new) - lambda_u log(1 - p'(t_old)) + lambda_KL sum_pos KL(p || p'), averaged over
the batch; p' is the edited subject, the positions run from the entity's last token up to, but
excluding, the prompt's final token. Targets are first tokens.

Two terms are spared texts, in which the edit should change nothing: + lambda_n KL(p || p') of the
answers about other entities, in prompts where the edit acts on an entity that is merely mentioned,
and + lambda_e sum_pos KL(p || p') over what the unedited subject writes about the entity itself
(the published code has such a term for the one prompt "{entity} is a", and leaves it off). Without
the first an edited entity drags its neighbours along; without the second it is no longer itself.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class LossTerms(NamedTuple):
    """The loss of each sample, term by term, in nats; the weights are in already."""

    target: Float[Tensor, " row"]
    old: Float[Tensor, " row"]
    kl: Float[Tensor, " row"]

    def per_sample(self) -> Float[Tensor, " row"]:
        """The sum of the terms for each sample."""
        return self.target + self.old + self.kl

    def total(self) -> Float[Tensor, ""]:
        """Its mean over the batch: every sample counts, in every term."""
        return self.per_sample().mean()


def log_one_minus(log_p: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    """log(1 - p) from log p, without cancellation at either end (Maechler 2012)."""
    # At p = 1 the value is -inf and its slope too: held just below, where both are finite.
    safe = log_p.clamp(max=-1e-7)
    near_one = safe > -math.log(2)
    # Each branch sees only values it is good for, else the unused one's gradient would be NaN.
    from_expm1 = torch.log(-torch.expm1(torch.where(near_one, safe, safe.new_tensor(-1.0))))
    from_log1p = torch.log1p(-torch.exp(torch.where(near_one, safe.new_tensor(-1.0), safe)))
    return torch.where(near_one, from_expm1, from_log1p)


def loss_terms(
    edited: Float[Tensor, "row tail d_vocab"],
    original: Float[Tensor, "row tail d_vocab"],
    kl_mask: Bool[Tensor, "row tail"],
    new_ids: Int[Tensor, " row"],
    old_ids: Int[Tensor, " row"],
    *,
    lambda_old: float,
    lambda_kl: float,
) -> LossTerms:
    """The terms of the loss from log-probabilities with and without the edit."""
    final = edited[:, -1]
    log_new = final.gather(1, new_ids[:, None])[:, 0]
    log_old = final.gather(1, old_ids[:, None])[:, 0]
    return LossTerms(
        target=-log_new,
        old=-lambda_old * log_one_minus(log_old),
        kl=lambda_kl * divergence(original, edited, kl_mask),
    )


def divergence(
    original: Float[Tensor, "row pos d_vocab"],
    edited: Float[Tensor, "row pos d_vocab"],
    mask: Bool[Tensor, "row pos"],
) -> Float[Tensor, " row"]:
    """sum_pos KL(p || p') over the positions of the mask, in nats."""
    # The mask picks positions before any arithmetic: most of the tail may be another row's.
    before, after = original[mask], edited[mask]
    each = (before.exp() * (before - after)).sum(-1)
    total: Tensor = edited.new_zeros(edited.shape[0]).index_add(0, mask.nonzero()[:, 0], each)
    return total
