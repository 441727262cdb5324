"""Texts before and after an edit beside each other, and the probabilities that moved."""

import textwrap
from itertools import zip_longest

from pydantic import JsonValue

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject

_GAP = 3
_LEAST_COLUMN = 24
_BAR = 20


def columns(left: str, right: str, titles: tuple[str, str], width: int) -> list[str]:
    """Two texts as two columns of at most `width` characters in all."""
    column = max(_LEAST_COLUMN, (width - _GAP) // 2)
    pairs = zip_longest(_wrapped(left, column), _wrapped(right, column), fillvalue="")
    rows = [titles, ("─" * column, "─" * column), *pairs]
    return [f"{here:<{column}}{' ' * _GAP}{there}".rstrip() for here, there in rows]


def moved(name: str, before: float, after: float) -> str:
    """One answer's probability before and after, with a bar for each."""
    return (
        f"  {visible(name, one_line=True)[:24]:<24}  {before:6.3f} {_bar(before)}  →  "
        f"{after:6.3f} {_bar(after)}"
    ).rstrip()


def show_edit(output: JsonObject, width: int) -> list[str]:
    """What `edit_representation` says of one edit, as lines."""
    lines = _before_and_after(str(output["prompt"]), output, str(output["entity"]), width)
    lines += _probabilities(output, "probability of the next word")
    return [visible(line, one_line=True) for line in lines]


def show_texts(output: JsonObject, width: int) -> list[str]:
    """What `edit_text` says of each text, as lines."""
    lines: list[str] = []
    for shown in _objects(output["texts"]):
        edits = _objects(shown["edits"])
        names = ", ".join(dict.fromkeys(str(each["entity"]) for each in edits))
        lines += [
            "",
            *_before_and_after(str(shown["text"]), shown, names, width),
            "",
            "the same stated before the text, nothing edited",
            *_wrapped(str(shown["stated"]), width),
        ]
        for each in edits:
            what = f"{each['relation']} of {each['entity']}"
            lines += _probabilities(each, f"probability of the next word: {what}")
    return [visible(line, one_line=True) for line in lines]


def _before_and_after(text: str, written: JsonObject, edited: str, width: int) -> list[str]:
    titles = ("before", f"after: {edited} edited")
    return [
        f"{visible(text, one_line=True)} …",
        "",
        *columns(str(written["before"]), str(written["after"]), titles, width),
    ]


def _probabilities(edit: JsonObject, title: str) -> list[str]:
    """What moved, of the edit's old and new object; nothing where it was not measured."""
    found = edit["probabilities"]
    if not isinstance(found, dict):
        return []
    return [
        "",
        title,
        *(
            moved(
                str(edit[f"{which}_object"]),
                _number(found[f"{which}_before"]),
                _number(found[f"{which}_after"]),
            )
            for which in ("old", "new")
        ),
    ]


def _objects(value: JsonValue) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _wrapped(text: str, width: int) -> list[str]:
    lines = visible(text.strip()).splitlines() or ["(nothing)"]
    return [part for line in lines for part in textwrap.wrap(line, width) or [""]]


def _bar(probability: float) -> str:
    return f"{'█' * round(probability * _BAR):<{_BAR}}"


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
