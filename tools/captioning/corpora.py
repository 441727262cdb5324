"""A person's own texts, streamed: txt, jsonl, parquet, or a Hugging Face dataset on disk.

A corpus is a sequence of parts, one a file. A part's id is the digest of its bytes, so that what
was computed from a file is never taken for what another file of that name would give.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dragoman.core.errors import UserError
from dragoman.core.files import file_sha256
from dragoman.core.records import content_id

FIELD = "text"
SUFFIXES = (".txt", ".jsonl", ".parquet")
_ROWS_AT_ONCE = 1024


class TextPart(Protocol):
    """Some texts, in an order."""

    @property
    def id(self) -> str:
        """Digest of the content."""
        ...

    def texts(self) -> Iterator[str]:
        """Every text that is more than white space; `UserError` names the bad line or row."""
        ...


class TextCorpus(Protocol):
    """Texts to watch units on."""

    @property
    def id(self) -> str:
        """Digest of the content."""
        ...

    @property
    def description(self) -> str:
        """What the texts are, in words."""
        ...

    @property
    def parts(self) -> Sequence[TextPart]:
        """The parts, in order."""
        ...

    @property
    def n_documents(self) -> int | None:
        """How many texts; None where only reading would tell."""
        ...


@dataclass(frozen=True)
class HeldPart:
    """Texts in memory."""

    documents: tuple[str, ...]

    @cached_property
    def id(self) -> str:
        return content_id(list(self.documents))

    def texts(self) -> Iterator[str]:
        return iter(self.documents)


@dataclass(frozen=True)
class FilePart:
    """The texts of one file."""

    path: Path
    field: str
    rows: Callable[[Path, str], Iterator[str]]

    @cached_property
    def id(self) -> str:
        """sha256 over the file's bytes and the field that is read."""
        try:
            return content_id([file_sha256(self.path), self.field])
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from None

    def texts(self) -> Iterator[str]:
        for text in self.rows(self.path, self.field):
            if text.strip():
                yield text


@dataclass(frozen=True)
class FileCorpus:
    """The texts of some files, streamed."""

    path: Path
    parts: tuple[FilePart, ...]
    counted: int | None = None
    """How many texts there are, where somebody has counted them."""

    @property
    def id(self) -> str:
        return content_id([part.id for part in self.parts])

    @property
    def description(self) -> str:
        files = f" ({len(self.parts)} files)" if len(self.parts) > 1 else ""
        return f"the texts of {self.path.name}{files}"

    @property
    def n_documents(self) -> int | None:
        return self.counted

    def texts(self) -> Iterator[str]:
        """Those of all parts."""
        for part in self.parts:
            yield from part.texts()

    def first(self, n: int) -> "FirstTexts":
        """The first `n` texts, held in memory."""
        return FirstTexts(self, (HeldPart(tuple(islice(self.texts(), n))),))


@dataclass(frozen=True)
class FirstTexts:
    """The beginning of a corpus."""

    whole: FileCorpus
    parts: tuple[HeldPart]

    @property
    def id(self) -> str:
        return self.parts[0].id

    @property
    def description(self) -> str:
        return f"the first {self.n_documents} of {self.whole.description}"

    @property
    def n_documents(self) -> int:
        return len(self.parts[0].documents)


def open_corpus(path: Path, *, field: str = FIELD) -> FileCorpus:
    """A `.txt` (one text a line), `.jsonl` or `.parquet` file, or a folder.

    A folder is a Hugging Face dataset as `save_to_disk` leaves it, or holds files of the kinds
    above. `field` names the column with the text. `UserError` for anything else; nothing of a file
    is read before its texts are asked for.
    """
    if path.is_dir():
        files = _dataset_files(path) or sorted(
            each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file()
        )
        if not files:
            raise UserError(
                f"{path}: neither a Hugging Face dataset on disk nor a folder of "
                f"{', '.join(SUFFIXES)} files"
            )
    elif path.suffix in _READERS:
        if not path.is_file():
            raise UserError(f"{path}: cannot be read: no such file")
        files = [path]
    else:
        raise UserError(f"{path}: a corpus is a {', '.join(SUFFIXES)} file or a dataset's folder")
    return FileCorpus(path, tuple(FilePart(each, field, _READERS[each.suffix]) for each in files))


def _dataset_files(folder: Path) -> list[Path]:
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _json(splits).get("splits", [])
        raise UserError(
            f"{folder}: a dataset of several splits; name one: "
            + ", ".join(str(folder / str(name)) for name in names)
        )
    state = folder / "state.json"
    if not state.is_file():
        return []
    described = _json(state)
    if described.get("_indices_files") or described.get("_indices_data_files"):
        raise UserError(f"{folder}: rows are selected by an index; save it after flatten_indices()")
    names = [str(each.get("filename")) for each in described.get("_data_files") or []]
    # A name with a folder in it would lead out of the dataset.
    files = [folder / Path(name).name for name in names]
    if not files:
        raise UserError(f"{state}: names no data files")
    for file in files:
        if file.suffix != ".arrow":
            raise UserError(f"{state}: {file.name} is no .arrow file")
        if not file.is_file():
            raise UserError(f"{file}: cannot be read: no such file, though {state.name} names it")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
    return read if isinstance(read, dict) else {}


def _lines(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                try:
                    # A byte-order mark can only stand at the beginning.
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: cannot be read as UTF-8 text ({error.reason})"
                    ) from None
                yield text.rstrip("\r\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _json_lines(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path, field), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise UserError(f"{path}, line {number}: {reason}") from None
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            raise UserError(f"{path}, line {number}: no string named {field!r}")
        yield row[field]


def _parquet(path: Path, field: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as opened:
            _check_column(path, opened.schema_arrow, field)
            batches = opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[field])
            yield from _strings(path, field, batches)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({_first_line(error)})") from None


def _arrow(path: Path, field: str) -> Iterator[str]:
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as opened:
            _check_column(path, opened.schema, field)
            yield from _strings(path, field, iter(opened))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as arrow ({_first_line(error)})") from None


def _check_column(path: Path, schema: Any, field: str) -> None:
    if field not in schema.names:
        raise UserError(f"{path}: no column {field!r}; it has {', '.join(schema.names) or 'none'}")


def _strings(path: Path, field: str, batches: Iterator[Any]) -> Iterator[str]:
    number = 0
    for batch in batches:
        for value in batch.column(field).to_pylist():
            number += 1
            if not isinstance(value, str):
                raise UserError(f"{path}, row {number}: no string in column {field!r}")
            yield value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
