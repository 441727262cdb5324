"""Plots of methods and of sweeps as SVG, the same to the byte for the same numbers."""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
from matplotlib.figure import Figure

from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject
from dragoman.tools.editing.sweep import SweepRow

_METRICS = {
    "efficacy": ("efficacy", "#0b5394"),
    "paraphrase_efficacy": ("paraphrase efficacy", "#6fa8dc"),
    "neighbourhood_specificity": ("neighbourhood specificity", "#b45f06"),
}

_TRADED = {
    **_METRICS,
    "essence": ("essence", "#38761d"),
    "fluency": ("fluency, of unedited", "#8e7cc3"),
}


def draw_methods(title: str, rows: JsonObject) -> str:
    """Grouped bars of each method's figures (`measuring.table`), in fractions."""
    with _reproducible():
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
        return _svg(figure)


def draw_sweep(title: str, rows: Sequence[SweepRow]) -> str:
    """The trade of strength, a panel for each layer: the editor's figures and harmonic means."""
    with _reproducible():
        figure = Figure(figsize=(1.7 * max(3, len(rows)), 2.9), layout="constrained")
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        for axes, row in zip(panels, rows, strict=True):
            places = [trial.strength for trial in row.editor]
            for key, (label, colour) in _TRADED.items():
                heights = [getattr(trial, key) for trial in row.editor]
                axes.plot(places, heights, marker="o", ms=3, lw=1, color=colour, label=label)
            for trials, colour, label in (
                (row.editor, "#000000", "harmonic mean"),
                (row.mean_difference, "#999999", "harmonic mean of the mean difference"),
            ):
                axes.plot(
                    [trial.strength for trial in trials],
                    [trial.score for trial in trials],
                    marker="s",
                    ms=3,
                    lw=2,
                    color=colour,
                    label=label,
                )
            axes.set(ylim=(0, 1.03), xlabel="strength")
            axes.set_title(f"layer {row.layer}", fontsize=9)
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("fraction, cosine")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(visible(title, one_line=True), fontsize=10, parse_math=False)
        return _svg(figure)


def _reproducible() -> AbstractContextManager[None]:
    # A fixed salt and no date: element ids and file are the same for the same numbers.
    return matplotlib.rc_context(
        {"svg.hashsalt": "dragoman", "svg.fonttype": "none", "font.size": 9}
    )


def _svg(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "Dragoman"})
    return written.getvalue()


def _heights(rows: JsonObject, key: str) -> Sequence[float]:
    """0 where a method has no such figure."""
    values = [row.get(key) if isinstance(row, dict) else None for row in rows.values()]
    return [float(value) if isinstance(value, int | float) else 0.0 for value in values]
