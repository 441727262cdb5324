"""Interval plots in text: value and whisker, the control, and what the prediction demanded."""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from dragoman.agent.rendering.intervals import Panel, Row
from dragoman.tui.widgets.safe_text import shown

_CELLS = 41


class IntervalPlot(Static):
    """One axis for the effects of one unit; a row of marks under each effect's name."""

    def __init__(self, panels: Sequence[Panel]) -> None:
        lines = [line for panel in panels for line in _panel(panel)]
        super().__init__(Content("\n").join(lines), markup=False, classes="plot")


def _panel(panel: Panel) -> list[Content]:
    lines: list[Content] = []
    for row in panel.rows:
        measurement = row.measurement
        lines.append(
            Content.assemble(
                shown(measurement.metric, one_line=True, limit=60),
                shown(f"  {measurement.scope}", "$text-muted", one_line=True, limit=60),
            )
        )
        lines.append(_row(row))
    first, last = panel.ticks[0].label, panel.ticks[-1].label
    unit = panel.unit.center(_CELLS - len(first) - len(last))
    lines.append(Content.styled(f"{first}{unit}{last}", "$text-muted"))
    return lines


def _row(row: Row) -> Content:
    cells = [("·", "$text-disabled")] * _CELLS
    low, high = _cell(row.low), _cell(row.high)
    for place in range(low, high + 1):
        cells[place] = ("━", "$primary")
    for mark, at, style in (
        ("│", row.threshold, "$text-warning"),
        ("○", row.control, "$text-secondary"),
        ("●", row.value, "bold $text-primary"),
    ):
        if at is not None:
            cells[_cell(at)] = (mark, style)
    return Content.assemble(*cells)


def _cell(percent: float) -> int:
    return min(max(round(percent / 100 * (_CELLS - 1)), 0), _CELLS - 1)
