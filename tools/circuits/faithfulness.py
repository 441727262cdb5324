"""Faithfulness: how often the map names the object of a fact that the subject itself gets right.

The published rule (Hernandez et al. 2024, section 3.2): the most probable token, stripped and
without regard to case, must be a non-empty prefix of the object. It can be right by its first
letters alone, so objects that begin alike cannot be told apart by it. A stricter rule stands
beside it: the token must be the whole object, or begin it and no other object of the relation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.circuits.precision import read_out
from dragoman.tools.relations import Sample, is_prefix
from dragoman.tools.subjects.language import LanguageSubject

ROWS = 256
"""Residual vectors decoded at once: bounds the memory of their logits."""
RECALLS = (1, 2, 3, 5)
"""The k of recall@k."""


class Decoded(NamedTuple):
    """What residual vectors say when the subject's own head reads them."""

    tokens: Int[Tensor, " batch"]
    """Most probable token."""
    texts: list[str]
    log_probs: Float[Tensor, " batch"]
    """Of the token asked for, in nats."""


@torch.no_grad()
def decode(
    subject: LanguageSubject,
    finals: Float[Tensor, "batch d_model"],
    wanted: Int[Tensor, " batch"],
) -> Decoded:
    """Read each z, and how probable it makes the token at the same place in `wanted`."""
    parts = [
        decode_logits(subject, read_out(subject, some), tokens)
        for some, tokens in zip(torch.split(finals, ROWS), torch.split(wanted, ROWS), strict=True)
    ]
    return Decoded(
        torch.cat([each.tokens for each in parts]),
        [text for each in parts for text in each.texts],
        torch.cat([each.log_probs for each in parts]),
    )


def decode_logits(
    subject: LanguageSubject, logits: Float[Tensor, "batch d_vocab"], wanted: Int[Tensor, " batch"]
) -> Decoded:
    """`decode` of residual vectors whose logits are known."""
    top = logits.argmax(-1).cpu()
    # The normaliser without a second table of logits.
    chosen = logits.gather(-1, wanted[:, None].to(logits.device))[:, 0] - logits.logsumexp(-1)
    return Decoded(top, [subject.token_text(int(each)) for each in top], chosen.cpu())


@torch.no_grad()
def recalled(
    subject: LanguageSubject, finals: Float[Tensor, "batch d_model"], samples: Sequence[Sample]
) -> dict[int, list[bool]]:
    """recall@k: for each k whether one of the k most probable tokens names the fact's object."""
    found: dict[int, list[bool]] = {k: [] for k in RECALLS}
    for start in range(0, finals.shape[0], ROWS):
        logits = read_out(subject, finals[start : start + ROWS])
        top = logits.topk(min(max(RECALLS), logits.shape[-1])).indices.tolist()
        for tokens, sample in zip(top, samples[start : start + ROWS], strict=True):
            named = [is_prefix(subject.token_text(token), sample.object) for token in tokens]
            for k in RECALLS:
                found[k].append(any(named[:k]))
    return found


def first_tokens(subject: LanguageSubject, samples: Sequence[Sample]) -> Int[Tensor, " batch"]:
    """The first token of each fact's object."""
    return torch.tensor([subject.first_token(sample.object) for sample in samples])


def hits(texts: Sequence[str], samples: Sequence[Sample]) -> list[bool]:
    """For each fact whether the text at its place names its object."""
    return [is_prefix(text, sample.object) for text, sample in zip(texts, samples, strict=True)]


def whole_hits(
    texts: Sequence[str], samples: Sequence[Sample], objects: Sequence[str]
) -> list[bool]:
    """The stricter rule: for each fact whether the text names its object and no other of `objects`.

    A text that is the whole object counts, even where another object begins with it.
    """
    ranged = {each.casefold() for each in objects}
    named = []
    for text, sample in zip(texts, samples, strict=True):
        own = sample.object.casefold()
        alone = is_prefix(text, own) and not any(
            is_prefix(text, other) for other in ranged if other != own
        )
        named.append(alone or text.strip().casefold() == own)
    return named


def shuffled_hits(texts: Sequence[str], objects: Sequence[str]) -> float:
    """Expected number of hits if each text met another fact's object, by chance.

    The shuffled relation: subjects keep their representations, objects are permuted. What is
    counted is the exact mean over all ways to give every fact another fact's object.
    """
    return sum(expected_hits(texts, objects))


def expected_hits(texts: Sequence[str], objects: Sequence[str]) -> list[float]:
    """`shuffled_hits`, by fact: the share of the other facts' objects that its text names."""
    count = len(texts)
    if count < 2:
        return [0.0] * count
    return [
        sum(is_prefix(text, target) for j, target in enumerate(objects) if j != i) / (count - 1)
        for i, text in enumerate(texts)
    ]
