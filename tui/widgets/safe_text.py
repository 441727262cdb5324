"""The one way by which text reaches the screen: escaped, and never read as markup.

Textual passes OSC and CSI sequences of its content through to the terminal, and reads `[...]` in
plain strings as markup. So every string that we did not write ourselves (questions, names,
subject text, chat text, error messages) becomes a `Content` or a rich `Text` here and nowhere
else; the widgets take only those.
"""

import json

from pydantic import JsonValue
from rich.text import Text
from textual.content import Content
from textual.style import Style

from dragoman.core.escaping import visible

LONGEST = 20_000
"""Characters of one piece of foreign text that are laid out; the rest is counted, not shown."""


def shown(
    text: str, style: str | Style = "", *, one_line: bool = False, limit: int = LONGEST
) -> Content:
    """`text` as content: hidden characters spelled out, `[` and `]` just brackets."""
    return Content.styled(_plain(text, one_line, limit), style)


def cell(text: str, style: str = "", *, cells: int = 120) -> Text:
    """`text` as one table cell: a single line of at most that width, never markup."""
    made = Text(_plain(text[: 2 * cells], True, LONGEST), style=style, no_wrap=True, end="")
    made.truncate(cells, overflow="ellipsis")
    return made


def block(text: str, style: str = "", *, limit: int = LONGEST) -> Text:
    """`text` as a table cell that may wrap, never markup."""
    return Text(_plain(text, False, limit), style=style, end="")


def value(argument: JsonValue, *, limit: int = LONGEST) -> Content:
    """A JSON value as a person reads it: strings bare, all else as JSON."""
    if isinstance(argument, str):
        return shown(argument, limit=limit)
    return shown(json.dumps(argument, ensure_ascii=False), limit=limit)


def _plain(text: str, one_line: bool, limit: int) -> str:
    cut = len(text) - limit
    kept = visible(text[:limit] if cut > 0 else text, one_line=one_line).expandtabs(4)
    return f"{kept} … ({cut:,} more characters)" if cut > 0 else kept
