"""What an editor of REMEDI reads (Hernandez, Li & Andreas 2023, arXiv:2304.00740), and its edit.

An attribute is read from a sentence that states it of the entity: h_attr is the mean residual
vector over the attribute's tokens. An editor (`editors`) maps what it reads to a direction, which
is added to the block's output at the last token of the entity in a prompt: once, in the prompt
pass. What it reads of the attribute has two forms:

- *attribute*, as published: h_attr of the new object. The editor is not told what it replaces.
- *contrast*, ours: h_attr of the new object minus h_attr of the old one, in the same sentence about
  the same entity. What the two share (the entity, the sentence, the position) cancels, and taking
  the old attribute away is half of replacing it.

Editors that take the entity as well read its last token in the same sentence.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.editing.cached import read_residuals
from dragoman.tools.editing.editors.base import READ
from dragoman.tools.editing.records import Context, EditRecord, Prompt, state
from dragoman.tools.subjects.hooks import Edit, add_at
from dragoman.tools.subjects.language import LanguageSubject

Form: TypeAlias = Literal["contrast", "attribute"]
"""What an editor reads of a record."""
_READ_AT_ONCE = 64


class Readings(NamedTuple):
    """What was read of some records, by layer; parts as in `READ`."""

    new: dict[int, Float[Tensor, "record part d_model"]]
    """Of the sentences that give the entity its new object."""
    old: dict[int, Float[Tensor, "record part d_model"]]

    def inputs(self, form: Form) -> dict[int, Float[Tensor, "record part d_model"]]:
        """What an editor of this form reads."""
        if form == "attribute":
            return self.new
        return {layer: _contrasted(each, self.old[layer]) for layer, each in self.new.items()}

    def attributes(self, layer: int) -> Float[Tensor, "record d_model"]:
        """h_attr of each record's new object."""
        return self.new[layer][:, READ.index("attribute")]


def read_records(
    subject: LanguageSubject, template: str, records: Sequence[EditRecord], layers: Sequence[int]
) -> Readings:
    """Read each record's two sentences, all layers in one pass."""
    new = [state(template, one.entity, one.new_object) for one in records]
    old = [state(template, one.entity, one.old_object) for one in records]
    both = read_states(subject, [*new, *old], layers)
    return Readings(
        {layer: each[: len(new)] for layer, each in both.items()},
        {layer: each[len(new) :] for layer, each in both.items()},
    )


def read_attributes(
    subject: LanguageSubject, contexts: Sequence[Context], layers: Sequence[int]
) -> dict[int, Float[Tensor, "context d_model"]]:
    """h_attr of each context at each layer: the mean over the attribute's tokens."""
    states = read_states(subject, contexts, layers)
    return {layer: each[:, READ.index("attribute")] for layer, each in states.items()}


def read_states(
    subject: LanguageSubject, contexts: Sequence[Context], layers: Sequence[int]
) -> dict[int, Float[Tensor, "context part d_model"]]:
    """h_attr and the entity's last token of each context at each layer, each text read once.

    A context without an entity of its own gives a zero vector for it.
    """
    different = list(dict.fromkeys(contexts))
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(different), _READ_AT_ONCE):
        some = different[start : start + _READ_AT_ONCE]
        resid = read_residuals(subject, [one.text for one in some], layers)
        for row, one in enumerate(some):
            first, last = subject.token_span(one.text, one.start, one.end)
            entity = _entity_token(subject, one)
            for layer in layers:
                tokens = resid[layer][row]
                attribute = tokens[len(tokens) + first : len(tokens) + last + 1].mean(0)
                other = torch.zeros_like(attribute) if entity is None else tokens[entity]
                parts[layer].append(torch.stack([attribute, other]))
    rows = {one: row for row, one in enumerate(different)}
    order = [rows[one] for one in contexts]
    return {layer: torch.stack(vectors)[order] for layer, vectors in parts.items()}


def _entity_token(subject: LanguageSubject, context: Context) -> int | None:
    end = context.entity_end
    return None if end is None else subject.last_token(context.text, end)


def _contrasted(
    new: Float[Tensor, "record part d_model"], old: Float[Tensor, "record part d_model"]
) -> Float[Tensor, "record part d_model"]:
    """The attribute's difference; the entity stands before it and is the same in both."""
    contrast = new.clone()
    contrast[:, READ.index("attribute")] -= old[:, READ.index("attribute")]
    return contrast


def edit_at_entity(
    subject: LanguageSubject,
    prompts: Sequence[Prompt],
    layer: int,
    directions: Float[Tensor, "prompt d_model"],
) -> Edit:
    """The edit of one batch of prompts: a direction for each, at its entity's last token."""
    positions = [subject.last_token(prompt.text, prompt.entity_end) for prompt in prompts]
    return add_at(Site(layer=layer), positions, directions)
