"""Documents of like length in one batch, so that hardly any of a forward pass is padding.

Rows are padded on the right: in a causal model no token sees what comes after it, so that no mask
is needed and attention takes its fastest way.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.subjects.language import Batch, LanguageSubject

BATCH_TOKENS = 2048
_FULL_ENOUGH = 0.25
"""From this share of `BATCH_TOKENS` on a batch ends rather than take in longer documents."""


class Tokens(NamedTuple):
    """A document as the subject reads it."""

    ids: list[int]
    """Without document start."""
    offsets: list[tuple[int, int]]
    """The characters that each token covers."""


class Packed(NamedTuple):
    """A batch of documents of like length."""

    rows: Int64[ndarray, " batch"]
    """Which of the documents that were given."""
    lengths: Int64[Tensor, " batch"]
    """Tokens of each, document start not counted."""
    batch: Batch
    """Right-padded; its mask is of use to `n_padding` only."""

    @property
    def n_padding(self) -> int:
        """Positions that hold no token."""
        return int(self.batch.mask.numel() - self.batch.mask.sum())


def tokenise(texts: Sequence[str], tokenizer: Any, limit: int) -> list[Tokens]:
    """The first `limit` tokens of each text."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    return [
        Tokens(ids[:limit], offsets[:limit])
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def document_start(subject: LanguageSubject) -> list[int]:
    """The ids that the subject expects before a document: one or none."""
    plain: list[int] = subject.tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = subject.token_ids("a")
    if whole[len(whole) - len(plain) :] != plain:
        raise ToolError(
            f"the tokenizer of subject {subject.identity.name!r} adds tokens after a text"
        )
    return whole[: len(whole) - len(plain)]


def packed(
    subject: LanguageSubject, documents: Sequence[Tokens], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[Packed]:
    """Every document that has a token, shortest first, in batches of at most `batch_tokens`.

    A document longer than that is a batch of its own. Which documents share a batch depends on
    `documents` alone.
    """
    start = document_start(subject)
    limit = getattr(subject.model.config, "max_position_embeddings", None)
    lengths = np.array([len(document.ids) for document in documents], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    begin = 0
    while begin < len(order):
        end = _end(lengths[order], begin, len(start), batch_tokens)
        rows = order[begin:end]
        width = len(start) + int(lengths[rows[-1]])
        if limit is not None and width > limit:
            raise ToolError(f"a text of {width} tokens is longer than the subject's {limit}")
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        for row, document in enumerate(rows):
            read = [*start, *documents[document].ids]
            ids[row, : len(read)] = torch.tensor(read)
        steps = torch.arange(width)
        own = torch.from_numpy(lengths[rows])
        mask = (steps < len(start) + own[:, None]).long()
        batch = Batch(ids, mask, steps.expand(len(rows), -1))
        yield Packed(rows, own, Batch(*(each.to(subject.device) for each in batch)))
        begin = end


def _end(lengths: Int64[ndarray, " documents"], begin: int, start: int, batch_tokens: int) -> int:
    end = begin + 1
    while end < len(lengths):
        longer = lengths[end] > lengths[end - 1]
        if longer and (end - begin) * (start + lengths[end - 1]) >= batch_tokens * _FULL_ENOUGH:
            break
        if (end + 1 - begin) * (start + lengths[end]) > batch_tokens:
            break
        end += 1
    return end
