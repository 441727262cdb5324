"""The sweep over layers as one SVG, the same to the byte for the same numbers."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement
from dragoman.tools.circuits.selection import Setting

# A fixed salt and no date: element ids and file are the same for the same numbers.
_STYLE: Any = {"svg.hashsalt": "dragoman", "svg.fonttype": "none", "font.size": 9}


class Panel(NamedTuple):
    """One metric over the layers."""

    metric: str
    sweep: Sequence[Setting]
    chosen: Setting
    measured: Measurement


def draw_ranks(title: str, by_rank: Sequence[Mapping[int, float]]) -> str:
    """Causality over the rank of the inverse, on test facts, one line a split."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.1), layout="constrained")
        figure.suptitle(visible(title, one_line=True), fontsize=10, parse_math=False)
        axes = figure.subplots()
        for split in by_rank:
            axes.plot(list(split), list(split.values()), color="#0b5394", marker=".", alpha=0.5)
        axes.set(xlabel="rank of the inverse", ylabel="causality (fraction)", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        return _written(figure)


def draw_sweep(title: str, panels: Sequence[Panel]) -> str:
    """What validation facts say at each layer, and what test facts say at the chosen one."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 3.1), layout="constrained")
        figure.suptitle(visible(title, one_line=True), fontsize=10, parse_math=False)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _draw_panel(axes, panel)
        return _written(figure)


def _written(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": "Dragoman"})
    return written.getvalue()


def _draw_panel(axes: Axes, panel: Panel) -> None:
    layers = [setting.layer for setting in panel.sweep]
    shares = [setting.share for setting in panel.sweep]
    control = [setting.control_share for setting in panel.sweep]
    measured = panel.measured
    low, high = measured.ci95
    axes.plot(layers, shares, color="#0b5394", marker=".", label="validation facts")
    axes.plot(layers, control, color="#888888", linestyle="--", label="their control")
    axes.errorbar(
        [panel.chosen.layer],
        [measured.value],
        yerr=[[measured.value - low], [high - measured.value]],
        color="#b45f06",
        marker="o",
        capsize=3,
        linestyle="none",
        label=f"test facts (n={measured.n})",
    )
    axes.set(xlabel="layer", ylabel=f"{panel.metric} (fraction)", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=7)
