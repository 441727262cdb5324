"""The affine editor of REMEDI (Hernandez, Li & Andreas 2023, arXiv:2304.00740) and what it reads.

An attribute is read from a sentence that states it of the entity: h_attr is the mean residual
vector over the attribute's tokens. The editor maps what it reads to a direction, d = W x + b, which
is added to the block's output at the last token of the entity in a prompt: once, in the prompt
pass. What it reads, x, has two forms:

- *attribute*, as published: h_attr of the new object. The editor is not told what it replaces.
- *contrast*, ours: h_attr of the new object minus h_attr of the old one, in the same sentence about
  the same entity. What the two share (the entity, the sentence, the position) cancels, and taking
  the old attribute away is half of replacing it.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.core.records import Site
from dragoman.tools.editing.cached import read_residuals
from dragoman.tools.editing.records import Context, EditRecord, Prompt, state
from dragoman.tools.subjects.hooks import Edit, add_at
from dragoman.tools.subjects.language import LanguageSubject

Form: TypeAlias = Literal["contrast", "attribute"]
"""What an editor reads of a record."""
_READ_AT_ONCE = 64


class AffineEditor(nn.Module):
    """d = W x + b, fitted as (x - mean) + V (x - mean) / scale + c.

    V and c start at zero, so training starts from the centred vector itself, which already pushes
    the right way, and learns the correction. Residual streams have a few huge coordinates: dividing
    by the spread makes one learning rate fit all of them. The map from x to d is affine all the
    same.

    `strength` (alpha) multiplies the whole direction; it is 1 in training and chosen afterwards.
    """

    mean: Float[Tensor, " d_model"]
    scale: Float[Tensor, " d_model"]
    strength: Float[Tensor, ""]

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(d_model))
        self.register_buffer("strength", torch.ones(()))
        self.weight = nn.Parameter(torch.zeros(d_model, d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def standardise(self, inputs: Float[Tensor, "record d_model"]) -> None:
        """Take mean and scale from the training inputs."""
        self.mean.copy_(inputs.mean(0))
        self.scale.copy_(inputs.std(0).clamp(min=1e-3))

    def forward(self, inputs: Float[Tensor, "record d_model"]) -> Float[Tensor, "record d_model"]:
        """One direction for each input."""
        centred = inputs - self.mean
        correction = centred / self.scale @ self.weight.T + self.bias
        return self.strength * (centred + correction)


def read_inputs(
    subject: LanguageSubject,
    template: str,
    records: Sequence[EditRecord],
    layers: Sequence[int],
    form: Form,
) -> dict[int, Float[Tensor, "record d_model"]]:
    """What an editor of this form reads of each record at each layer."""
    new = [state(template, one.entity, one.new_object) for one in records]
    if form == "attribute":
        return read_attributes(subject, new, layers)
    old = [state(template, one.entity, one.old_object) for one in records]
    both = read_attributes(subject, [*new, *old], layers)
    return {layer: each[: len(new)] - each[len(new) :] for layer, each in both.items()}


def read_attributes(
    subject: LanguageSubject, contexts: Sequence[Context], layers: Sequence[int]
) -> dict[int, Float[Tensor, "context d_model"]]:
    """h_attr of each context at each layer: the mean over the attribute's tokens."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(contexts), _READ_AT_ONCE):
        some = contexts[start : start + _READ_AT_ONCE]
        spans = [subject.token_span(one.text, one.start, one.end) for one in some]
        resid = read_residuals(subject, [one.text for one in some], layers)
        for layer in layers:
            n_pos = resid[layer].shape[1]
            for row, (first, last) in enumerate(spans):
                parts[layer].append(resid[layer][row, n_pos + first : n_pos + last + 1].mean(0))
    return {layer: torch.stack(vectors) for layer, vectors in parts.items()}


def edit_at_entity(
    subject: LanguageSubject,
    prompts: Sequence[Prompt],
    layer: int,
    directions: Float[Tensor, "prompt d_model"],
) -> Edit:
    """The edit of one batch of prompts: a direction for each, at its entity's last token."""
    positions = [subject.last_token(prompt.text, prompt.entity_end) for prompt in prompts]
    return add_at(Site(layer=layer), positions, directions)
