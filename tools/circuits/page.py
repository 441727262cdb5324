"""A batch of relations as one self-contained page: no script, no request.

Every value that the template prints passes `visible` and then autoescaping; the exception is our
own style sheet, which the page's policy admits by its sha256. Plots are part of the page.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic
from dragoman.core.records import Measurement, ToolResult
from dragoman.tools.circuits.batch import RelationRow
from dragoman.tools.circuits.table import METRICS

PAGE_FILE = "relations.html"
MOST_BYTES = 512 * 1024
"""A larger plot is left out: dozens of relations share the page."""
_FOLDER = Path(__file__).resolve().parent


class Bar(NamedTuple):
    """One measurement with its marks in percent of the cell's width."""

    measured: Measurement
    value: float
    low: float
    width: float
    baseline: float


def write_page(out: Path, rows: Sequence[RelationRow], title: str, home: Path) -> Path:
    """Make `relations.html`; plots are read from `home`, the data folder."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            rows=sorted(rows, key=_order),
            metrics=METRICS,
            bar=_bar,
            plot=lambda result: _plot(result, home),
            # Markup: a file of ours that holds no foreign text.
            style=Markup(style),
            style_sha256=digest,
        )
    )
    write_atomic(out / PAGE_FILE, page)
    return out / PAGE_FILE


def _order(row: RelationRow) -> tuple[bool, float, str]:
    """Most faithful first; what could not be judged after that, then files at fault."""
    measured = None if row.result is None else row.result.measurement("faithfulness")
    return row.result is None, -measured.value if measured else 1.0, row.file


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    return value if isinstance(value, Markup) else visible(str(value), one_line=True)


def _bar(row: RelationRow, metric: str) -> Bar | None:
    measured = None if row.result is None else row.result.measurement(metric)
    if measured is None:
        return None
    low, high = measured.ci95
    return Bar(
        measured,
        round(100 * measured.value, 2),
        round(100 * low, 2),
        round(100 * (high - low), 2),
        round(100 * measured.baseline, 2),
    )


def _plot(result: ToolResult | None, home: Path) -> str:
    """The first SVG of a result as a `data:` URI; empty where it is missing or changed."""
    for artifact in () if result is None else result.artifacts:
        if artifact.media_type != "image/svg+xml":
            continue
        try:
            content = (home / artifact.path).read_bytes()
        except OSError:
            return ""
        if len(content) > MOST_BYTES or hashlib.sha256(content).hexdigest() != artifact.sha256:
            return ""
        return f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}"
    return ""
