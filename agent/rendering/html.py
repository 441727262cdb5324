"""One self-contained page: no script, no request, a policy that forbids both.

Every value that a template prints passes `visible` and then autoescaping; the one exception is
our own style sheet, which the policy admits by its sha256.
"""

import base64
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dragoman.agent.rendering import numbers
from dragoman.agent.rendering.examples import Example, examples
from dragoman.agent.rendering.images import Image, image
from dragoman.agent.rendering.prose import Figure
from dragoman.agent.rendering.view import view
from dragoman.core.escaping import visible
from dragoman.core.records import Artifact
from dragoman.core.report import Report

FOLDER = Path(__file__).resolve().parent


def render_html(report: Report, home: Path) -> str:
    """The page of a sound report; plots are read from `home`, the data folder.

    Same report and same files, same bytes. Raises `ProseError` for a hole that nothing fills.
    """
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")

    def plot(artifact: Artifact) -> Image | None:
        return image(artifact, home)

    def edits(artifact: Artifact) -> list[Example]:
        return examples(artifact, home)

    page = _environment().get_template("report.html.j2")
    # Markup: the style sheet is a file of ours and holds no foreign text.
    return page.render(
        view=view(report), style=Markup(style), style_sha256=digest, plot=plot, edits=edits
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(numbers=numbers, moment=moment, block=_block)
    tests: dict[str, Callable[..., bool]] = {"figure": lambda piece: isinstance(piece, Figure)}
    environment.tests.update(tests)
    return environment


def _shown(value: Any) -> Any:
    """What the environment prints: our own markup as it is, everything else made visible."""
    return value if isinstance(value, Markup) else visible(str(value), one_line=True)


def _block(text: str) -> Markup:
    """Text for a `<pre>`, its newlines kept."""
    return escape(visible(text))


def moment(stamp: str) -> str:
    """'2026-03-01 10:15 UTC' of an ISO 8601 stamp in UTC; any other text as it is."""
    date, letter, rest = stamp.partition("T")
    if letter and rest.endswith(("+00:00", "Z")) and len(date) == 10:
        return f"{date} {rest[:5]} UTC"
    return stamp
