"""Ctrl-C twice: the first asks the run to stop at its next step, the second insists."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dragoman.core.errors import ExitCode
from dragoman.core.protocols import Cancelled

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable(on_first: Callable[[], None], on_second: Callable[[], None]) -> Iterator[Cancelled]:
    """Inside the block a signal sets the yielded `Cancelled`; a second one ends the process.

    Everything finished is in the ledger by then, so ending at once loses only the running step.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            on_second()
            os._exit(ExitCode.INTERRUPTED)
        asked = True
        on_first()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
