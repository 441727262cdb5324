"""Prose with holes: numbers enter a sentence only from the measurements of the claims it cites.

The syntax, after `str.format`:

    {metric}                 in `Claim.text`: the claim's effect of that name, the only one or
                             the only one without a scope
    {metric#scope}           … where the claim has several effects of one name
    {claim_id.metric}        in a `Sentence`: the effect of a claim that the sentence cites
    {claim_id.metric#scope}  … of several
    {{ and }}                a literal brace

A claim id holds no dot and a metric no `#`; a scope is everything up to the closing brace.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from dragoman.agent.rendering.numbers import phrase
from dragoman.core.claims import Claim
from dragoman.core.errors import IntegrityError
from dragoman.core.escaping import visible
from dragoman.core.records import Measurement
from dragoman.core.report import Report, Sentence

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<hole>[^{}]*)\}|[{}]")


class Words(NamedTuple):
    """Literal prose between holes, braces unescaped."""

    text: str


class Hole(NamedTuple):
    """A place for a measurement; `claim_id` is '' within a claim's own text."""

    claim_id: str
    metric: str
    scope: str | None


class Figure(NamedTuple):
    """A filled hole: the measurement, and the claim that it is an effect of."""

    claim: Claim
    measurement: Measurement


Piece: TypeAlias = Words | Hole
Filled: TypeAlias = Words | Figure


class ProseError(IntegrityError):
    """A hole that is malformed or that no measurement fills; the message names it."""


def literal(text: str) -> str:
    """`text` with its braces doubled, for a name that goes into a sentence as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def claim_pieces(text: str) -> list[Piece]:
    """The pieces of a `Claim.text`; `ProseError` for a brace without its partner."""
    return _pieces(text, in_claim=True)


def sentence_pieces(text: str) -> list[Piece]:
    """The pieces of a `Sentence.text`; `ProseError` for a hole that names no claim."""
    return _pieces(text, in_claim=False)


def _pieces(text: str, *, in_claim: bool) -> list[Piece]:
    pieces: list[Piece] = []
    words = ""
    end = 0
    for token in _TOKEN.finditer(text):
        words += text[end : token.start()]
        end = token.end()
        if token["hole"] is None:
            if len(token[0]) == 1:
                raise ProseError(f"a lone {token[0]!r} at character {token.start()}")
            words += token[0][0]
            continue
        pieces += [Words(words)] if words else []
        words = ""
        pieces.append(_hole(token["hole"], in_claim=in_claim))
    words += text[end:]
    return [*pieces, Words(words)] if words else pieces


def _hole(name: str, *, in_claim: bool) -> Hole:
    address, hash_sign, scope = name.partition("#")
    claim_id, metric = ("", address) if in_claim else address.partition(".")[::2]
    if not metric or (not in_claim and not claim_id) or (hash_sign and not scope):
        wanted = "{metric} or {metric#scope}"
        if not in_claim:
            wanted = "{claim_id.metric} or {claim_id.metric#scope}"
        raise ProseError(f"hole {{{name}}} is not of the form {wanted}")
    return Hole(claim_id, metric, scope or None)


def effect(claim: Claim, hole: Hole) -> Measurement:
    """The one effect of `claim` that `hole` names; `ProseError` for none or several."""
    named = [measurement for measurement in claim.effects if measurement.metric == hole.metric]
    if hole.scope is not None:
        named = [measurement for measurement in named if measurement.scope == hole.scope]
    elif len(unscoped := [measurement for measurement in named if not measurement.scope]) == 1:
        named = unscoped
    where = f"{hole.metric}#{hole.scope}" if hole.scope else hole.metric
    if not named:
        known = ", ".join(f"{each.metric}#{each.scope}".rstrip("#") for each in claim.effects)
        raise ProseError(f"claim {claim.id!r} has no effect {where!r} (it has: {known or 'none'})")
    if any(other != named[0] for other in named[1:]):
        scopes = ", ".join(repr(measurement.scope) for measurement in named)
        raise ProseError(
            f"claim {claim.id!r} has several effects {where!r}: write {where}#scope (of {scopes})"
        )
    return named[0]


def filled_claim(claim: Claim) -> list[Filled]:
    """The pieces of a claim's text with their measurements; `ProseError` as `effect`."""
    return [
        piece if isinstance(piece, Words) else Figure(claim, effect(claim, piece))
        for piece in claim_pieces(claim.text)
    ]


def filled_sentence(sentence: Sentence, claims: Mapping[str, Claim]) -> list[Filled]:
    """The pieces of a sentence with their measurements; a hole's claim must be cited."""
    filled: list[Filled] = []
    for piece in sentence_pieces(sentence.text):
        if isinstance(piece, Words):
            filled.append(piece)
            continue
        if piece.claim_id not in sentence.claim_ids or piece.claim_id not in claims:
            raise ProseError(
                f"hole {{{piece.claim_id}.{piece.metric}}} is of a claim that is not cited"
            )
        claim = claims[piece.claim_id]
        filled.append(Figure(claim, effect(claim, piece)))
    return filled


def claims_by_id(report: Report) -> dict[str, Claim]:
    """The report's claims under their ids."""
    return {claim.id: claim for claim in report.claims}


def claim_text(claim: Claim) -> str:
    """A claim as a person reads it, numbers in place, safe for a terminal."""
    return _spoken(filled_claim(claim))


def sentence_text(sentence: Sentence, claims: Mapping[str, Claim]) -> str:
    """A sentence as a person reads it, numbers in place, safe for a terminal."""
    return _spoken(filled_sentence(sentence, claims))


def _spoken(filled: list[Filled]) -> str:
    return "".join(
        visible(piece.text, one_line=True)
        if isinstance(piece, Words)
        else phrase(piece.measurement)
        for piece in filled
    )
