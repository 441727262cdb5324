"""Many relation files, one table: a row for each file, kept as soon as it is done.

A run goes on where it stopped: a row is used again only if the file's content, the subject, the
settings and the tools' source are those that it was made from.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from dragoman.core.errors import ToolError, UserError
from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.records import Record, ToolResult
from dragoman.tools.relations import Relation, read_relation

ROWS_FILE = "results.jsonl"
"""The rows in full, from which table and page are made."""
_SUFFIXES = frozenset({".json", ".jsonl", ".parquet"})


class RelationRow(Record):
    """What came of one relation file."""

    file: str
    """Path within the folder."""
    file_sha256: str
    key: str
    """Content id of all else that the result depends on."""
    relation: str
    kind: str
    n_samples: int
    n_objects: int
    result: ToolResult | None
    """None where the file itself is at fault."""
    fault: str = ""
    """What is wrong with the file or with the call; names the place."""


Run: TypeAlias = Callable[[Path], ToolResult]


def relation_files(folder: Path) -> list[Path]:
    """The relation files of a folder and its sub-folders, as relative paths in order.

    Files of facts (`.jsonl`, `.parquet`) are among them, and what a batch itself left is not.
    `UserError` if there are none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    files = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
        and path.is_file()
        and not (path.parent / ROWS_FILE).exists()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise UserError(
            f"{folder} holds no relation file; they end in {', '.join(sorted(_SUFFIXES))}"
        )
    return files


def read_rows(folder: Path) -> dict[str, RelationRow]:
    """The rows of an earlier run by file name; what cannot be read is done again."""
    try:
        lines = (folder / ROWS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    rows = {}
    for line in lines:
        try:
            row = RelationRow.model_validate_json(line)
        except ValidationError:
            continue
        rows[row.file] = row
    return rows


def run_batch(
    folder: Path,
    files: Sequence[Path],
    out: Path,
    key: str,
    run: Run,
    step: Callable[[int, int, str], None],
) -> list[RelationRow]:
    """A row for each file, in order; those that are done already are not run again.

    Args:
        folder: where the files are.
        files: relation files, as paths within the folder.
        out: the folder that holds the rows.
        key: content id of subject, settings, seed and source.
        run: measures one file; its `ToolResult` may be an error.
        step: hears of each file; may raise to stop, what was done is kept.
    """
    before = read_rows(out)
    rows: list[RelationRow] = []
    for place, path in enumerate(files):
        digest = file_sha256(folder / path)
        kept = before.get(path.as_posix())
        if kept is not None and (kept.file_sha256, kept.key) == (digest, key):
            rows.append(kept)
            continue
        step(place, len(files), f"{path.as_posix()}: {place + 1} of {len(files)} relations")
        rows.append(_row(folder, path, digest, key, run))
        # Rows of files that are still to come stay: they may be good when their turn comes.
        done = {row.file for row in rows}
        others = [row for name, row in before.items() if name not in done]
        _write(out, [*rows, *others])
    _write(out, rows)
    return rows


def _row(folder: Path, path: Path, digest: str, key: str, run: Run) -> RelationRow:
    try:
        relation: Relation = read_relation(folder / path)
    except ToolError as error:
        return RelationRow(
            file=path.as_posix(),
            file_sha256=digest,
            key=key,
            relation=path.stem,
            kind="",
            n_samples=0,
            n_objects=0,
            result=None,
            fault=str(error),
        )
    result = run(folder / path)
    return RelationRow(
        file=path.as_posix(),
        file_sha256=digest,
        key=key,
        relation=relation.name,
        kind=relation.kind,
        n_samples=len(relation.samples),
        n_objects=len(relation.objects),
        result=result,
        fault=result.error or "",
    )


def _write(out: Path, rows: Sequence[RelationRow]) -> None:
    write_atomic(out / ROWS_FILE, "".join(row.model_dump_json() + "\n" for row in rows))
