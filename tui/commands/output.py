"""Where a command's words go: results to standard output, everything else to standard error."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from pydantic import JsonValue
from typer import Context

from dragoman.core.escaping import visible


def examples(*lines: str) -> str:
    """An epilog with one example command on each line."""
    # click re-wraps a paragraph unless it begins with this mark.
    return "\n".join(
        ["\b", "Example:" if len(lines) == 1 else "Examples:", *map("  ".__add__, lines)]
    )


def emit(text: str) -> None:
    """Write a line (or several) to standard output; a reader that has gone away is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more on the way out: let that go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def emit_text(text: str) -> None:
    """Prose that may hold foreign text, with hidden characters spelled out."""
    emit(visible(text))


def emit_json(value: JsonValue) -> None:
    """Exactly one JSON value; ASCII, so that no foreign character reaches a terminal raw."""
    emit(json.dumps(value, indent=2, allow_nan=False))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Aligned columns, or the sentence `empty` where there are no rows."""
    if not rows:
        emit(empty)
        return
    cells = [list(header), *([visible(cell, one_line=True) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        emit("  ".join(padded).rstrip())


def say(text: str) -> None:
    """A remark on standard error."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """The one line that stands for an error."""
    say(f"error: {visible(text, one_line=True)}")


@contextmanager
def results_only() -> Iterator[None]:
    """Send whatever libraries print to standard error, be it from Python or from C."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # Started with standard output closed: there is nothing to protect.
        yield
        return
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def help_without_command(context: Context) -> None:
    """Callback of a group: called alone, it shows what it can do."""
    if context.invoked_subcommand is None:
        emit(context.get_help())


def megabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e6:,.0f} MB"
