"""The progress of a batch on standard error: units done, their rate, the time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from dragoman.core.escaping import visible
from dragoman.core.events import Notice, RunEvent

if TYPE_CHECKING:
    from dragoman.tools.captioning.batch import Pace

_QUIET_SECONDS = 10.0


class BatchDisplay:
    """A bar of units above the step that is at work; in a log file a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=console,
            transient=True,
        )
        self._units = self._bars.add_task("units", total=None, pace="", visible=False)
        self._step = self._bars.add_task("", total=None, pace="", visible=False)
        self._said_at = -_QUIET_SECONDS

    def start(self) -> None:
        """Take over the terminal's last lines, where there is a terminal."""
        if self._console.is_terminal:
            self._bars.start()

    def restore(self) -> None:
        """Give the terminal back."""
        if self._console.is_terminal:
            self._bars.stop()

    def say(self, text: str) -> None:
        """A lasting line."""
        self._console.print(Text(visible(text, one_line=True)), soft_wrap=True)

    def on_event(self, event: RunEvent) -> None:
        """Of a workbench's events only remarks concern a batch."""
        if isinstance(event, Notice):
            self.say(event.text)

    def on_progress(self, done: int, total: int, text: str) -> None:
        """The step at work, within the units."""
        shown = visible(text, one_line=True)
        self._bars.update(
            self._step, description=shown, completed=done, total=total or None, visible=True
        )
        if self._speaks():
            self.say(f"  {shown} {done}/{total or '?'}")

    def on_pace(self, pace: "Pace") -> None:
        """How many units are done, and how fast."""
        told = paced(pace)
        self._bars.update(
            self._units, completed=pace.done, total=pace.total, pace=told, visible=True
        )
        if pace.done == pace.total or self._speaks():
            self._said_at = time.monotonic()
            if not self._console.is_terminal:
                self.say(f"{pace.done} of {pace.total} units {told}".rstrip())

    def _speaks(self) -> bool:
        """Whether a log has been silent for long enough."""
        now = time.monotonic()
        if self._console.is_terminal or now - self._said_at < _QUIET_SECONDS:
            return False
        self._said_at = now
        return True


def paced(pace: "Pace") -> str:
    """'31.4 units a minute, 1 h 12 min left'; empty before anything is known."""
    if not pace.new:
        return ""
    left = pace.seconds_left or 0.0
    return f"{pace.units_a_minute:.1f} units a minute, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def batch_display() -> Iterator[BatchDisplay]:
    """A display on the standard error of this moment."""
    display = BatchDisplay(Console(stderr=True))
    display.start()
    try:
        yield display
    finally:
        display.restore()
