"""Efficacy and specificity of each method as one SVG, the same to the byte for the same numbers."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject

_METRICS = {
    "efficacy": ("efficacy", "#0b5394"),
    "paraphrase_efficacy": ("paraphrase efficacy", "#6fa8dc"),
    "neighbourhood_specificity": ("neighbourhood specificity", "#b45f06"),
}


def draw_methods(title: str, rows: JsonObject) -> str:
    """Grouped bars of each method's figures (`measuring.table`), in fractions."""
    # A fixed salt and no date: element ids and file are the same for the same numbers.
    with matplotlib.rc_context(
        {"svg.hashsalt": "dragoman", "svg.fonttype": "none", "font.size": 9}
    ):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(_METRICS)
        for offset, (key, (label, colour)) in enumerate(_METRICS.items()):
            heights = _heights(rows, key)
            places = [index + (offset - 1) * width for index in range(len(heights))]
            axes.bar(places, heights, width, label=label, color=colour)
        axes.set_xticks(range(len(rows)), [name.replace(" of ", "\nof ") for name in rows])
        axes.set(ylim=(0, 1.03), ylabel="fraction")
        axes.set_title(visible(title, one_line=True), fontsize=10, parse_math=False)
        axes.grid(axis="y", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=len(_METRICS), frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "Dragoman"})
    return written.getvalue()


def _heights(rows: JsonObject, key: str) -> Sequence[float]:
    """0 where a method has no such figure."""
    values = [row.get(key) if isinstance(row, dict) else None for row in rows.values()]
    return [float(value) if isinstance(value, int | float) else 0.0 for value in values]
