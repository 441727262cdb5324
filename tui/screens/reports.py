"""The shelf: all reports in a table, one to open."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from dragoman.agent.rendering.view import ReportView, view
from dragoman.agent.reporting import Damaged
from dragoman.core.errors import DragomanError
from dragoman.core.report import ReportRow
from dragoman.tui.running import ReportSource
from dragoman.tui.screens.report import ReportScreen
from dragoman.tui.widgets.safe_text import cell, shown
from dragoman.tui.widgets.status import OUTCOME_LOOKS
from dragoman.tui.widgets.title_bar import TitleBar

_OTHER_CELLS = 68
"""What a row takes besides the question, up to the time."""
_ID_CELLS = 28
"""What the id takes, where there is room for it."""


class ReportsScreen(Screen[None]):
    """Reads the shelf each time it is shown; reading happens beside the event loop."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back to the chat"),
        Binding("r", "read", "Read again"),
    ]

    def __init__(self, reports: ReportSource, subject_label: str, chat_label: str) -> None:
        super().__init__()
        self._reports = reports
        self._labels = (subject_label, chat_label)
        self._rows: list[ReportRow] = []

    def compose(self) -> ComposeResult:
        """Title, table, one line for what went wrong or is missing."""
        yield TitleBar(*self._labels)
        yield Static("Reports", classes="heading", markup=False)
        yield DataTable[Text](id="shelf", cursor_type="row", zebra_stripes=True)
        yield Static(id="message", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read for the first time."""
        table = self._table
        for name in ("question", "subject", "outcome", "claims", "finished", "id"):
            table.add_column(Text(name), key=name)
        self._say("reading …")
        self.action_read()

    def action_read(self) -> None:
        """Read the shelf again."""
        self._read()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#shelf", DataTable)

    @work(thread=True, exclusive=True, group="shelf")
    def _read(self) -> None:
        try:
            rows, damaged = self._reports.rows(), self._reports.damaged()
        except DragomanError as error:
            self.app.call_from_thread(self._say, str(error), failed=True)
        else:
            self.app.call_from_thread(self._fill, rows, damaged)

    def _fill(self, rows: list[ReportRow], damaged: Sequence[Damaged]) -> None:
        self._rows = rows
        table = self._table
        table.clear()
        room = self.size.width - _OTHER_CELLS
        room -= _ID_CELLS if room > 2 * _ID_CELLS else 0
        question_cells = min(max(room, 22), 80)
        for row in rows:
            look = OUTCOME_LOOKS[row.outcome]
            table.add_row(
                cell(row.question, cells=question_cells),
                cell(row.subject, cells=20),
                cell(f"{look.sign} {row.outcome}"),
                Text(str(row.n_claims), justify="right"),
                cell(row.finished.replace("T", " ")[:16]),
                cell(row.id, cells=40),
            )
        table.display = bool(rows)
        if rows:
            table.focus()
        if damaged:
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            first = damaged[0]
            self._say(f"report {first.id} cannot be read{more}: {first.reason}", failed=True)
        elif rows:
            self._say("")
        else:
            self._say("No reports yet: ask a question in the chat, its report will stand here.")

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        self._say("opening …")
        self._open(self._rows[event.cursor_row].id)

    @work(thread=True, exclusive=True, group="shelf")
    def _open(self, report_id: str) -> None:
        try:
            report = view(self._reports.load(report_id))
        except DragomanError as error:
            self.app.call_from_thread(self._say, str(error), failed=True)
        else:
            self.app.call_from_thread(self._show, report)

    def _show(self, report: ReportView) -> None:
        self._say("")
        self.app.push_screen(ReportScreen(report))

    def _say(self, text: str, *, failed: bool = False) -> None:
        message = self.query_one("#message", Static)
        message.display = bool(text)
        message.update(shown(text, "$text-error" if failed else "$text-muted", one_line=True))
