"""Sampling with a key-value cache, in batches, with edits that act on the prompt alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.tools.subjects.hooks import Edit

if TYPE_CHECKING:
    from dragoman.tools.subjects.language import Batch, LanguageSubject


class PromptPass(NamedTuple):
    """The pass over some prompts, with all that generation needs to go on from it."""

    logits: Float[Tensor, "batch d_vocab"]
    """After each prompt's last token."""
    past: Any
    """The model's own cache of keys and values; it grows with what is generated."""
    mask: Int[Tensor, "batch pos"]
    position: Int[Tensor, "batch 1"]
    """Of each prompt's last token."""


@torch.no_grad()
def sample(
    subject: "LanguageSubject",
    batch: "Batch",
    max_new_tokens: int,
    *,
    edits: Sequence[Edit] = (),
    temperature: float = 0.0,
    top_k: int | None = None,
    streams: Sequence[int] | None = None,
    seed: int = 0,
) -> Int[Tensor, "batch new"]:
    """New token ids after a prompt pass with `edits`; the rest is as in `sample_from`."""
    output = subject.forward(batch, edits, use_cache=True, logits_to_keep=1)
    return sample_from(
        subject,
        PromptPass(
            output.logits[:, -1], output.past_key_values, batch.mask, batch.positions[:, -1:]
        ),
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        streams=streams,
        seed=seed,
    )


@torch.no_grad()
def sample_from(
    subject: "LanguageSubject",
    prompts: PromptPass,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    streams: Sequence[int] | None = None,
    seed: int = 0,
) -> Int[Tensor, "batch new"]:
    """New token ids; a row that has ended goes on with its end token. `prompts` is used up.

    Greedy at temperature 0, else seeded ancestral sampling, from the `top_k` most probable tokens
    if that is given. Rows of the same stream draw by the same random numbers: what differs between
    their texts is then not the luck of the draw.
    """
    generator = torch.Generator(device=subject.device).manual_seed(seed)
    choose = _Chooser(temperature, top_k, streams, generator)
    ends = torch.tensor(end_ids(subject), device=subject.device)
    logits, past, mask, position = prompts
    ended = torch.zeros(logits.shape[0], dtype=torch.bool, device=subject.device)
    new: list[Tensor] = []
    for step in range(max_new_tokens):
        token = choose(logits)
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
            past_key_values=past,
            use_cache=True,
        )
        logits, past = output.logits[:, -1], output.past_key_values
    return torch.stack(new, dim=1)


def end_ids(subject: "LanguageSubject") -> list[int]:
    """The ids that end a text: the tokenizer's and the configuration's, document start too."""
    configured = subject.model.config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    found = [subject.tokenizer.eos_token_id, *listed, subject.document_start]
    return list(dict.fromkeys(int(token) for token in found if token is not None)) or [-1]


class _Chooser:
    """Picks the next token of each row."""

    def __init__(
        self,
        temperature: float,
        top_k: int | None,
        streams: Sequence[int] | None,
        generator: torch.Generator,
    ) -> None:
        self._temperature, self._top_k, self._generator = temperature, top_k, generator
        self._streams = None if streams is None else torch.tensor(streams)

    def __call__(self, logits: Float[Tensor, "batch d_vocab"]) -> Int[Tensor, " batch"]:
        if self._temperature == 0:
            return logits.argmax(-1)
        probabilities = (logits / self._temperature).softmax(-1)
        if self._top_k is not None:
            least = probabilities.topk(self._top_k).values[:, -1:]
            probabilities = probabilities.where(probabilities >= least, 0.0)
        if self._streams is None:
            return torch.multinomial(probabilities, 1, generator=self._generator)[:, 0]
        # The first of independent exponential clocks to ring falls on each token with its
        # probability; one set of clocks serves all rows of a stream.
        shape = (int(self._streams.max()) + 1, logits.shape[1])
        clocks = torch.empty(shape, device=logits.device).exponential_(generator=self._generator)
        return (probabilities / clocks[self._streams.to(logits.device)]).argmax(-1)
