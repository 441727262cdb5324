"""Lines of a jsonl file that survive a stop at any moment: one finished piece of work each."""

import sys
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dragoman.core.escaping import visible
from dragoman.core.records import Record
from dragoman.core.settings import Settings


class EvalRow(Record):
    """One finished piece of work of an eval."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """What makes two rows the same piece of work."""

    @property
    def told(self) -> str:
        """What is said of it once it is finished."""
        return str(self.key)


RowT = TypeVar("RowT", bound=EvalRow)


def kept_rows(name: str, settings: Settings) -> Path:
    """Where an eval of ours keeps its rows: `docs/evals` of a checkout that has some already, so
    that no one has to count them again; else the data folder.
    """
    kept = Path(__file__).resolve().parents[1] / "docs" / "evals" / f"{name}.jsonl"
    return kept if kept.exists() else settings.home / "evals" / f"{name}.jsonl"


def append(path: Path, row: EvalRow) -> None:
    """Append one row, on a line of its own even after a line that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as opened:
        opened.seek(0)
        text = opened.read()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            opened.truncate(len(whole.encode()))
        opened.write(f"{row.model_dump_json()}\n")


def read_rows(path: Path, kind: type[RowT]) -> list[RowT]:
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
        rows[row.key] = row
    return list(rows.values())


def complete(
    wanted: Mapping[Hashable, Callable[[], RowT]],
    rows: Iterable[RowT],
    path: Path,
    *,
    table_only: bool = False,
    at_most: int | None = None,
) -> list[RowT]:
    """Make the wanted rows that are missing, each kept in `path` once it is made.

    Args:
        wanted: key of a row to what makes it.
        rows: those of earlier runs.
        path: the jsonl file; a stop loses the row in the making and no other.
        table_only: make none.
        at_most: make no more than so many.

    Returns:
        The wanted rows that there are, in the order asked for.
    """
    found = {row.key: row for row in rows}
    missing = [] if table_only else [key for key in wanted if key not in found]
    missing = missing[:at_most]
    for place, key in enumerate(missing, start=1):
        row = wanted[key]()
        if row.key != key:  # it would be made again by every later run
            raise ValueError(f"asked for {key}, made {row.key}")
        append(path, row)
        found[key] = row
        sys.stderr.write(f"{place} of {len(missing)}: {visible(row.told, one_line=True)}\n")
        sys.stderr.flush()
    return [found[key] for key in wanted if key in found]
