"""Sampling with a key-value cache, in batches, with edits that act on the prompt alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.subjects.hooks import Edit

if TYPE_CHECKING:
    from dragoman.tools.subjects.language import Batch, LanguageSubject


@torch.no_grad()
def sample(
    subject: "LanguageSubject",
    batch: "Batch",
    max_new_tokens: int,
    *,
    edits: Sequence[Edit] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> Int[Tensor, "batch new"]:
    """New token ids; a row that has ended goes on with its end token.

    Greedy at temperature 0, else seeded ancestral sampling.
    """
    generator = torch.Generator(device=subject.device).manual_seed(seed)
    ends = torch.tensor(end_ids(subject), device=subject.device)
    output = subject.forward(batch, edits, use_cache=True, logits_to_keep=1)
    mask, position = batch.mask, batch.positions[:, -1:]
    ended = torch.zeros(batch.ids.shape[0], dtype=torch.bool, device=subject.device)
    new: list[Tensor] = []
    for step in range(max_new_tokens):
        token = _choose(output.logits[:, -1], temperature, generator)
        token = torch.where(ended, ends[0], token)
        new.append(token)
        ended = ended | torch.isin(token, ends)
        if bool(ended.all()) or step == max_new_tokens - 1:
            break
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
        position = position + 1
        output = subject.model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=output.past_key_values,
            use_cache=True,
        )
    return torch.stack(new, dim=1)


def end_ids(subject: "LanguageSubject") -> list[int]:
    """The ids that end a text: the tokenizer's and the configuration's, document start too."""
    configured = subject.model.config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    found = [subject.tokenizer.eos_token_id, *listed, subject.document_start]
    return list(dict.fromkeys(int(token) for token in found if token is not None)) or [-1]


def _choose(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " batch"]:
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
