"""Which digits in a report's prose belong to a name, and which are numbers that nobody measured.

A name is allowed where the report itself carries it: the subject ('smollm2'), the chat model, and
for the claims in question their scope, the strings in their hypothesis's slots and the scopes and
metrics of their effects. A name

- that mixes letters and digits may stand bare: layer 12, unit 12.77, smollm2;
- of any kind may stand whole in quotation marks: "1945", or a caption that the scope holds;
- made of a slot's key and its number may stand bare: layer 12 for `{"layer": 12}`.

So a chat model cannot bring in a figure of its own: what it may repeat was fixed before the
experiment ran.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import TypeAlias

from pydantic import JsonValue

from dragoman.core.claims import Claim, Hypothesis
from dragoman.core.report import Report

_MARKS = (
    *(mark * 2 for mark in "'\"`"),
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}",
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}",
    "«»",
)
"""Pairs of quotation marks in which a name may stand whole."""
_CARDINALS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    "|hundred|thousand|million|half"
)
_SPELLED_SHARE = re.compile(
    rf"\b(?:{_CARDINALS})(?:[\s-](?:{_CARDINALS}|and))*[\s-]?(?:per\s?cent|percent|times|fold"
    rf"|out\s+of|in\s+(?:{_CARDINALS})|point\s+(?:{_CARDINALS}))\b",
    re.IGNORECASE,
)
_SIGN = re.compile("[%‰‱]")


Names: TypeAlias = frozenset[str]


def report_names(report: Report) -> Names:
    """Names that any sentence of the report may use: the subjects', the chat model's, the ids."""
    subjects = [report.subject, *([report.reference] if report.reference is not None else [])]
    names = {report.chat.model, *(claim.id for claim in report.claims)}
    for subject in subjects:
        names |= {subject.name, subject.architecture}
    return frozenset(names - {""})


def claim_names(claim: Claim, hypothesis: Hypothesis | None) -> Names:
    """Names that belong to one claim: its scope, slots and arguments, its effects' metrics."""
    names = {claim.id, *_scope_names(claim.scope)}
    for effect in claim.effects:
        names |= {effect.metric, *_scope_names(effect.scope)}
    if hypothesis is not None:
        names |= {hypothesis.id, *_leaf_names("", hypothesis.slots)}
        names |= set(_leaf_names("", hypothesis.arguments))
    return frozenset(names - {""})


def _scope_names(scope: str) -> Iterator[str]:
    yield scope
    # 'unit 12.77; a caption': what follows the first semicolon may hold more of them.
    yield scope.partition(";")[2].strip()
    yield from (part.strip() for part in re.split("[,;]", scope))


def _leaf_names(key: str, value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _leaf_names(inner, each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaf_names(key, each)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool) and key:
        words = key.replace("_", " ")
        yield f"{words} {value}"
        yield f"{words.removesuffix('s')} {value}"


def numbers_in(prose: str, names: Names) -> list[str]:
    """The numbers in `prose` that are part of no name: digits of any script, shares in words."""
    rest = prose
    digital = sorted((name for name in names if any(map(_is_digit, name))), key=len, reverse=True)
    for name in digital:
        for marks in _MARKS:
            rest = rest.replace(f"{marks[0]}{name}{marks[1]}", " ")
    for name in digital:
        if not any(map(str.isalpha, name)):
            continue
        # Not inside a longer word or figure: 'layer 1' does not excuse 'layer 12' or 'layer 1.5'.
        whole = rf"(?<![\w.]){re.escape(name)}(?!\w|[.,]\d)"
        rest = re.sub(whole, " ", rest, flags=re.IGNORECASE)
    digits = [word for word in rest.split() if any(map(_is_digit, word))]
    return digits + _SIGN.findall(rest) * (not digits) + _SPELLED_SHARE.findall(rest)


def _is_digit(character: str) -> bool:
    """Decimal digits of every script, Roman numerals, superscripts and vulgar fractions."""
    return unicodedata.category(character).startswith("N")
