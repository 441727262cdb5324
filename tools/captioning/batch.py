"""Captions for thousands of units: group by group, a row a unit, resumed exactly.

The rows of a run lie in one append-only file. A row is there whole or not at all: what a kill or a
full disk left of one is cut off when the run goes on. Everything that the rows depend on is written
down before the first; a run goes on only under the same settings, so that rows of one file were all
made in one way. Groups are formed from the request alone: an interrupted run and one in a single
piece leave the same file, byte for byte.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.escaping import well_formed
from dragoman.core.files import write_atomic
from dragoman.core.records import Record, canonical_json
from dragoman.tools.captioning.rows import UnitCaption

ROWS_FILE, SETTINGS_FILE = "captions.jsonl", "run.json"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BatchSettings(Record):
    """Everything that the rows of a run depend on; equal settings, equal rows."""

    subject: str
    subject_digest: str
    units: tuple[str, ...]
    """What was asked for, in words: 'mlp.12: 0-1535'."""
    units_digest: str
    """sha256 of the units' names, in order."""
    corpus: str
    """What the units were watched on, in words."""
    corpus_digest: str
    effort: str
    seed: int
    chat: str = ""
    pmi: bool = True
    thorough: bool = False
    dictionary_digest: str = ""
    code: str
    """Digest of the tools' source: rows of two versions do not stand in one file."""

    @property
    def digest(self) -> str:
        """Names the run."""
        return self.content_id()


_IN_WORDS = {
    "subject": "subject",
    "subject_digest": "weights of the subject",
    "units": "units",
    "units_digest": "units",
    "corpus": "corpus",
    "corpus_digest": "corpus (its texts or pictures differ)",
    "effort": "effort",
    "seed": "seed",
    "chat": "chat model",
    "pmi": "pointwise mutual information",
    "thorough": "thorough scores",
    "dictionary_digest": "dictionary",
    "code": "version of Dragoman",
}


class Group(NamedTuple):
    """Units that are captioned together: each is another's control."""

    names: tuple[str, ...]


Describe: TypeAlias = Callable[[int, Sequence[str]], Iterator[UnitCaption]]
"""`describe(group, wanted)` yields the rows of those units of a group that are wanted, in order."""


class Pace(NamedTuple):
    """How far a run is; `new` of the `done` units were captioned since it was started."""

    done: int
    total: int
    new: int
    seconds: float

    @property
    def units_a_minute(self) -> float:
        """0 before the first unit is done."""
        return 60 * self.new / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None before the first unit is done."""
        return self.seconds / self.new * (self.total - self.done) if self.new else None


class Journal:
    """The rows of a run in one file, in the order in which they were written."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; what is no whole row at its end is cut off."""
        self.path = path
        self.repaired = 0
        """Bytes that were cut off: the traces of a kill or of a full disk."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self.names, end = _whole_rows(path)
            self.repaired = os.fstat(self._descriptor).st_size - end
            os.ftruncate(self._descriptor, end)
            self._end = end
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def append(self, row: UnitCaption) -> None:
        """Add a row and see it onto the disk; a failure leaves the file as it was."""
        data = _line(row).encode()
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(data)
        self.names.append(row.name)


def read_rows(folder: Path) -> Iterator[UnitCaption]:
    """The rows of a run, one at a time; `IntegrityError` for a damaged one."""
    path = folder / ROWS_FILE
    with path.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            yield _parsed(line, path, number)


def _whole_rows(path: Path) -> tuple[list[str], int]:
    """Names of the rows, and where the last whole one ends."""
    names: list[str] = []
    end = 0
    with path.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.endswith(b"\n"):
                break
            names.append(_parsed(line, path, number).name)
            end += len(line)
    return names, end


def _parsed(line: bytes, path: Path, number: int) -> UnitCaption:
    try:
        return UnitCaption.model_validate_json(line)
    except ValidationError:
        raise IntegrityError(
            f"{path}, line {number}: is no row of a caption run; delete the line, and --resume "
            "captions its unit anew"
        ) from None


def run(
    folder: Path,
    settings: BatchSettings,
    groups: Sequence[Group],
    describe: Describe,
    *,
    resume: bool,
    on_pace: Callable[[Pace], None],
) -> Pace:
    """Caption every unit of `groups` that `folder` has no row of yet.

    `Interrupted` from `describe` goes through; the rows so far are kept.

    Raises:
        UserError: the folder holds a run already, or (`resume`) one with other settings or none;
            another process is at work on it; the disk is full.
    """
    names = [name for group in groups for name in group.names]
    with _alone(folder), room(folder):
        _enter(folder, settings, resume=resume)
        with Journal(folder / ROWS_FILE) as journal:
            known = set(journal.names)
            began, before = time.monotonic(), len(known)

            def pace() -> Pace:
                done = len(journal.names)
                return Pace(done, len(names), done - before, time.monotonic() - began)

            on_pace(pace())
            for index, group in enumerate(groups):
                wanted = [name for name in group.names if name not in known]
                if wanted:
                    for row in describe(index, wanted):
                        journal.append(row)
                        on_pace(pace())
            if journal.names != names:
                _reorder(folder, names)
            return pace()


def _enter(folder: Path, settings: BatchSettings, *, resume: bool) -> None:
    path = folder / SETTINGS_FILE
    try:
        before = BatchSettings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if resume:
            raise UserError(
                f"{folder}: there is no caption run to resume; leave --resume out to start one"
            ) from None
        if (folder / ROWS_FILE).exists():
            raise UserError(
                f"{folder}: holds {ROWS_FILE} of another origin; choose another --out"
            ) from None
        write_atomic(path, settings.model_dump_json(indent=1) + "\n")
        return
    except ValidationError:
        raise IntegrityError(
            f"{path}: is damaged; move {folder} away and start the run anew"
        ) from None
    if before != settings:
        raise UserError(f"{folder} was begun with {_difference(before, settings)}")
    if not resume:
        raise UserError(
            f"{folder} holds this run already: --resume goes on with it, another --out starts anew"
        )


def _difference(before: BatchSettings, now: BatchSettings) -> str:
    """'seed 0 and not 1; …' for the first setting that differs."""
    name = next(
        name for name in BatchSettings.model_fields if getattr(before, name) != getattr(now, name)
    )
    told = _IN_WORDS[name]
    way_out = "give the settings that it was begun with, or choose another --out"
    if name.endswith("digest") or name in ("code", "units"):
        return f"another {told}: {way_out}"
    shown = [f"{getattr(each, name)}" or "none" for each in (before, now)]
    return f"{told} {shown[0]} and not {shown[1]}: {way_out}"


def _reorder(folder: Path, names: Sequence[str]) -> None:
    """Bring the rows into the order of the request: a damaged row may have been written again."""
    lines = {row.name: _line(row) for row in read_rows(folder)}
    write_atomic(folder / ROWS_FILE, "".join(lines[name] for name in names))


def _line(row: UnitCaption) -> str:
    return well_formed(canonical_json(row.model_dump(mode="json"))) + "\n"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{folder}: another process is at work on this run; wait for it or stop it"
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turn a file that cannot be written, for want of room above all, into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> UserError:
    if error.errno in _FULL:
        return UserError(
            f"{folder}: the disk is full; what was finished is kept: free some space and run the "
            "same command with --resume"
        )
    return UserError(f"{folder}: cannot be written ({error.strerror or error})")
