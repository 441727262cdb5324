"""What the evals print: progress, and the finished page."""

import sys
from pathlib import Path
from typing import TextIO

from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic


def say(stream: TextIO, text: str) -> None:
    """Print at once; control characters are shown, not obeyed."""
    stream.write(f"{visible(text)}\n")
    stream.flush()


def publish(page: str, out: Path | None) -> None:
    """Print a finished page, and write it to `out` if a file was named."""
    if out is not None:
        write_atomic(out, page)
    say(sys.stdout, page)
