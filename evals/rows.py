"""Lines of a jsonl file that survive a stop at any moment: one finished piece of work each."""

import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic
from dragoman.core.settings import Settings

RowT = TypeVar("RowT", bound=BaseModel)


def kept_rows(name: str, settings: Settings) -> Path:
    """Where an eval of ours keeps its rows: `docs/evals` of a checkout that has some already, so
    that no one has to count them again; else the data folder.
    """
    kept = Path(__file__).resolve().parents[1] / "docs" / "evals" / f"{name}.jsonl"
    return kept if kept.exists() else settings.home / "evals" / f"{name}.jsonl"


def append_line(path: Path, line: str) -> None:
    """Append one line, on a line of its own even after a line that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as opened:
        opened.seek(0)
        text = opened.read()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            opened.truncate(len(whole.encode()))
        opened.write(f"{line}\n")


def read_lines(path: Path, kind: type[RowT], key: Callable[[RowT], Hashable]) -> list[RowT]:
    """The rows of earlier runs, the latest of each key; none if there is no such file.

    A last line that was cut off by a stop is left out.

    Raises:
        ValueError: another line is no row; the path and the line's number are named.
    """
    if not path.exists():
        return []
    rows: dict[Hashable, RowT] = {}
    # A text may hold other marks that end a line; only this one ends a row.
    lines = path.read_text("utf-8").split("\n")
    lines = lines if lines[-1] else lines[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            row = kind.model_validate_json(line)
        except ValidationError:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is no row of this eval") from None
        rows[key(row)] = row
    return list(rows.values())


def publish(text: str, out: Path | None) -> None:
    """Print a finished table, and write it to `out` if a file was named."""
    if out is not None:
        write_atomic(out, text)
    sys.stdout.write(f"{visible(text)}\n")
    sys.stdout.flush()
