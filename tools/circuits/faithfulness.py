"""Faithfulness: how often the map names the object of a fact that the subject itself gets right.

The published rule (Hernandez et al. 2024, section 3.2): the most probable token, stripped and
without regard to case, must be a non-empty prefix of the object. It can be right by its first
letters alone, so objects that begin alike cannot be told apart by it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.relations import Sample, is_prefix
from dragoman.tools.subjects.language import LanguageSubject

ROWS = 256
"""Residual vectors decoded at once: bounds the memory of their logits."""


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
    tokens, log_probs = [], []
    for start in range(0, finals.shape[0], ROWS):
        logits = subject.decode(finals[start : start + ROWS].to(subject.model.dtype)).float()
        tokens.append(logits.argmax(-1).cpu())
        first = wanted[start : start + ROWS, None].to(logits.device)
        log_probs.append(logits.log_softmax(-1).gather(-1, first)[:, 0].cpu())
    top = torch.cat(tokens)
    return Decoded(top, [subject.token_text(int(each)) for each in top], torch.cat(log_probs))


def first_tokens(subject: LanguageSubject, samples: Sequence[Sample]) -> Int[Tensor, " batch"]:
    """The first token of each fact's object."""
    return torch.tensor([subject.first_token(sample.object) for sample in samples])


def hits(texts: Sequence[str], samples: Sequence[Sample]) -> list[bool]:
    """For each fact whether the text at its place names its object."""
    return [is_prefix(text, sample.object) for text, sample in zip(texts, samples, strict=True)]


def shuffled_hits(texts: Sequence[str], objects: Sequence[str]) -> float:
    """Expected number of hits if each text met another fact's object, by chance.

    The shuffled relation: subjects keep their representations, objects are permuted. What is
    counted is the exact mean over all ways to give every fact another fact's object.
    """
    count = len(texts)
    if count < 2:
        return 0.0
    crossed = sum(
        is_prefix(text, target)
        for i, text in enumerate(texts)
        for j, target in enumerate(objects)
        if i != j
    )
    return crossed / (count - 1)
