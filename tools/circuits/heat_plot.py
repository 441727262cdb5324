"""Heat maps over layers and tokens as SVG or PNG, the same to the byte for the same numbers."""

import io
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from dragoman.core.escaping import visible

_WRITTEN_TOKENS = 40
"""With more columns than this the words in the cells could not be read: colour alone then."""
_CELL_CHARACTERS = 9


def draw_heat(
    title: str,
    values: npt.NDArray[np.float64],
    columns: Sequence[str],
    rows: Sequence[str],
    legend: str,
    *,
    words: Sequence[Sequence[str]] | None = None,
    kind: Literal["svg", "png"] = "svg",
    span: tuple[float, float] = (0.0, 1.0),
    row_axis: str = "layer",
) -> bytes:
    """One coloured cell for each row (bottom to top) and column; NaN stays blank.

    Args:
        title: over the map.
        values: [row, column], coloured from white to blue over `span`.
        columns: labels, such as tokens.
        rows: labels, such as layers.
        legend: of the colour bar, with the unit.
        words: written into the cells.
        kind: format of the file.
        span: values outside it take the colour of its ends.
        row_axis: what the rows are.
    """
    count_rows, count_columns = values.shape
    # A fixed salt and no date: element ids and file are the same for the same numbers.
    with matplotlib.rc_context(
        {"svg.hashsalt": "dragoman", "svg.fonttype": "none", "font.size": 8}
    ):
        width = max(4.5, 1.6 + min(count_columns, _WRITTEN_TOKENS) * 0.62)
        figure = Figure(figsize=(width, max(2.6, 1.2 + count_rows * 0.19)), layout="constrained")
        axes = figure.subplots()
        axes.set_title(_plain(title, 120), fontsize=10, parse_math=False)
        image = axes.imshow(
            values, aspect="auto", origin="lower", cmap="Blues", vmin=span[0], vmax=span[1]
        )
        axes.set_xticks(range(count_columns))
        axes.set_xticklabels(
            [_plain(each, 16) for each in columns], rotation=60, ha="right", parse_math=False
        )
        axes.set_yticks(range(count_rows))
        axes.set_yticklabels([_plain(each, 24) for each in rows], fontsize=6, parse_math=False)
        axes.set_ylabel(row_axis)
        if words is not None and count_columns <= _WRITTEN_TOKENS:
            middle = (span[0] + span[1]) / 2
            for row, line in enumerate(words):
                for column, word in enumerate(line):
                    axes.text(
                        column,
                        row,
                        _plain(word, _CELL_CHARACTERS),
                        ha="center",
                        va="center",
                        fontsize=5,
                        color="white" if values[row, column] > middle else "black",
                        parse_math=False,
                    )
        figure.colorbar(image, ax=axes, label=legend, shrink=0.7)
        written = io.BytesIO()
        made = {"Date": None, "Creator": "Dragoman"} if kind == "svg" else {"Software": None}
        figure.savefig(written, format=kind, metadata=made, dpi=150)
    return written.getvalue()


def _plain(text: str, limit: int) -> str:
    """A token as a label: hidden characters spelled out, and short."""
    shown = visible(text.strip() or repr(text), one_line=True)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
