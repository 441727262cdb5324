"""Log-probabilities of many texts after one beginning, which the subject reads once."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.subjects.language import Batch, LanguageSubject

_BATCH = 32


@torch.no_grad()
def log_probs_after(
    subject: LanguageSubject, beginning: str, texts: Sequence[str]
) -> list[Float[Tensor, " tokens"]]:
    """For each text the log-probability, in nats, of each of its tokens after `beginning`.

    Beginning and text are tokenised together; tokens from as many on as the beginning has by itself
    count as the text's. Texts of like length go together, so that little of a batch is padding.
    """
    n_given = len(subject.token_ids(beginning))
    rows = [subject.token_ids(beginning + text) for text in texts]
    # The last token of the beginning is read with each text: what it foretells is the first of it.
    n_shared = min(common_prefix(rows), n_given - 1)
    past = None
    if n_shared > 0:
        past = _read(subject, [rows[0][:n_shared]], 0, None, 1).past_key_values
    found: list[Float[Tensor, " tokens"]] = [torch.zeros(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for start in range(0, len(order), _BATCH):
        numbers = order[start : start + _BATCH]
        rests = [rows[number][n_shared:] for number in numbers]
        logits = _read(subject, rests, n_shared, past, 0).logits
        for number, rest, given in zip(numbers, rests, logits, strict=True):
            own = given[n_given - n_shared - 1 : len(rest) - 1].float()
            follow = torch.tensor(rest[n_given - n_shared :], device=own.device, dtype=torch.long)
            found[number] = own.gather(-1, follow[:, None])[:, 0] - own.logsumexp(-1)
    return found


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike; 0 where there are no rows."""
    shortest = min(map(len, rows), default=0)
    differing = (at for at in range(shortest) if len({row[at] for row in rows}) > 1)
    return next(differing, shortest)


def _read(
    subject: LanguageSubject,
    rows: Sequence[Sequence[int]],
    start: int,
    past: Any,
    logits_to_keep: int,
) -> Any:
    longest = max(map(len, rows))
    if past is not None:
        # A forward pass writes into the cache that it is given.
        past = copy.deepcopy(past)
        past.batch_repeat_interleave(len(rows))
    # Padding on the right needs no mask: under causal attention nothing real looks at it.
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
    positions = torch.arange(start, start + longest).expand(len(rows), -1)
    batch = Batch(ids, torch.ones(len(rows), start + longest, dtype=torch.long), positions)
    return subject.forward(
        Batch(*(each.to(subject.device) for each in batch)),
        use_cache=True,
        past_key_values=past,
        logits_to_keep=logits_to_keep,
    )
