"""What a person sees on standard error while something runs, on a terminal or in a log file."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dragoman.core.escaping import visible
from dragoman.core.events import (
    AuditFinished,
    AuditStarted,
    ChatFinished,
    ChatText,
    ClaimMade,
    Notice,
    PhaseStarted,
    RunEvent,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from dragoman.core.protocols import Progress as ProgressCall
from dragoman.tui.commands.output import megabytes

_PANE = 400
_QUIET_SECONDS = 10.0
_STATUS_STYLE = {
    "replicated": "green",
    "intervention-supported": "green",
    "correlated": "yellow",
    "observed": "yellow",
    "inconclusive": "dim",
    "refuted": "red",
}


@contextmanager
def byte_progress() -> Iterator[ProgressCall]:
    """A progress bar in bytes on a terminal; elsewhere a line every ten seconds."""
    if not sys.stderr.isatty():
        shown_text, shown_at = "", 0.0

        def line(done: int, total: int, text: str) -> None:
            nonlocal shown_text, shown_at
            now = time.monotonic()
            if text != shown_text or now - shown_at >= _QUIET_SECONDS:
                shown_text, shown_at = text, now
                amount = f"  {megabytes(done)} of {megabytes(total)}" if total else ""
                sys.stderr.write(f"{visible(text, one_line=True)}{amount}\n")
                sys.stderr.flush()

        yield line
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def move(done: int, total: int, text: str) -> None:
            shown = visible(text, one_line=True)
            bar.update(task, completed=done, total=total or None, description=shown)

        yield move


class RunDisplay:
    """Renders the events of a run: lasting lines above, the moving part below.

    On a terminal the moving part shows the running tool with its bar, the chat model's text and
    the time; anywhere else there are only the lasting lines and a sign of life.
    """

    def __init__(self, console: Console) -> None:
        self.audit_id: str | None = None
        self.budget_minutes: float | None = None
        self._console = console
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._last_line = self._started
        self._tool: ToolProgress | None = None
        self._tool_name = ""
        self._text = ""
        self._tokens = 0
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.__exit__(kind, error, trace)

    def on_event(self, event: RunEvent) -> None:
        """Show one event; may be called from any thread."""
        with self._lock:
            line = self._take(event)
        if line is not None:
            self._last_line = time.monotonic()
            self._console.print(line, soft_wrap=not self._console.is_terminal)

    def say(self, text: str, style: str = "") -> None:
        """A lasting line of our own."""
        self._console.print(Text(visible(text), style=style), soft_wrap=True)

    def restore(self) -> None:
        """Give the terminal back as it was, for a process that is about to end."""
        if self._console.is_terminal:
            self._console.show_cursor(True)

    def _take(self, event: RunEvent) -> Text | None:
        """Remember what moves; return the line that stays, if any."""
        match event:
            case AuditStarted():
                self.audit_id = event.audit_id
                verb = "resuming" if event.resumed else "audit"
                return _line(f"{verb} {event.audit_id}", f"{event.subject} · {event.chat}", "bold")
            case PhaseStarted():
                self._text = ""
                return _line(f"● {event.phase}", event.text, "cyan")
            case ChatText():
                self._text = (self._text + event.text)[-_PANE:]
            case ChatFinished():
                self._text = ""
                self._tokens += event.prompt_tokens + event.completion_tokens
            case ToolStarted():
                self._tool, self._tool_name = None, event.tool
                given = {
                    name: value for name, value in event.arguments.items() if value is not None
                }
                shown = ", ".join(f"{name}={value}" for name, value in given.items())
                return _line(f"  ▸ {event.tool}", shown, "blue")
            case ToolProgress():
                self._tool = event
                if not self._console.is_terminal and self._is_quiet():
                    return _line("   ", f"{event.text} {event.done}/{event.total or '?'}", "dim")
            case ToolFinished():
                self._tool, self._tool_name = None, ""
                wrong = event.result.status == "error"
                took = "from the ledger" if event.replayed else f"{event.seconds:.0f} s"
                mark = "  ✗" if wrong else "  ✓"
                return _line(mark, f"{event.result.summary} ({took})", "red" if wrong else "green")
            case ClaimMade():
                style = _STATUS_STYLE.get(event.claim.status, "")
                return _line(f"  ◆ {event.claim.status}", event.rendered, style)
            case Notice():
                return _line("  !", event.text, "yellow")
            case AuditFinished():
                self._tool, self._tool_name, self._text = None, "", ""
                return _line(f"● {event.outcome}", event.reason, "bold")
        return None

    def _is_quiet(self) -> bool:
        return time.monotonic() - self._last_line >= _QUIET_SECONDS

    def _render(self) -> RenderableType:
        with self._lock:
            rows: list[RenderableType] = []
            if self._tool_name:
                rows.append(self._tool_row())
            if self._text:
                pane = visible(self._text, one_line=True)
                width = max(20, self._console.width - 4)
                rows.append(Text(f"  {pane[-width:]}", style="dim", no_wrap=True))
            rows.append(Text(self._clock(), style="dim", no_wrap=True))
            return Group(*rows)

    def _tool_row(self) -> RenderableType:
        done, total, text = 0, 0, "starting"
        if self._tool is not None:
            done, total, text = self._tool.done, self._tool.total, self._tool.text
        row = Table.grid(padding=(0, 1))
        count = Text(f"{done}/{total}" if total else "")
        bar = ProgressBar(total=total or None, completed=done, width=24, pulse=not total)
        name = Text(f"  {visible(self._tool_name, one_line=True)}", style="blue")
        row.add_row(name, bar, count, Text(visible(text, one_line=True), no_wrap=True))
        return row

    def _clock(self) -> str:
        elapsed = time.monotonic() - self._started
        parts = [f"{_minutes(elapsed)} elapsed"]
        if self.budget_minutes is not None:
            parts.append(f"{_minutes(max(0.0, 60 * self.budget_minutes - elapsed))} left")
        if self._tokens:
            parts.append(f"{self._tokens:,} chat tokens")
        return f"  {' · '.join(parts)} · Ctrl-C stops"


def run_display() -> AbstractContextManager[RunDisplay]:
    """A display on the standard error of this moment."""
    return RunDisplay(Console(stderr=True))


def _line(head: str, body: str, style: str) -> Text:
    text = Text(visible(head, one_line=True), style=style)
    if body:
        text.append("  " + visible(body, one_line=True), style="default")
    return text


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
