"""Measurements: what was measured, how surely, of how many, beside which control."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from textual import events
from textual.content import Content
from textual.widgets import Static

from dragoman.agent.rendering.numbers import (
    control,
    decimals,
    interval,
    number,
    sample,
    value,
)
from dragoman.core.records import Measurement
from dragoman.tui.widgets.safe_text import block, shown

_TABLE_FROM = 76
"""Cells from which on columns are easier to read than two lines for each measurement."""


class MeasurementTable(Static):
    """A row for each measurement, or two lines where it is narrow; beyond `most`, their count."""

    def __init__(self, measurements: Sequence[Measurement], *, most: int = 500) -> None:
        super().__init__(markup=False, classes="measurements")
        self._measurements = measurements[:most]
        self._left_out = len(measurements) - len(self._measurements)
        self._width = 0

    def on_resize(self, event: events.Resize) -> None:
        """Lay out anew when the width has changed; the height follows from it."""
        if event.size.width != self._width:
            self._width = event.size.width
            wide = self._width >= _TABLE_FROM
            self.update(self._as_table() if wide else self._as_lines())

    def _as_table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("metric")
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("95% interval", no_wrap=True)
        table.add_column("n", no_wrap=True)
        table.add_column("control")
        for each in self._measurements:
            scope = block(each.scope, "dim", limit=200)
            failed = f" ({each.n_failed} failed)" if each.n_failed else ""
            table.add_row(
                Text.assemble(block(each.metric, limit=200), "  " if scope else "", scope),
                Text(value(each), style="bold"),
                interval(each),
                f"{each.n}{failed}",
                Text.assemble(
                    number(each.baseline, decimals(each)),
                    "  ",
                    block(each.control, "dim", limit=200),
                ),
            )
        if self._left_out:
            table.add_row(Text(f"… and {self._left_out} more", style="dim"))
        return table

    def _as_lines(self) -> Content:
        lines: list[Content] = []
        for each in self._measurements:
            scope = shown(each.scope, "$text-muted", one_line=True, limit=200)
            lines.append(
                Content.assemble(shown(each.metric, one_line=True, limit=200), "  ", scope)
            )
            lines.append(
                Content.assemble(
                    (f"  {value(each)}", "bold"),
                    f" {interval(each)}, {sample(each)}, against ",
                    shown(control(each), one_line=True, limit=240),
                )
            )
        if self._left_out:
            lines.append(Content.styled(f"… and {self._left_out} more", "$text-muted"))
        return Content("\n").join(lines)
