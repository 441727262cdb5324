"""`dragoman chat`: the Textual program around the chat and the shelf of reports."""

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.segment import Segments
from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from dragoman.core.errors import ExitCode
from dragoman.core.escaping import visible
from dragoman.core.events import EventSink
from dragoman.tui.running import LazyRunner, ReportSource, Runner
from dragoman.tui.screens.chat import ChatScreen
from dragoman.tui.screens.report import ReportScreen
from dragoman.tui.screens.reports import ReportsScreen
from dragoman.tui.theme import DARK, LIGHT

_GRACE_SECONDS = 0.7
"""How long the run, and after it `close`, may take once the person has quit; then the process ends
anyway, so that quitting takes less than 2 s."""


class DragomanApp(App[None], inherit_bindings=False):
    """Renders what a runner emits and what a shelf holds; decides nothing."""

    TITLE = "Dragoman"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2,ctrl+r", "reports", "Reports", priority=True),
        Binding("ctrl+t", "turn_theme", "Light/dark", priority=True),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(
        self,
        runner: Runner,
        reports: ReportSource,
        subject_label: str,
        chat_label: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.chat = ChatScreen(runner, subject_label, chat_label, clock)
        self._reports = reports
        self._labels = (subject_label, chat_label)
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[None]:
        """The chat lies under everything."""
        return self.chat

    def on_mount(self) -> None:
        """Leave by the front door on SIGTERM and SIGHUP too: the terminal is put back in order."""
        if not self.is_headless and threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._quit)

    async def action_quit(self) -> None:
        """End now; a running question is asked to stop, and not waited for here."""
        self._quit()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The shelf is offered where it is not in view already."""
        return action != "reports" or not isinstance(self.screen, ReportsScreen | ReportScreen)

    def action_reports(self) -> None:
        """Show the shelf."""
        self.push_screen(ReportsScreen(self._reports, *self._labels))

    def action_turn_theme(self) -> None:
        """The other theme."""
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def _quit(self) -> None:
        self.chat.leave()
        self.exit()

    def _fatal_error(self) -> None:
        """A bug's traceback without the values of variables: among them may be a key."""
        self.bell()
        text = Text(visible(traceback.format_exc()), style="red")
        self._exit_renderables.append(Segments(self.console.render(text, self.console.options)))
        self._close_messages_no_wait()


def run_app(
    build: Callable[[EventSink], Runner],
    reports: ReportSource,
    *,
    subject_label: str,
    chat_label: str,
    close: Callable[[], None] = lambda: None,
) -> ExitCode:
    """Run the TUI until the person quits.

    Args:
        build: Makes the runner: imports, weights and connections belong here. Called once, when
            the first question is asked, in that question's thread. A `DragomanError` from it is
            shown, and the next question tries again.
        reports: The shelf; imports no torch.
        subject_label: The subject's name, as the title shows it.
        chat_label: The chat model's name, as the title shows it.
        close: Lets go of what `build` acquired; called once, on the way out, and given less than
            a second.

    Returns:
        `ExitCode.DONE`; where a bug ended the program, 1 as after any uncaught exception. Does
        not return where a tensor operation still holds the run's thread: the process then ends
        by `os._exit`, because threads inside native code must not outlive the interpreter.
    """
    app = DragomanApp(LazyRunner(build), reports, subject_label, chat_label)
    app.run()
    running = app.chat.running
    closing = threading.Thread(target=close, name="close", daemon=True)
    if running is not None:
        running.cancel()
        running.join(_GRACE_SECONDS)
    closing.start()
    closing.join(_GRACE_SECONDS)
    code = ExitCode(app.return_code or ExitCode.DONE)
    if closing.is_alive() or (running is not None and running.alive):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
