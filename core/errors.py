"""Every error that Dragoman raises on purpose, and the exit code it leads to.

    DragomanError
    ├── UserError            2   the input was wrong; the person must change it
    ├── ToolError            -   the agent must change its arguments; never ends a run by itself
    ├── ChatError            4   the chat endpoint could not be used
    │   └── ImagesRefused    -   it reads text only; tools go on without it
    ├── LimitReached         3   a budget ended the run; a partial report exists
    ├── Interrupted        130   Ctrl-C, Esc or a signal; the run can be resumed
    └── IntegrityError       2   a stored file is damaged or does not match its digest

A bug is none of these and keeps its traceback.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a `dragoman` process returns; the same for every command."""

    DONE = 0
    GATE_FAILED = 1
    WRONG_INPUT = 2
    LIMIT_REACHED = 3
    CHAT_UNUSABLE = 4
    INTERRUPTED = 130


class DragomanError(Exception):
    """Root of the deliberate errors; the message is one line that says what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.WRONG_INPUT


class UserError(DragomanError):
    """Wrong input: a path, a name, a specification."""


class ToolError(DragomanError):
    """A tool cannot do what its arguments ask; the message names the valid range."""


class ChatError(DragomanError):
    """The chat model could not be reached or broke its protocol beyond repair."""

    exit_code: ClassVar[ExitCode] = ExitCode.CHAT_UNUSABLE


class ImagesRefused(ChatError):
    """The chat model takes no images; it can still be asked in words."""


class LimitReached(DragomanError):
    """A budget (steps, tokens, minutes, cost) would be exceeded by the next call."""

    exit_code: ClassVar[ExitCode] = ExitCode.LIMIT_REACHED


class Interrupted(DragomanError):
    """The person asked to stop; everything finished so far is in the ledger."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERRUPTED


class IntegrityError(DragomanError):
    """A stored file is damaged, or is not the file that its digest names."""
