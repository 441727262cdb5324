"""Where edits act in any text: tokens of any occurrence of an entity, several entities at once.

A trained editor gives directions; this puts them into texts. All edits are applied in one prompt
pass, in the order given; two of the same entity at one layer add up. Generation after it reads the
edited keys and values from the cache and adds nothing more (`generation.sample`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import LanguageSubject

Occurrence: TypeAlias = Literal["first", "last", "all"]
Tokens: TypeAlias = Literal["last", "all"]


class Placement(NamedTuple):
    """A direction and where it is added."""

    entity: str
    layer: int
    direction: Float[Tensor, " d_model"]
    occurrence: Occurrence = "first"
    tokens: Tokens = "last"


def entity_tokens(
    subject: LanguageSubject,
    text: str,
    entity: str,
    occurrence: Occurrence = "first",
    tokens: Tokens = "last",
) -> list[int]:
    """The (negative) token indices of `entity` in `text`.

    Raises:
        ToolError: the entity does not occur as a whole word, or a token of it reaches into another
            word, so that an edit of the one would be an edit of the other.
    """
    spans = occurrences(text, entity)
    if not spans:
        inside = ", only inside another word" if entity and entity in text else ""
        raise ToolError(f"entity {entity!r} does not occur in the text {text!r}{inside}")
    chosen = {"first": spans[:1], "last": spans[-1:], "all": spans}[occurrence]
    found: list[int] = []
    for start, end in chosen:
        first, last = subject.token_span(text, start, end)
        shared = shared_token(subject, text, start, end)
        if shared is not None:
            raise ToolError(
                f"entity {entity!r} shares the token {shared!r} with another word "
                f"of the text {text!r}: put a space between them"
            )
        found += range(last if tokens == "last" else first, last + 1)
    return found


def shared_token(subject: LanguageSubject, text: str, start: int, end: int) -> str | None:
    """A token of `text[start:end]` that reaches into another word; None if there is none."""
    offsets = _offsets(subject, text)
    first, last = subject.token_span(text, start, end)
    for token in range(first, last + 1):
        left, right = offsets[token]
        # Leading space belongs to the token in most vocabularies, and to no word.
        beyond = text[left : max(left, start)] + text[end : max(end, right)]
        if any(character.isalnum() for character in beyond):
            return text[left:right]
    return None


def occurrences(text: str, entity: str) -> list[tuple[int, int]]:
    """Start and end of each occurrence of `entity` that is not part of a longer word."""
    found: list[tuple[int, int]] = []
    at = text.find(entity) if entity else -1
    while at >= 0:
        end = at + len(entity)
        before, after = text[at - 1 : at] if at else "", text[end : end + 1]
        if not (_joins(before, entity[0]) or _joins(entity[-1], after)):
            found.append((at, end))
        at = text.find(entity, at + 1)
    return found


def place(
    subject: LanguageSubject, texts: Sequence[str], placements: Sequence[Sequence[Placement]]
) -> list[Edit]:
    """The edits of one batch: for each text the placements that act in it (there may be none).

    One `Edit` for each layer; give them to `subject.log_probs` or `subject.generate` with `texts`.

    Raises:
        ToolError: as `entity_tokens`, or a layer that the subject lacks.
    """
    added: dict[int, list[tuple[int, int, Tensor]]] = {}
    for row, (text, some) in enumerate(zip(texts, placements, strict=True)):
        for one in some:
            subject.check_layer(one.layer)
            where = entity_tokens(subject, text, one.entity, one.occurrence, one.tokens)
            added.setdefault(one.layer, []).extend((row, at, one.direction) for at in where)
    return [_sum_at(layer, found) for layer, found in sorted(added.items())]


def _sum_at(layer: int, added: Sequence[tuple[int, int, Float[Tensor, " d_model"]]]) -> Edit:
    rows = torch.tensor([row for row, _, _ in added])
    places = torch.tensor([at for _, at, _ in added])
    directions = torch.stack([direction for _, _, direction in added])

    def apply(
        activations: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        index = (rows.to(activations.device), places.to(activations.device) % activations.shape[1])
        return activations.index_put(index, directions.to(activations), accumulate=True)

    return Edit(Site(layer=layer), apply)


def _offsets(subject: LanguageSubject, text: str) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = subject.tokenizer(text, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    return offsets


def _joins(left: str, right: str) -> bool:
    """Whether two neighbouring characters are of one word."""
    return bool(left and right) and left.isalnum() and right.isalnum()
