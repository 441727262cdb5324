r"""The report as Markdown in which foreign text stays text.

Every value that the template prints passes `escape`: hidden characters are spelled out, newlines
too, and each character that CommonMark, tables or GitHub's extensions (links, mathematics,
strike-through) would take as markup gets a backslash. Commands and JSON stand in fences longer
than any run of backticks in them.
"""

import functools
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dragoman.agent.rendering import numbers
from dragoman.agent.rendering.prose import Filled, Words
from dragoman.agent.rendering.view import ClaimView, SentenceView, view
from dragoman.core.escaping import visible
from dragoman.core.records import Measurement
from dragoman.core.report import Report

_MARKUP = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")
_BARE_LINK = re.compile(r"(?<=[A-Za-z0-9])(:)(?=//)|(?<=www)(\.)|(@)", re.IGNORECASE)
_BLOCK_START = re.compile(r"^(?=[#+=-])|^(\d+)(?=[.)](?:\s|$))")


class Ready(str):
    """Markdown of our own making, printed as it is."""


def render_markdown(report: Report) -> str:
    """The Markdown of a sound report: tables and text, plots by name and digest."""
    return _environment().get_template("report.md.j2").render(view=view(report))


def escape(text: str) -> Ready:
    """`text` on one line, to be read by a person and by no Markdown parser."""
    shown = _MARKUP.sub(r"\\\g<0>", visible(text.strip(), one_line=True).replace("\t", " "))
    shown = _BARE_LINK.sub(r"\\\g<0>", shown)
    return Ready(_BLOCK_START.sub(r"\1\\", shown))


def fenced(text: str) -> Ready:
    """`text` in a code block that it cannot close."""
    body = visible(text)
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return Ready(f"{fence}\n{body}\n{fence}")


def code(text: str) -> Ready:
    """A short `text` in a code span that it cannot close; a table cell keeps it whole."""
    body = visible(text, one_line=True).replace("|", "\\x7c")
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    marks = "`" * (longest + 1)
    return Ready(f"{marks} {body} {marks}" if longest else f"`{body or ' '}`")


def phrase(measurement: Measurement) -> Ready:
    """`numbers.phrase` with the value in bold."""
    value, interval = numbers.value(measurement), numbers.interval(measurement)
    control = f"{numbers.baseline(measurement)} ({escape(measurement.control)})"
    return Ready(f"**{value}** {interval}, {numbers.sample(measurement)}, against {control}")


def _prose(filled: tuple[Filled, ...]) -> Ready:
    """A sentence with its numbers; the spaces around a number stay."""
    pieces = []
    for piece in filled:
        if isinstance(piece, Words):
            before = " " * piece.text[:1].isspace()
            after = " " * (piece.text[-1:].isspace() and not piece.text.isspace())
            pieces.append(f"{before}{escape(piece.text)}{after}")
        else:
            pieces.append(phrase(piece.measurement))
    return Ready("".join(pieces).strip())


def _cited(sentence: SentenceView) -> Ready:
    return Ready(" ".join(_citation(each) for each in sentence.citations))


def _citation(claim: ClaimView) -> Ready:
    """A link to a claim; a claim that fell says so wherever it is cited."""
    status = claim.claim.status
    fallen = f" {status}" if status in ("refuted", "inconclusive") else ""
    return Ready(f"[{claim.label}{fallen}](#{claim.label.lower()})")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent),
        # Not HTML: what HTML needs escaped, `escape` has escaped already.
        autoescape=False,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(
        numbers=numbers,
        phrase=phrase,
        prose=_prose,
        cited=_cited,
        citation=_citation,
        fenced=fenced,
        code=code,
    )
    environment.filters["ready"] = Ready
    return environment


def _shown(value: Any) -> str:
    return value if isinstance(value, Ready) else escape(str(value))
