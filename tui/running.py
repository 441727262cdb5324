"""One question under way in a thread of its own, which never keeps the program from ending.

The thread is a daemon and not a Textual worker: those run in asyncio's executor, whose threads
the interpreter joins on exit, and a thread inside a tensor operation cannot be interrupted.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dragoman.agent.reporting import Damaged
from dragoman.core.events import ChatText, EventSink, RunEvent, ToolProgress
from dragoman.core.protocols import Cancelled
from dragoman.core.report import Report, ReportRow


class Runner(Protocol):
    """What answers a question: an audit, or a recording of one."""

    def __call__(self, question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
        """Answer; blocks, may raise any `DragomanError`."""
        ...


class ReportSource(Protocol):
    """Where finished reports are."""

    def rows(self) -> list[ReportRow]:
        """All readable reports, latest first."""
        ...

    def damaged(self) -> Sequence[Damaged]:
        """The others, each with the reason."""
        ...

    def load(self, report_id: str, /) -> Report:
        """One report; a `DragomanError` says in a line why it cannot be read."""
        ...


@dataclass(frozen=True)
class Ended:
    """The last thing that comes out of a run."""

    outcome: Report | BaseException


Arrival: TypeAlias = RunEvent | Ended


class Running:
    """A question on its way: events are collected in the thread and drained by the screen."""

    def __init__(self, runner: Runner, question: str, wake: Callable[[], object]) -> None:
        self.question = question
        self._runner = runner
        self._wake = wake
        self._cancel = threading.Event()
        self._arrivals: list[Arrival] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="question", daemon=True)

    def start(self) -> None:
        """Begin; `wake` is called from the thread whenever there is something to drain."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask the run to stop at its next step; returns at once."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancel.is_set()

    @property
    def alive(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait for the thread, but no longer than that."""
        self._thread.join(seconds)

    def drain(self) -> list[Arrival]:
        """What has arrived since the last call, in order."""
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _work(self) -> None:
        outcome: Report | BaseException
        try:
            outcome = self._runner(self.question, on_event=self._put, cancelled=self._cancel.is_set)
        except BaseException as error:  # reported on the screen: this thread has nobody else
            outcome = error
        self._put(Ended(outcome))

    def _put(self, arrival: Arrival) -> None:
        with self._lock:
            asleep = not self._arrivals
            merged = None if asleep else _merged(self._arrivals[-1], arrival)
            if merged is None:
                self._arrivals.append(arrival)
            else:
                self._arrivals[-1] = merged
        if asleep:
            with suppress(RuntimeError):  # the person has quit and the event loop is closed
                self._wake()


def _merged(last: Arrival, new: Arrival) -> Arrival | None:
    """Both as one, where the screen has not caught up and would show no more of two."""
    match last, new:
        case ChatText(), ChatText():
            return ChatText(text=last.text + new.text)
        case ToolProgress(), ToolProgress() if last.experiment_id == new.experiment_id:
            return new
        case _:
            return None


class LazyRunner:
    """A runner that is built when the first question is asked, in that question's thread.

    So the first frame waits for no weights, and imports no torch.
    """

    def __init__(self, build: Callable[[EventSink], Runner]) -> None:
        self._build = build
        self._runner: Runner | None = None

    def __call__(self, question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
        """Build once, then answer."""
        if self._runner is None:
            self._runner = self._build(on_event)
        return self._runner(question, on_event=on_event, cancelled=cancelled)
