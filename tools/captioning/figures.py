"""Detection beside its floor, unit by unit, as an SVG that is the same byte for byte."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dragoman.core.records import Measurement


def detection_plot(measurements: Sequence[Measurement], captioned: Sequence[bool]) -> str:
    """One row a unit: detection with its interval, and the shuffled-caption floor."""
    figure = Figure(figsize=(6.4, 1.4 + 0.32 * len(measurements)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    rows = range(len(measurements))
    for row, measurement, holds in zip(rows, measurements, captioned, strict=True):
        colour = "#1f6feb" if holds else "#8b949e"
        axes.plot(measurement.ci95, (row, row), color=colour, linewidth=2)
        axes.plot(measurement.value, row, "o", color=colour)
        axes.plot(measurement.baseline, row, "|", color="#d1242f", markersize=12, markeredgewidth=2)
    axes.plot([], [], "o-", color="#1f6feb", label="detection, 95% interval (beats its floor)")
    axes.plot([], [], "o-", color="#8b949e", label="detection, 95% interval (does not)")
    axes.plot(
        [],
        [],
        "|",
        color="#d1242f",
        markersize=12,
        markeredgewidth=2,
        label="floor: shuffled captions",
    )
    axes.axvline(0.5, color="#d0d7de", linewidth=1, zorder=0)
    axes.set_yticks(list(rows), [measurement.scope for measurement in measurements])
    axes.invert_yaxis()
    axes.set_xlim(0.2, 1.0)
    axes.set_xlabel("balanced accuracy on held-out contexts")
    figure.legend(loc="outside upper left", fontsize="small", frameon=False)
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dragoman", "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
